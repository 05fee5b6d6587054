"""Batches of custom backends: who is computed together, from outside, and how that is counted."""

import concurrent.futures
import time

import numpy as np
import pytest
import tritonclient.grpc

from library import odd
from troupe_process import Cluster, eventually, run

PROCESSES = ("shared", "own")
TOGETHER = "max_batch_size: 4 dynamic_batching { }"


def model(folder, name, text, process="shared", mode="batch"):
    (folder / name / "1").mkdir(parents=True)
    (folder / name / "config.pbtxt").write_text(
        f'backend: "odd"\nparameters {{ key: "mode" value {{ string_value: "{mode}" }} }}\n'
        f'parameters {{ key: "PROCESS" value {{ string_value: "{process}" }} }}\n{text}\n')


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    models = folder / "models"
    for process in PROCESSES:
        model(models, f"all_{process}", TOGETHER, process)
    model(models, "alone", "max_batch_size: 4")
    model(models, "wrong", TOGETHER)
    model(models, "itself", "", mode="batch by itself")
    model(models, "ragged", 'input { name: "IN" allow_ragged_batch: true }\n' + TOGETHER)
    model(models, "pairs", "dynamic_batching { preferred_batch_size: 2 max_queue_delay_microseconds: 30000000 }")
    model(models, "patient", "dynamic_batching { max_queue_delay_microseconds: 300000 }")
    model(models, "strict", "max_batch_size: 4 dynamic_batching { default_queue_policy { "
                            "default_timeout_microseconds: 1000000 } }")
    model(models, "lenient", "max_batch_size: 1 dynamic_batching { priority_levels: 2 default_priority_level: 2 "
                             "default_queue_policy { allow_timeout_override: true timeout_action: DELAY } }")
    with Cluster(folder, repository=models, arguments=("--backend-directory", odd(), "--set", "edges.grpc=0")) as cluster:
        yield cluster


def infer(served, name, word, rows=1, width=1, **parameters):
    answer = served.post(f"/v2/models/{name}/infer", {
        "inputs": [{"name": "IN", "datatype": "BYTES", "shape": [rows, width], "data": [word] * (rows * width)}],
        "parameters": parameters})
    answer.done = time.monotonic()
    return answer


def together(answer):
    """How many requests were computed in one go, as each row of the answer says."""
    assert answer.status_code == 200, answer.text
    counts = next(o for o in answer.json()["outputs"] if o["name"] == "COUNT")
    assert counts["shape"] == [len(counts["data"]), 1] and len(set(counts["data"])) == 1
    return counts["data"][0]


def while_busy(served, name, calls, wait_s=0.0):
    """The answers to calls that came one after the other while the only instance was busy."""
    go = served.file / name / "go"
    go.unlink(missing_ok=True)
    before = begun(served, name)
    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        busy = pool.submit(infer, served, name, "hold")
        eventually(lambda: begun(served, name) > before, "the instance is busy")
        made = []
        for count, call in enumerate(calls, 1):
            made.append(pool.submit(call))
            eventually(lambda: pending(served, name) >= count or made[-1].done(), "the request waits")
        time.sleep(wait_s)
        go.touch()
        assert busy.result().status_code == 200
        return [m.result() for m in made]


def statistics(served, name):
    return served.get(f"/v2/models/{name}/stats").json()["model_stats"][0]


def pending(served, name):
    return served.metric("nv_inference_pending_request_count", model=name)


def begun(served, name):
    return served.metric("troupe:backend_total", model=name, metric="begun")


@pytest.mark.parametrize("process", PROCESSES)
def test_requests_that_wait_are_computed_together_and_counted_as_triton_does(served, process):
    name = f"all_{process}"
    one = lambda: infer(served, name, "a")
    answers = while_busy(served, name, [one, one, lambda: infer(served, name, "a", rows=2), one, one])
    assert [together(a) for a in answers] == [3, 3, 3, 2, 2]
    counted = statistics(served, name)
    assert counted["inference_count"] == 7 and counted["execution_count"] == 3
    assert counted["inference_stats"]["success"]["count"] == 6
    assert [(b["batch_size"], b["compute_infer"]["count"]) for b in counted["batch_stats"]] == [(1, 1), (2, 1), (4, 1)]
    assert counted["batch_stats"][0]["compute_infer"]["ns"] > 0 and counted["batch_stats"][0]["compute_input"] == {
        "count": 1, "ns": 0}
    assert served.metric("nv_inference_exec_count", model=name) == 3
    assert served.metric("nv_inference_count", model=name) == 7
    assert served.metric("nv_inference_request_success", model=name) == 6


def test_without_dynamic_batching_requests_come_one_by_one(served):
    answers = while_busy(served, "alone", [lambda: infer(served, "alone", "a")] * 3)
    assert [together(a) for a in answers] == [1, 1, 1]
    assert together(infer(served, "alone", "a", rows=4)) == 1
    counted = statistics(served, "alone")
    assert counted["inference_count"] == 8 and counted["execution_count"] == 5


