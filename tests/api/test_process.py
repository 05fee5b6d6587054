"""Backends in processes of their own (PROCESS: own): what crashes, hangs or is killed there harms its own requests alone."""

import concurrent.futures
import json
import os
import pathlib
import signal
import time

import httpx
import pytest

from library import built
from troupe_process import PATIENCE_S, Cluster, children, eventually, run

WHO = "the process of the backend 'fragile' of model"


def model(folder, name, mode="", count=1, limit=None, process="own"):
    (folder / name / "1").mkdir(parents=True)
    given = {"mode": mode, "PROCESS": process, **({"PROCESS_LIMIT_SECONDS": limit} if limit else {})}
    parameters = "".join(f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}\n' for k, v in given.items())
    (folder / name / "config.pbtxt").write_text(
        f'backend: "fragile"\ninstance_group {{ count: {count} kind: KIND_CPU }}\n{parameters}')
    return folder


def serve(folder, *arguments):
    return Cluster(folder, repository=folder / "models",
                   arguments=("--backend-directory", built("fragile"), *arguments))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fragile")
    for name, more in {"m": {}, "other": {}, "here": {"process": "shared"}, "two": {"count": 2},
                       "stream": {"mode": "stream"}, "slow": {"limit": "0.7"}}.items():
        model(folder / "models", name, **more)
    with serve(folder) as cluster:
        cluster.models = folder / "models"
        yield cluster


def ask(cluster, name, word, path="generate"):
    return cluster.post(f"/v2/models/{name}/{path}", {"IN": word})


def pid_of(cluster, name="m"):
    """Of the process that answers now; waits until there is one."""
    def answer():
        got = ask(cluster, name, "pid")
        return int(got.json()["OUT"]) if got.status_code == 200 else None

    return eventually(answer, f"an answer of {name}")


def gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def ready(cluster):
    return cluster.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize("word, how", [
    ("segv", "ended with signal 11 (Segmentation fault) in execute"),
    ("abort", "ended with signal 6 (Aborted) in execute"),
    ("exit", "ended with status 3 in execute"),
])
def test_a_crash_is_an_error_of_its_request_alone(served, word, how):
    before, others = pid_of(served), {pid_of(served, name) for name in ("other", "two")}
    failed = served.metric("nv_inference_request_failure", model="m")
    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        beside = [pool.submit(ask, served, name, "sleep") for name in ("m", "other", "here", "two")]
        time.sleep(0.3)
        asked = pool.submit(ask, served, "m", word)
        time.sleep(0.3)
        # What waits behind it goes on waiting, for the next process.
        behind = [pool.submit(ask, served, "m", "word") for _ in range(4)]
    wrong = asked.result()
    assert wrong.status_code == 500 and wrong.json()["error"] == f"{WHO} 'm' {how}", wrong.text
    assert all(b.result().json()["OUT"] == "sleep" for b in beside)
    assert all(b.result().json().get("OUT") == "word" for b in behind), [b.result().text for b in behind]
    assert pid_of(served) != before and gone(before)
    assert pid_of(served, "other") in others
    assert served.metric("nv_inference_request_failure", model="m") == failed + 1
    eventually(lambda: ready(served), "readiness")
    assert served.metric("troupe:actor_restarts_total", actor="backend_process") > 0


def test_a_crash_cuts_its_instance_and_not_its_neighbour(served):
    eventually(lambda: ready(served), "readiness")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # It has to be executing by the time of the crash: nobody is let in until the instance is back.
        asked = [pool.submit(ask, served, "two", "sleep")]
        time.sleep(0.3)
        asked.append(pool.submit(ask, served, "two", "segv"))
    assert asked[0].result().json().get("OUT") == "sleep", asked[0].result().text
    assert asked[1].result().status_code == 500
    eventually(lambda: ready(served), "readiness")


