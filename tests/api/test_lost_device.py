"""A GPU that an error has taken from the process: what runs on it goes on in a process of its own."""

import concurrent.futures
import os
import pathlib
import signal

import httpx
import pytest

from frail import frail_program
from troupe_process import PATIENCE_S, Cluster, children, eventually, events, text_across

ASK = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}
# Tokens of an answer that is under way for a while.
LONG = 450


def start(folder, devices=("cuda:0",), **bard):
    """A server whose GPU breaks with `break_device`, as often as that is called."""
    program, caches = frail_program(folder)
    cluster = Cluster(folder, program=program, devices=devices, cache_directory=str(caches),
                      models={"bard": {"max_num_batched_tokens": 256, "swap_space": 0, "cpu_threads": 1, **bard}})
    cluster.break_device = lambda: (caches / "break").touch()
    return cluster


@pytest.fixture
def served(tmp_path):
    with start(tmp_path) as cluster:
        yield cluster


def text_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def stream(cluster, **fields):
    body = {"model": "bard", "prompt": "ROMEO:", "stream": True, **ASK, **fields}
    return httpx.stream("POST", cluster.url + "/v1/completions", json=body, timeout=PATIENCE_S)


def replicas(cluster):
    return cluster.get("/troupe/v1/status").json()["replicas"]


def broken(cluster):
    """Breaks the device: the stream that meets it ends with the reason, and then there is another executor."""
    before = [r["restarts"] for r in replicas(cluster)]
    with stream(cluster, max_tokens=LONG) as answer:
        parts = events(answer)
        next(parts)
        cluster.break_device()
        said = [part["error"]["message"] for part in parts if "error" in part]
    assert len(said) == 1 and "the device is broken" in said[0], said
    eventually(lambda: all(r["restarts"] > old and r["state"] == "ready" for r, old in zip(replicas(cluster), before)),
               "are ready again")


def test_the_next_executor_has_a_process_of_its_own(served):
    text = text_of(served.complete(**ASK))
    assert children(served.process.pid) == []
    broken(served)
    assert any("what runs on it gets one of its own" in line for line in served.complaints)
    first = children(served.process.pid)
    assert len(first) == 1
    assert text_of(served.complete(**ASK)) == text
    # That one's device breaks too.
    broken(served)
    assert len(children(served.process.pid)) == 1 and children(served.process.pid) != first
    assert text_of(served.complete(**ASK)) == text


def test_a_stream_survives_the_end_of_that_process(served):
    text = text_of(served.complete(**{**ASK, "max_tokens": LONG}))
    broken(served)
    with stream(served, max_tokens=LONG) as answer:
        assert text_across(answer, lambda: os.kill(children(served.process.pid)[0], signal.SIGKILL)) == text
    assert any("ended with signal 9 (Killed)" in line for line in served.complaints)
    assert served.process.poll() is None


def test_its_end_is_found_while_nobody_asks(served):
    broken(served)
    before, first = served.replica()["restarts"], children(served.process.pid)
    os.kill(first[0], signal.SIGKILL)
    eventually(lambda: served.replica()["restarts"] > before and served.replica()["state"] == "ready", "is ready again")
    assert len(children(served.process.pid)) == 1 and children(served.process.pid) != first
    assert served.complete(**ASK).status_code == 200


def test_those_that_waited_are_served_by_the_next(tmp_path):
    ask = {**ASK, "max_tokens": LONG}
    with start(tmp_path, max_num_seqs=2) as cluster, concurrent.futures.ThreadPoolExecutor(8) as pool:
        text = text_of(cluster.complete(**ask))
        answers = [pool.submit(cluster.complete, **ask) for _ in range(8)]
        eventually(lambda: cluster.replica()["waiting"] >= 2, "some wait")
        cluster.break_device()
        done = [answer.result() for answer in answers]
        failed = [answer for answer in done if answer.status_code != 200]
        # Those that ran; the step that met it may be the first behind the end of one.
        assert 1 <= len(failed) <= 2 and all("the device is broken" in answer.text for answer in failed), [d.text for d in done]
        assert {text_of(answer) for answer in done if answer.status_code == 200} == {text}


def test_ranks_get_one_each_and_lose_no_stream(tmp_path):
    with start(tmp_path, devices=["cuda:0", "cuda:1"], tensor_parallel=2) as cluster:
        text = text_of(cluster.complete(**{**ASK, "max_tokens": LONG}))
        for harm in (lambda: cluster.break_device(), lambda: os.kill(children(cluster.process.pid)[1], signal.SIGKILL)):
            with stream(cluster, max_tokens=LONG) as answer:
                assert text_across(answer, harm) == text
            assert len(children(cluster.process.pid)) == 2
        assert cluster.process.poll() is None


def test_that_process_ends_with_the_server(served):
    broken(served)
    child = children(served.process.pid)[0]
    served.process.kill()
    eventually(lambda: not pathlib.Path(f"/proc/{child}").exists(), "is gone")


def test_all_on_it_wait_for_each_other_and_get_one_each(tmp_path):
    with start(tmp_path, instances=2) as cluster:
        text = text_of(cluster.complete(**ASK))
        broken(cluster)
        assert len(children(cluster.process.pid)) == 2
        assert {text_of(cluster.complete(**ASK)) for _ in range(4)} == {text}
