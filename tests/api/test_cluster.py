"""Several processes that serve as one: they come, go, die, drain and join."""

import concurrent.futures
import os
import pathlib
import signal
import stat
import time

import httpx
import pytest

from nodes import Globe, Process
from ports import free_ports
from troupe_process import eventually, events, run, write_cluster

LONG = {"max_tokens": 250, "ignore_eos": True}


@pytest.fixture(scope="module")
def globe(tmp_path_factory):
    """One cluster for all tests here; each leaves all its nodes up."""
    with Globe(tmp_path_factory.mktemp("globe")) as cluster:
        yield cluster


def text_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def streamed_text(cluster, **fields):
    with cluster.stream(**fields) as answer:
        parts = list(events(answer))
    assert parts[-1] == "[DONE]"
    return "".join(p["choices"][0]["text"] for p in parts[:-1])


def asked_until_at_work(cluster, pool, stage):
    """Answers, six of them under way at a time until the front has seen the stage at work."""
    whole = []

    def at_work():
        if sum(not answer.done() for answer in whole) < 6:
            whole.append(pool.submit(cluster.complete, seed=len(whole), **LONG))
        return cluster.replica_on(stage).get("running", 0) > 0

    eventually(at_work, f"{stage} works")
    return whole


def test_both_stages_serve_what_enters_at_the_front(globe):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        whole = list(pool.map(lambda i: globe.complete(seed=i, **LONG), range(8)))
    assert {a.json()["usage"]["completion_tokens"] for a in whole} == {250}
    assert streamed_text(globe, seed=3, max_tokens=60) == text_of(globe.complete(seed=3, max_tokens=60))

    def both():
        rows = globe.status()["replicas"]
        return {r["node"] for r in rows if r["generation_tokens"] > 0} == {"stage1", "stage2"}

    eventually(both, "both stages have generated")
    ids = {r["replica"] for r in globe.status()["replicas"]}
    assert len(ids) == 2


def test_the_answers_are_those_of_a_single_process(globe, bard):
    for fields in ({"temperature": 0}, {"seed": 7}, {"seed": 8, "temperature": 1.3, "top_p": 0.9}):
        for prompt in ("ROMEO:", "To be, or not"):
            ask = {"max_tokens": 80, "prompt": prompt, **fields}
            assert text_of(globe.complete(**ask)) == text_of(bard.complete(**ask))


def test_status_shows_every_node_with_its_wire(globe):
    def measured():
        rows = {n["name"]: n for n in globe.status()["nodes"]}
        return rows if all(rows[s]["round_trip_us"] > 0 for s in ("stage1", "stage2")) else None

    rows = eventually(measured, "round trips are measured")
    assert set(rows) == {"front", "stage1", "stage2"}
    for name in ("stage1", "stage2"):
        assert rows[name]["state"] == "up" and rows[name]["lanes"], rows[name]
        assert rows[name]["bytes_sent"] > 0 and rows[name]["bytes_received"] > 0
    shown = run("status", "--url", globe.url)
    assert shown.returncode == 0 and rows["stage1"]["lanes"] in shown.stdout, shown.stdout
    for word in ("LANES", "stage2", "up", rows["stage2"]["address"]):
        assert word in shown.stdout


def test_a_stage_that_is_killed_goes_down_and_comes_back(globe):
    down = globe.kill("stage1")
    assert down["note"] and not down["lanes"]
    assert globe.replica_on("stage1")["state"] == "down"
    for seed in range(4):
        assert globe.complete(seed=seed, max_tokens=5).status_code == 200
    globe.start("stage1")
    eventually(lambda: globe.seen("stage1")["state"] == "up", "is up again")
    eventually(lambda: globe.replica_on("stage1")["state"] == "ready", "its replica is ready")
    before = globe.replica_on("stage1")["generation_tokens"]

    def serves():
        assert globe.complete(max_tokens=5).status_code == 200
        return globe.replica_on("stage1")["generation_tokens"] > before

    eventually(serves, "it serves again")