def test_a_hang_ends_at_its_limit(served):
    before = pid_of(served, "slow")
    start = time.monotonic()
    wrong = ask(served, "slow", "hang")
    assert 0.6 < time.monotonic() - start < 10
    assert wrong.status_code == 500 and "'slow' was ended because execute had not returned after 0.7 s " \
        "(PROCESS_LIMIT_SECONDS)" in wrong.json()["error"], wrong.text
    assert pid_of(served, "slow") != before and gone(before)


def test_a_killed_process_comes_back_by_itself(served):
    eventually(lambda: ready(served), "readiness")
    before = pid_of(served)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: any("model m: " + WHO + " 'm' is started again" in line for line in served.complaints), "the line")
    assert pid_of(served) != before
    eventually(lambda: ready(served), "readiness")


def test_a_stopped_process_is_ended_at_the_limit(served):
    before = pid_of(served, "slow")
    # Its execute returns a moment after its answer; stopped before that, it is ended for that one, and
    # the next process answers the next request.
    time.sleep(1)
    os.kill(before, signal.SIGSTOP)
    assert ask(served, "slow", "word").status_code == 500
    assert pid_of(served, "slow") != before and gone(before)


def test_readiness_is_honest_while_it_cannot_start(served):
    """It crashes in initialize again and again; then it is back."""
    eventually(lambda: ready(served), "readiness")
    (served.models / "m/crash").touch()
    os.kill(pid_of(served), signal.SIGKILL)
    eventually(lambda: not ready(served), "no readiness")
    eventually(lambda: any("in initialize; again in" in line for line in served.complaints), "a second attempt")
    assert served.get("/v2/models/m/ready").status_code == 400 and served.get("/v2/models/other/ready").status_code == 200
    assert ask(served, "other", "word").json()["OUT"] == "word"
    refused = ask(served, "m", "word")
    assert refused.status_code == 503 and "a process of its backend has ended and is started again" in refused.text
    (served.models / "m/crash").unlink()
    assert pid_of(served)
    eventually(lambda: ready(served), "readiness")


def test_streams_come_one_by_one_and_end_with_their_process(served):
    def parts(word):
        text = ask(served, "stream", word, "generate_stream").text
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]

    assert [p["OUT"] for p in parts("three")] == ["0", "1", "2"]
    cut = parts("crash")
    assert [p.get("OUT") for p in cut[:3]] == ["0", "1", "2"]
    assert cut[3] == {"error": WHO + " 'stream' ended with signal 11 (Segmentation fault)"}, cut
    eventually(lambda: ready(served), "readiness")
    assert [p["OUT"] for p in parts("three")] == ["0", "1", "2"]


def test_a_client_that_goes_is_told_to_the_library(served):
    before = served.metric("troupe:backend_total", model="stream", metric="unwanted")
    with httpx.stream("POST", served.url + "/v2/models/stream/generate_stream", json={"IN": "on"}, timeout=PATIENCE_S) as s:
        next(s.iter_lines())
    eventually(lambda: served.metric("troupe:backend_total", model="stream", metric="unwanted") == before + 1, "the count")


def test_what_it_says_and_counts_is_the_models(served):
    words = served.metric("troupe:backend_total", model="other", metric="words")
    done = served.metric("nv_inference_request_success", model="other")
    assert ask(served, "other", "print").json()["OUT"] == "print"
    assert ask(served, "other", "word").json()["OUT"] == "word"
    assert served.metric("troupe:backend_total", model="other", metric="words") == words + 2
    assert served.metric("nv_inference_request_success", model="other") == done + 2
    eventually(lambda: any("info model other: on standard output" in line for line in served.complaints), "its output")
    assert any("info model other: begins" in line for line in served.complaints)


def test_large_tensors_pass(served):
    eventually(lambda: ready(served), "readiness")
    text = "x" * (3 << 20)
    answer = ask(served, "m", text)
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json()["OUT"] == text