def test_grpc_has_the_same_batches_and_counts(served):
    port = eventually(lambda: served._line(r"listening on grpc://127\.0\.0\.1:(\d+)"), "the gRPC port").group(1)
    client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}")
    words = tritonclient.grpc.InferInput("IN", [3, 2], "BYTES")
    words.set_data_from_numpy(np.array([["a", "b"]] * 3, dtype=np.object_))
    answer = client.infer("wrong", [words])
    assert answer.as_numpy("OUT").shape == (3, 2) and answer.as_numpy("COUNT").tolist() == [[1]] * 3
    said, counted = client.get_inference_statistics("wrong").model_stats[0], statistics(served, "wrong")
    assert said.execution_count == counted["execution_count"] > 0
    assert said.inference_count == counted["inference_count"]
    assert [(b.batch_size, b.compute_infer.count) for b in said.batch_stats] == [
        (b["batch_size"], b["compute_infer"]["count"]) for b in counted["batch_stats"]]


def test_a_backend_may_wish_for_batches(served):
    config = served.get("/v2/models/itself/config").json()
    assert config["max_batch_size"] == 4 and config["dynamic_batching"]["preferred_batch_size"] == [4]
    answers = while_busy(served, "itself", [lambda: infer(served, "itself", "a")] * 2)
    assert [together(a) for a in answers] == [2, 2]


def test_shapes_differ_only_where_the_model_takes_ragged_inputs(served):
    def widths(name):
        return [lambda: infer(served, name, "a", width=2), lambda: infer(served, name, "a", width=2),
                lambda: infer(served, name, "a", width=3)]

    assert [together(a) for a in while_busy(served, "all_shared", widths("all_shared"))] == [2, 2, 1]
    assert [together(a) for a in while_busy(served, "ragged", widths("ragged"))] == [3, 3, 3]


def test_a_preferred_size_goes_at_once_and_others_wait(served):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        began = time.monotonic()
        both = [pool.submit(infer, served, "pairs", "a") for _ in range(2)]
        assert [together(b.result()) for b in both] == [2, 2]
        assert time.monotonic() - began < 20
    began = time.monotonic()
    assert together(infer(served, "patient", "a")) == 1
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("rows, width, text", [
    (5, 1, "inference request batch-size must be <= 4 for 'all_shared'"),
    (0, 1, "inference request batch-size must be >= 1 for 'all_shared'"),
])
def test_a_request_larger_than_a_batch_is_refused(served, rows, width, text):
    answer = infer(served, "all_shared", "a", rows, width)
    assert answer.status_code == 400 and text in answer.json()["error"]


def test_inputs_of_one_request_have_one_batch_size(served):
    answer = served.post("/v2/models/all_shared/infer", {"inputs": [
        {"name": "IN", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]},
        {"name": "N", "datatype": "INT32", "shape": [1, 1], "data": [1]}]})
    assert answer.status_code == 400
    assert "input 'N' batch size does not match other inputs for 'all_shared'" in answer.json()["error"]
    answer = served.post("/v2/models/all_shared/infer",
                         {"inputs": [{"name": "IN", "datatype": "BYTES", "shape": [], "data": ["a"]}]})
    assert answer.status_code == 400
    assert "input 'IN' has no shape but model requires batch dimension" in answer.json()["error"]


def test_an_error_ends_the_batch_or_one_of_it(served):
    before = statistics(served, "wrong")
    call = lambda word: lambda: infer(served, "wrong", word)
    answers = while_busy(served, "wrong", [call("a"), call("refuse"), call("b")])
    assert [a.status_code for a in answers] == [200, 400, 200] and together(answers[0]) == 3
    answers = while_busy(served, "wrong", [call("a"), call("throw"), call("b")])
    assert [a.status_code for a in answers] == [500, 500, 500]
    assert all("the batch is odd" in a.json()["error"] for a in answers)
    counted = statistics(served, "wrong")
    assert counted["inference_count"] == before["inference_count"] + 4
    assert counted["execution_count"] == before["execution_count"] + 3


def test_who_waits_too_long_is_refused_or_served_last(served):
    late, = while_busy(served, "strict", [lambda: infer(served, "strict", "a")], wait_s=1.3)
    assert late.status_code == 503 and "Request timeout expired" in late.json()["error"]
    first, late, last = while_busy(served, "lenient", [
        lambda: infer(served, "lenient", "sleep", priority=1),
        lambda: infer(served, "lenient", "sleep", timeout=200000, priority=1),
        lambda: infer(served, "lenient", "sleep", priority=1)], wait_s=0.5)
    assert first.done < last.done < late.done and late.status_code == 200


def test_priorities_go_first(served):
    low, high = while_busy(served, "lenient", [lambda: infer(served, "lenient", "sleep"),
                                               lambda: infer(served, "lenient", "sleep", priority=1)])
    assert low.status_code == high.status_code == 200 and high.done < low.done


@pytest.mark.parametrize("text, complaint", [
    ("sequence_batching { }", "requests of a sequence are not kept together"),
    ("instance_group { count: 2 } dynamic_batching { preserve_ordering: true }", "with one instance only, and m has 2"),
])
def test_what_is_not_done_is_a_load_error(tmp_path, text, complaint):
    model(tmp_path, "m", text)
    done = run("check", tmp_path, "--backend-directory", odd())
    assert done.returncode == 1 and complaint in done.stdout, done.stdout