def test_a_drained_stage_ends_its_streams_and_then_itself(globe):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        whole = asked_until_at_work(globe, pool, "stage2")
        drained = run("drain", "stage2", "--deadline", "60", "--url", globe.url)
        assert drained.returncode == 0, drained.stderr
        assert {w.result().status_code for w in whole} == {200}
        assert {w.result().json()["usage"]["completion_tokens"] for w in whole} == {250}
    assert globe.nodes["stage2"].wait() == 0
    assert globe.nodes["stage2"].complained("drained")
    eventually(lambda: globe.seen("stage2")["state"] == "drained", "shown as drained")
    assert globe.complete(max_tokens=5).status_code == 200
    wrong = run("drain", "stage9", "--url", globe.url)
    assert wrong.returncode == 1 and "the nodes are: front, stage1, stage2" in wrong.stderr
    assert run("drain", "stage2", "--url", globe.url).returncode == 1
    globe.start("stage2")
    eventually(lambda: globe.replica_on("stage2")["state"] == "ready", "started anew")


def test_a_fourth_node_joins_and_leaves_while_the_cluster_runs(globe):
    larger = globe.write("larger.json", stages=3)
    globe.start("stage3", larger)
    eventually(lambda: globe.replica_on("stage3")["state"] == "ready", "the new stage is ready")
    assert globe.seen("stage3")["state"] == "up"
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        answers = list(pool.map(lambda i: globe.complete(seed=i, **LONG), range(9)))
    assert {a.status_code for a in answers} == {200}
    eventually(lambda: globe.replica_on("stage3")["generation_tokens"] > 0, "it serves")
    globe.nodes["stage3"].kill(signal.SIGTERM)
    assert globe.nodes["stage3"].wait() == 0
    eventually(lambda: globe.seen("stage3")["state"] == "down", "has left")
    assert globe.seen("stage3")["note"] == "has left"


def test_a_front_that_is_killed_leaves_no_block_behind(tmp_path):
    count, long = 24, {"max_tokens": 450, "ignore_eos": True}
    with Globe(tmp_path, stages=1) as cluster:
        other = {"name": "other", "address": f"127.0.0.1:{cluster.ports[2]}", "devices": [], "router": True,
                 "edges": {"http": {"port": 0}}}
        file = cluster.write("two_fronts.json", nodes=[cluster.node(0), cluster.node(1), other])
        process = cluster.start("other", file)
        url = eventually(lambda: process.find(r"http://[0-9.]+:\d+"), "an address").group(0)
        eventually(lambda: process.find("^ready"), "the second front is ready")

        def ask(seed):
            with pytest.raises(httpx.HTTPError):
                httpx.post(url + "/v1/completions", json=cluster.body(seed=seed, **long), timeout=60)

        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            asked = [pool.submit(ask, seed) for seed in range(count)]
            eventually(lambda: cluster.replica_on("stage1").get("running") == count, "all run")
            process.kill()
            eventually(lambda: cluster.seen("other")["state"] == "down", "its death is known")
            known = time.monotonic()
            eventually(lambda: (row := cluster.replica_on("stage1"))["running"] == 0 and row["blocks_used"] == 0,
                       "its streams' blocks are free")
            took = time.monotonic() - known
            for one in asked:
                one.result()
        # A second, and what sanitizers on a busy machine take.
        assert took < 3, took
        assert cluster.replica_on("stage1")["generation_tokens"] < count * long["max_tokens"]
        print(f"freed {took:.3f} s after the death was known")
        assert cluster.complete(max_tokens=3).status_code == 200


