"""A replica whose two ranks are in two processes."""

import concurrent.futures
import os
import random
import signal
import time

import pytest

from nodes import ON_DEVICE, Globe
from troupe_process import children, eventually, run, text_across

MODELS = {"bard": {"instances": 1, "tensor_parallel": 2, "cpu_threads": 1, **ON_DEVICE}}


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

    def end_and_start():
        pair.kill(victim)
        pair.start(victim)

    with pair.stream(**ask) as answer:
        text = text_across(answer, end_and_start)
    assert text == text_of(bard.complete(**ask))
    eventually(lambda: "ready" in pair.states("replicas"), "is ready again")
    assert text_of(pair.complete(**ask)) == text


def begun(cluster, pool, count, **ask):
    """Answers under way."""
    whole = [pool.submit(cluster.complete, seed=i, **ask) for i in range(count)]
    eventually(lambda: cluster.replica_on("stage1").get("running", 0) > count / 2, "they run")
    return whole


def test_a_drain_of_the_node_of_rank_1_lets_the_streams_end_first(pair, bard):
    ask = {"max_tokens": 250, "ignore_eos": True}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        whole = begun(pair, pool, 6, **ask)
        drained = pool.submit(run, "drain", "stage2", "--deadline", "60", "--url", pair.url)
        eventually(lambda: pair.replica_on("stage1")["state"] == "draining", "takes nothing new")
        assert not drained.done() and pair.seen("stage2")["state"] == "draining"
        # There is no other replica, so what comes now is refused.
        assert pair.complete(seed=9, **ask).status_code == 503
        # The node has both ranks until all have ended, and goes without them.
        assert [w.result().status_code for w in whole] == [200] * 6
        assert pair.nodes["stage2"].wait() == 0
        assert drained.result().returncode == 0, drained.result().stderr
        assert pair.nodes["stage2"].complained("drained")
        assert not pair.nodes["stage2"].complained("the deadline")
        for seed, answer in enumerate(whole):
            assert text_of(answer.result()) == text_of(bard.complete(seed=seed, **ask))
    eventually(lambda: pair.replica_on("stage1")["state"] == "loading", "the ranks are gone")
    pair.start("stage2")
    eventually(lambda: pair.states("replicas") == ["ready"], "is ready again")
    assert text_of(pair.complete(seed=9, **ask)) == text_of(bard.complete(seed=9, **ask))
    assert pair.replica_on("stage1")["restarts"] == 0


def test_at_the_deadline_of_such_a_drain_the_streams_wait_for_the_ranks(pair, bard):
    ask = {"max_tokens": 250, "ignore_eos": True}
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        whole = begun(pair, pool, 16, **ask)
        drained = run("drain", "stage2", "--deadline", "0", "--url", pair.url)
        assert drained.returncode == 0, drained.stderr
        assert pair.nodes["stage2"].wait() == 0
        assert pair.nodes["stage2"].complained("the deadline of the drain has come")
        assert not all(w.done() for w in whole)
        pair.start("stage2")
        for seed, answer in enumerate(whole):
            assert text_of(answer.result()) == text_of(bard.complete(seed=seed, **ask))


def test_a_rank_that_stands_still_for_too_long_costs_a_restart_and_no_stream(tmp_path, bard):
    """Its node lives for the others all the while, so that the ranks' own limit of 10 s must end the step."""
    ask = {"temperature": 0, "max_tokens": 250, "ignore_eos": True}
    with Globe(tmp_path, replicas=1, models=MODELS, wire={"dead_after_s": 60}) as pair:
        stage = pair.nodes["stage2"]

        def stand_still():
            stage.kill(signal.SIGSTOP)
            try:
                eventually(lambda: pair.nodes["stage1"].complained("waited 10000 ms"), "the limit has passed")
            finally:
                stage.kill(signal.SIGCONT)

        with pair.stream(**ask) as answer:
            text = text_across(answer, stand_still)
        assert text == text_of(bard.complete(**ask))
        assert pair.replica_on("stage1")["restarts"] == 1


def test_a_rank_whose_device_is_lost_gets_a_process_of_its_own(tmp_path, bard):
    ask = {"temperature": 0, "max_tokens": 250, "ignore_eos": True}
    with Globe(tmp_path, replicas=1, frail=True, models=MODELS) as pair:
        stages = [pair.nodes[name].process for name in ("stage1", "stage2")]

        def hosted():
            return [child for stage in stages for child in children(stage.pid)]

        text = text_of(bard.complete(**ask))
        # The device of one, then the end of the process that has its rank since.
        for harm in (pair.break_device, lambda: os.kill(hosted()[0], signal.SIGKILL)):
            with pair.stream(**ask) as answer:
                assert text_across(answer, harm) == text
            assert len(hosted()) == 1
        assert [stage.poll() for stage in stages] == [None, None]


HARMS = [("kill", "stage1"), ("kill", "stage2"), ("stop", "stage1"), ("stop", "stage2"), ("break", "stage2"),
         ("child", "stage1"), ("child", "stage2")]


def hurt(pair, how, victim, pause):
    """Ends, stops or damages something of a stage, which is whole again when this returns or soon after."""
    stage = pair.nodes[victim]
    if how == "kill":
        pair.kill(victim)
        time.sleep(pause)
        pair.start(victim)
    elif how == "stop":
        stage.kill(signal.SIGSTOP)
        # Behind 3 s it is declared dead.
        time.sleep(5 * pause)
        stage.kill(signal.SIGCONT)
    elif how == "break":
        pair.break_device()
    else:
        for child in children(stage.process.pid):
            os.kill(child, signal.SIGKILL)


def test_no_answer_is_lost_or_changed_whatever_ends(tmp_path, bard):
    """Each harm once in any order, while more run and wait than have room; TROUPE_RANK_ROUNDS and TROUPE_RANK_SEED for more."""
    seed = int(os.environ.get("TROUPE_RANK_SEED", "20261129"))
    chance = random.Random(seed)
    few = {"bard": {**MODELS["bard"], "max_num_seqs": 6, "num_gpu_blocks_override": 60}}
    ask = {"max_tokens": 200, "ignore_eos": True}
    want = [text_of(bard.complete(seed=i, **ask)) for i in range(10)]
    with Globe(tmp_path, replicas=1, frail=True, models=few) as pair, concurrent.futures.ThreadPoolExecutor(10) as pool:
        for number in range(int(os.environ.get("TROUPE_RANK_ROUNDS", "1"))):
            for harm in chance.sample(HARMS, len(HARMS)):
                what = f"seed {seed}, round {number}: {harm}"
                whole = [pool.submit(pair.complete, seed=i, **ask) for i in range(10)]
                eventually(lambda: pair.replica_on("stage1").get("running", 0) > 3, what)
                hurt(pair, *harm, chance.random())
                for i, answer in enumerate(whole):
                    assert text_of(answer.result()) == want[i], what
        eventually(lambda: (row := pair.replica_on("stage1"))["state"] == "ready" and row["running"] == 0
                   and row["blocks_used"] == 0, "all blocks are back")
