"""A replica whose two ranks are in two processes."""

import pytest

from nodes import Globe
from troupe_process import eventually, events

MODELS = {"bard": {"instances": 1, "tensor_parallel": 2, "cpu_threads": 1}}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A front, and one replica with rank 0 on stage1 and rank 1 on stage2."""
    with Globe(tmp_path_factory.mktemp("ranks"), replicas=1, models=MODELS) as cluster:
        yield cluster


def text_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def test_two_processes_give_the_text_of_one(pair, bard):
    assert [r["node"] for r in pair.status()["replicas"]] == ["stage1"]
    for fields in ({"temperature": 0}, {"seed": 7}, {"seed": 8, "temperature": 1.3, "top_p": 0.9}):
        ask = {"max_tokens": 60, **fields}
        assert text_of(pair.complete(**ask)) == text_of(bard.complete(**ask))
    sent = {n["name"]: n["bytes_sent"] for n in pair.status()["nodes"]}
    assert sent["stage1"] > 0


@pytest.mark.parametrize("victim", ["stage2", "stage1"])
def test_a_stream_goes_on_once_the_killed_stage_is_back(pair, bard, victim):
    ask = {"seed": 3, "max_tokens": 250, "ignore_eos": True}
    with pair.stream(**ask) as answer:
        parts = events(answer)
        text = next(parts)["choices"][0]["text"]
        pair.nodes[victim].kill()
        pair.nodes[victim].wait()
        eventually(lambda: pair.seen(victim)["state"] == "down", "is down")
        pair.start(victim)
        for part in parts:
            if part != "[DONE]":
                text += part["choices"][0]["text"]
    assert text == text_of(bard.complete(**ask))
    eventually(lambda: "ready" in pair.states("replicas"), "is ready again")
    assert text_of(pair.complete(**ask)) == text