def test_a_stage_that_stood_still_drops_what_it_had_and_comes_back_as_it_is(globe, bard):
    stage = globe.nodes["stage1"]
    was = globe.replica_on("stage1")["replica"]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        whole = asked_until_at_work(globe, pool, "stage1")
        stage.kill(signal.SIGSTOP)
        eventually(lambda: globe.seen("stage1")["state"] == "down", "declared dead")
        # Its streams go on at the other stage.
        for seed, answer in enumerate(whole):
            assert text_of(answer.result()) == text_of(bard.complete(seed=seed, **LONG))
    stage.kill(signal.SIGCONT)
    eventually(lambda: globe.seen("stage1")["state"] == "up", "met again")
    eventually(lambda: stage.complained("declared dead"), "says what happened")
    eventually(lambda: (row := globe.replica_on("stage1"))["state"] == "ready" and row["running"] == 0
               and row["blocks_used"] == 0, "what it had for the front is dropped")
    assert globe.replica_on("stage1")["replica"] == was and stage.process.poll() is None
    before = globe.replica_on("stage1")["generation_tokens"]

    def serves():
        assert globe.complete(max_tokens=3).status_code == 200
        return globe.replica_on("stage1")["generation_tokens"] > before

    eventually(serves, "it serves again")


@pytest.mark.parametrize("what, change, expected", [
    ("model", {"models": {"bard": {"instances": 2, "max_num_seqs": 3}}}, "models.bard"),
    ("routing", {"routing": {"policy": "round_robin"}}, "routing"),
    ("secret", {"secret_file": "other.secret"}, "different secrets"),
])
def test_a_node_that_does_not_fit_is_refused_with_the_reason(globe, what, change, expected):
    other = globe.folder / "other.secret"
    other.write_text("another secret, long enough\n")
    other.chmod(0o600)
    larger = globe.write(f"{what}.json", stages=3, **change)
    with_stage3 = globe.start("stage3", larger, "--executor", "simulated")
    try:
        eventually(lambda: with_stage3.complained(expected), "the node says why")
        eventually(lambda: globe.nodes["front"].complained(expected), "and so does the front")
    finally:
        with_stage3.kill(signal.SIGTERM)
        with_stage3.wait()


def test_status_shows_a_node_of_the_file_that_is_refused(tmp_path):
    cluster = Globe(tmp_path, stages=1)
    front = cluster.start("front")
    stage = cluster.start("stage1", cluster.write("changed.json", limits={}, models={
        "bard": {"instances": 1, "block_size": 32}}))
    try:
        cluster.url = eventually(lambda: front.find(r"http://[0-9.]+:\d+"), "an address").group(0)
        row = eventually(lambda: (r := cluster.seen("stage1"))["state"] == "refused" and r, "refused")
        assert "models.bard" in row["note"] and "same files" in row["note"]
        answer = cluster.complete(max_tokens=1)
        assert answer.status_code == 503 and "stage1" in answer.text and "refused" in answer.text
    finally:
        front.stop()
        stage.stop()


def test_one_command_starts_all_and_ends_all(tmp_path):
    cluster = Globe(tmp_path)
    cluster.secret.unlink()
    whole = Process(cluster.file, "--executor", "simulated")
    try:
        cluster.url = eventually(lambda: whole.find(r"^front \| .*(http://[0-9.]+:\d+)"),
                                 "the front's address").group(1)
        for name in ("front", "stage1", "stage2"):
            eventually(lambda n=name: whole.find(rf"^{n} \| ready"), f"{name} is ready")
        assert stat.S_IMODE(os.stat(cluster.secret).st_mode) == 0o600
        assert cluster.complete(max_tokens=3).status_code == 200
        children = pathlib.Path(f"/proc/{whole.process.pid}/task/{whole.process.pid}/children")
        victim = next(p for p in children.read_text().split()
                      if b"stage1" in pathlib.Path(f"/proc/{p}/cmdline").read_bytes())
        os.kill(int(victim), signal.SIGKILL)
        eventually(lambda: whole.complained("node 'stage1' ended with signal 9"), "is noticed")
        eventually(lambda: cluster.replica_on("stage1")["state"] == "down"
                   or whole.complained("started again"), "is started again")
        eventually(lambda: cluster.states("replicas") == ["ready"] * 2, "serves again")
        whole.kill(signal.SIGTERM)
        assert whole.wait() == 0
    finally:
        whole.stop()