def test_no_descriptor_and_no_memory_is_left(served):
    eventually(lambda: ready(served), "readiness")
    pid = served.process.pid

    def held():
        return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")), len(children(pid))

    memory = set(os.listdir("/dev/shm"))
    pid_of(served)
    before = held()
    for _ in range(3):
        ask(served, "m", "segv")
        pid_of(served)
    # Connections of clients close a little later, those that were counted before too.
    eventually(lambda: all(now <= was for now, was in zip(held(), before)),
               f"{before} descriptors, threads and children, not {held()}", 10)
    assert set(os.listdir("/dev/shm")) <= memory


def test_a_child_has_nothing_of_ours_open(served):
    def kind(fd):
        return os.readlink(fd).split(":")[0]

    found = [kind(fd) for fd in sorted(pathlib.Path(f"/proc/{pid_of(served)}/fd").iterdir(), key=lambda p: int(p.name))]
    assert found == ["/dev/null", "pipe", "pipe", "socket"], found


def test_the_death_of_the_server_is_theirs(tmp_path):
    model(tmp_path / "models", "m", count=2)
    with serve(tmp_path) as cluster:
        pids = {pid_of(cluster) for _ in range(2)} | set(children(cluster.process.pid))
        assert len(pids) == 2
        cluster.process.kill()
        cluster.process.wait()
        eventually(lambda: all(map(gone, pids)), "the end of the children", 10)


def test_load_reload_and_unload(tmp_path):
    model(tmp_path / "models", "m")
    with serve(tmp_path, "--model-control-mode", "explicit") as cluster:
        def order(what):
            answer = cluster.post(f"/v2/repository/models/m/{what}", {})
            assert answer.status_code == 200, answer.text

        order("load")
        first = pid_of(cluster)
        order("load")
        second = pid_of(cluster)
        assert first != second
        eventually(lambda: gone(first), "the end of the first")
        order("unload")
        eventually(lambda: gone(second), "the end of the second")
        assert (tmp_path / "models/m/finalized").read_text() == str(second)
        eventually(lambda: not children(cluster.process.pid), "that none is left")
        assert ask(cluster, "m", "word").status_code in (400, 404)
        (tmp_path / "models/m/crash").touch()
        wrong = cluster.post("/v2/repository/models/m/load", {})
        assert wrong.status_code in (400, 500) and "ended with signal 11 (Segmentation fault) in initialize" in wrong.text
        (tmp_path / "models/m/crash").unlink()
        order("load")
        last = pid_of(cluster)
    assert gone(last) and (tmp_path / "models/m/finalized").read_text() == str(last)


@pytest.mark.parametrize("mode, defined, how", [
    ("crash in auto_complete", (), "ended with signal 11 (Segmentation fault) in auto_complete_config"),
    ("hang in auto_complete", (), "because auto_complete_config had not returned after 1 s"),
    ("", ("FRAGILE_CONSTRUCTOR_CRASHES",), "ended with signal 11 (Segmentation fault) in auto_complete_config"),
])
def test_check_and_up_survive_what_they_ask(tmp_path, mode, defined, how):
    models = model(tmp_path / "models", "m", mode=mode, limit="1")
    for command in (("check", models), ("up", "--model-repository", models, "--port", 0)):
        done = run(*command, "--backend-directory", built("fragile", *defined))
        assert done.returncode == 1 and how in done.stdout + done.stderr, done.stdout + done.stderr


def test_a_crash_in_initialize_is_a_load_error(tmp_path):
    models = model(tmp_path / "models", "m", mode="crash in initialize")
    done = run("up", "--model-repository", models, "--port", 0, "--backend-directory", built("fragile"))
    assert done.returncode == 1 and "ended with signal 11 (Segmentation fault) in initialize" in done.stderr, done.stderr


def test_the_hidden_command_is_for_troupe_alone():
    done = run("host-process")
    assert done.returncode == 2 and "for troupe itself" in done.stderr