def test_bad_files_are_refused_with_a_sentence(tmp_path):
    cluster = Globe(tmp_path)

    def refused(*expected, file=cluster.file, command=("up", "--node", "stage1")):
        done = run(command[0], file, *command[1:])
        text = done.stdout + done.stderr
        assert done.returncode == 1 and all(e in text for e in expected), text

    for command in (("up", "--node", "stage1"), ("check",)):
        cluster.secret.chmod(0o640)
        refused("secret_file", "chmod 600", command=command)
        cluster.secret.unlink()
        refused("secret_file", "troupe secret", command=command)
        assert run("secret", cluster.secret).returncode == 0
        front, stage = cluster.node(0), cluster.node(1)
        for change, words in (({"name": "front"}, ("is also the name", "unique")),
                              ({"address": front["address"]}, ("is also the address", "unique"))):
            refused(*words, command=command,
                    file=cluster.write("twice.json", nodes=[front, {**stage, **change}]))
    refused("no-such-host.invalid", "does not resolve", command=("check",), file=cluster.write(
        "lost.json", nodes=[front, {**stage, "address": "no-such-host.invalid:7600"}]))
    refused("there is no node 'stage7'", "front, stage1, stage2", command=("up", "--node", "stage7"))
    again = run("secret", cluster.secret)
    assert again.returncode == 1 and "exists already" in again.stderr
    assert run("check", cluster.file).returncode == 0


def test_a_port_that_is_taken_is_named(globe):
    second = run("up", globe.file, "--node", "stage1")
    assert second.returncode == 1
    assert f"127.0.0.1:{globe.ports[1]}" in second.stderr, second.stderr


def test_an_unreachable_node_is_told_at_start(tmp_path):
    cluster = Globe(tmp_path, stages=1)
    front = cluster.start("front")
    try:
        cluster.url = eventually(lambda: front.find(r"http://[0-9.]+:\d+"), "an address").group(0)
        row = eventually(lambda: (r := cluster.seen("stage1"))["state"] == "down" and r, "is down")
        assert f"127.0.0.1:{cluster.ports[1]}" in row["note"]
        assert front.complained("node 'stage1'")
        waiting = cluster.complete(max_tokens=1)
        assert waiting.status_code == 503 and "node 'stage1' is down" in waiting.text
        assert int(waiting.headers["retry-after"]) > 0
        assert run("drain", "stage1", "--url", cluster.url).returncode == 1
    finally:
        front.stop()


def test_one_node_with_an_address_serves_alone(tmp_path):
    node = {"name": "solo", "address": f"127.0.0.1:{free_ports(1)[0]}", "devices": ["cpu"],
            "edges": {"http": {"port": 0}}}
    solo = Process(write_cluster(tmp_path, nodes=[node]))
    try:
        url = eventually(lambda: solo.find(r"http://[0-9.]+:\d+"), "an address").group(0)
        eventually(lambda: solo.find("^ready"), "ready")
        done = run("submit", "--url", url, "--prompt", "ROMEO:", "--max-tokens", "3")
        assert done.returncode == 0, done.stderr
        assert run("drain", "solo", "--url", url).returncode == 0
        assert solo.wait() == 0
    finally:
        solo.stop()


def test_new_requests_wait_while_the_only_stage_starts_again(tmp_path):
    with Globe(tmp_path, stages=1, limits={"resume_limit_s": 120}) as cluster:
        wanted = text_of(cluster.complete(seed=5, max_tokens=20))
        cluster.kill("stage1")
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(cluster.complete, seed=5, max_tokens=20) for _ in range(3)]
            assert not concurrent.futures.wait(waiting, timeout=1).done
            cluster.start("stage1")
            assert [text_of(w.result()) for w in waiting] == [wanted] * 3
