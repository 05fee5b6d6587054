"""KServe's protocol over HTTP: tritonclient unchanged, plain requests, and hostile ones."""

import itertools
import json
import socket

import numpy as np
import pytest
import tritonclient.http as triton

from troupe_process import PATIENCE_S, Cluster, eventually

import httpx

GENERATE = "/v2/models/bard/generate"
GREEDY = {"text_input": "ROMEO:", "max_tokens": 5, "temperature": 0}
STATES = (None, False, True)


def tensor(name, values, kind):
    made = triton.InferInput(name, [len(values)], kind)
    made.set_data_from_numpy(np.array(values, dtype=np.object_ if kind == "BYTES" else bool))
    return made


def client(cluster):
    return triton.InferenceServerClient(f"127.0.0.1:{cluster.port}", network_timeout=PATIENCE_S)


def raw_infer(cluster, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(cluster.url + "/v2/models/bard/infer", content=content, headers=headers,
                      timeout=PATIENCE_S)


def events_of(response):
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]


def test_what_the_server_says_of_itself(bard):
    c = client(bard)
    assert c.is_server_live() and c.is_server_ready() and c.is_model_ready("bard", "1")
    assert not c.is_model_ready("bard", "9") and not c.is_model_ready("nope")
    assert c.get_server_metadata()["name"] == "triton"
    model = c.get_model_metadata("bard")
    assert model["platform"] == "troupe" and model["versions"] == ["1"]
    assert {"name": "stream", "datatype": "BOOL", "shape": [1]} in model["inputs"]
    assert {"name": "num_input_tokens", "datatype": "UINT32", "shape": [1]} in model["outputs"]
    config = c.get_model_config("bard")
    assert config["model_transaction_policy"] == {"decoupled": True}
    assert config["max_batch_size"] == 0 and config["backend"] == "troupe"
    assert [(g["name"], g["kind"], g["count"]) for g in config["instance_group"]] == [
        ("bard", "KIND_MODEL", 1)]
    assert c.get_model_repository_index() == [
        {"name": "bard", "version": "1", "state": "READY", "reason": ""}]
    assert c.get_trace_settings()["trace_level"] == ["OFF"]
    assert c.get_log_settings()["log_error"] is True


@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True])
def test_infer_with_the_client(bard, packed, binary):
    answer = client(bard).infer(
        "bard", [tensor("text_input", [b"ROMEO:"], "BYTES")], request_id="q7",
        outputs=[triton.InferRequestedOutput("text_output", binary_data=binary)],
        parameters={"max_tokens": 5, "temperature": 0.0}, request_compression_algorithm=packed)
    said = answer.get_response()
    assert (said["id"], said["model_name"], said["model_version"]) == ("q7", "bard", "1")
    assert [o["name"] for o in said["outputs"]] == ["text_output"]
    text = answer.as_numpy("text_output")
    assert text.shape == (1,)
    whole = text[0].decode() if binary else text[0]
    whole = whole.decode() if isinstance(whole, bytes) else whole
    assert whole == bard.post(GENERATE, GREEDY).json()["text_output"]
    assert whole.startswith("ROMEO:")


# test_logprobs.py has the whole grid.
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("finish, inputs, outputs", list(itertools.product(STATES, repeat=3)))
def test_the_grid_of_further_outputs(bard, stream, finish, inputs, outputs):
    flags = {"return_finish_reason": finish, "return_num_input_tokens": inputs,
             "return_num_output_tokens": outputs, "return_logprobs": False}
    body = {**GREEDY, "stream": stream, **{k: v for k, v in flags.items() if v is not None}}
    answer = bard.post(GENERATE + "_stream", body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    parts = events_of(answer)
    # A slow reader gets parts joined, so that even a stream may be one event.
    assert len(parts) >= 1 if stream else len(parts) == 1
    for part in parts:
        expected = {"model_name", "model_version", "text_output"}
        expected |= {"finish_reason"} if finish else set()
        expected |= {"num_input_tokens"} if inputs else set()
        expected |= {"num_output_tokens"} if outputs else set()
        assert set(part) == expected
        if inputs:
            assert part["num_input_tokens"] == parts[0]["num_input_tokens"] > 0
    if finish:
        assert [p["finish_reason"] for p in parts] == ["None"] * (len(parts) - 1) + ["length"]
    if outputs:
        assert sum(p["num_output_tokens"] for p in parts) == 5
    text = "".join(p["text_output"] for p in parts)
    whole = bard.post(GENERATE, {**GREEDY, "exclude_input_in_output": stream}).json()
    assert text == whole["text_output"]


@pytest.mark.parametrize("change, status, words", [
    ({"stream": True}, 400, "exactly 1 response"),
    ({"text_input": None}, 400, "missing required input(s) ['text_input']"),
    ({"text_input": 5}, 400, "no BYTES"),
    ({"text_input": ["a", "b"]}, 400, "proper shape"),
    ({"stream": "yes"}, 400, "no BOOL"),
    ({"tempratur": 1}, 400, "'temperature'"),
    ({"temperature": -1}, 400, "temperature"),
    ({"max_tokens": "many"}, 400, "max_tokens"),
    ({"stop": ["x"]}, 400, "invalid type"),
    ({"timeout": "soon"}, 400, "timeout"),
    ({"temperature": "nan"}, 400, 'got "nan"'),
    ({"id": 5}, 400, "'id' must be a string"),
    ({"id": "a", "parameters": {"id": "b"}}, 400, "'id' already exists"),
    ({"triton_x": 1}, 400, "reserved"),
    ({"logprobs": 21}, 400, "logprobs"),
    ({"prompt_logprobs": 1}, 400, "prompt_logprobs"),
    ({"lora_name": "x"}, 500, "LoRA feature is not enabled."),
    ({"image": "x"}, 500, "'image'"),
    ({"embedding_request": "{}"}, 500, "Model bard does not support 'embed' request"),
    ({"sampling_parameters": "{"}, 500, "sampling_parameters"),
])
def test_refused_generations(bard, change, status, words):
    answer = bard.post(GENERATE, {**GREEDY, **change})
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"} and words in answer.json()["error"]
    assert bard.get("/v2/health/live").status_code == 200


def test_sampling_parameters_replace_the_others(bard):
    answer = bard.post(GENERATE, {**GREEDY, "max_tokens": 9, "return_num_output_tokens": True,
                                  "sampling_parameters": '{"max_tokens": "3", "stop": ["zzz"]}'})
    assert answer.json()["num_output_tokens"] == 3


def test_doubled_keys(bard):
    answer = httpx.post(bard.url + GENERATE, content=b'{"text_input":"a","text_input":"b"}')
    assert answer.status_code == 400 and "already exists" in answer.json()["error"]


TEXT = {"name": "text_input", "shape": [1], "datatype": "BYTES"}


def with_binary(size, shape=(1,)):
    return {"inputs": [{**TEXT, "shape": list(shape), "parameters": {"binary_data_size": size}}]}


@pytest.mark.parametrize("head, tail, length", [
    (with_binary(5), b"\x01\x00\x00\x00a", 10**18),
    (with_binary(5), b"\x01\x00\x00\x00a", -1),
    (with_binary(6), b"\x01\x00\x00\x00a", None),
    (with_binary(5), b"\x01\x00\x00\x00aXX", None),
    (with_binary(5), b"\xff\xff\xff\xffa", None),
    (with_binary(3), b"\x01\x00\x00", None),
    (with_binary(5, (2,)), b"\x01\x00\x00\x00a", None),
    (with_binary(5, (-1,)), b"\x01\x00\x00\x00a", None),
    (with_binary(5, (2**62, 2**62)), b"\x01\x00\x00\x00a", None),
    (with_binary(5), b"\x01\x00\x00\x00\xff", None),
    ({"inputs": [TEXT]}, b"", None),
    ({"inputs": [{**TEXT, "data": ["a"]}, {**TEXT, "data": ["b"]}]}, b"", None),
    ({"inputs": [{**TEXT, "datatype": "TEXT", "data": ["a"]}]}, b"", None),
    ({"inputs": [{**TEXT, "datatype": "INT8", "data": [300]}]}, b"", None),
    ({"inputs": [{**TEXT, "name": "nope", "data": ["a"]}]}, b"", None),
    ({"inputs": [{**TEXT, "data": ["a"]}], "outputs": [{"name": "nope"}]}, b"", None),
    ({"inputs": [{**TEXT, "parameters": {"shared_memory_region": "nope"}}]}, b"", None),
    ({"inputs": 5}, b"", None),
    ([1], b"", None),
])
def test_hostile_infer(bard, head, tail, length):
    text = json.dumps(head).encode()
    answer = raw_infer(bard, text + tail, **{
        "Inference-Header-Content-Length": str(len(text) if length is None else length)})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]
    assert bard.get("/v2/health/ready").status_code == 200


def test_a_packed_body_that_is_none(bard):
    answer = raw_infer(bard, b"plain", **{"Content-Encoding": "gzip"})
    assert answer.status_code == 400 and "gzip" in answer.json()["error"]


def test_paths_and_refusals(bard):
    assert bard.get("/v2/nothing").status_code == 404
    assert bard.get("/v2/models/bard/trace/setting").status_code == 200
    assert bard.get("/v2/models/nope/trace/setting").status_code == 404
    assert bard.get(GENERATE).status_code == 405
    assert bard.get("/v2/models/nope").status_code == 404
    assert bard.get("/v2/models/bard/versions/9").status_code == 404
    assert bard.get("/v2/cudasharedmemory/status").status_code == 501
    assert bard.post("/v2/repository/models/bard/unload", {}).status_code == 503
    assert bard.post("/v2/trace/setting", {"trace_level": ["TIMESTAMPS"]}).status_code == 501


@pytest.mark.parametrize("what, most", [("infer", 64 << 20), ("generate", 4 << 20)])
def test_a_body_that_is_too_large_is_told_with_the_limit(bard, what, most):
    with socket.create_connection(("127.0.0.1", bard.port), PATIENCE_S) as s:
        s.sendall(b"POST /v2/models/bard/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (
            what.encode(), most + 1))
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    assert b" 413 " in answer.split(b"\r\n")[0]
    error = json.loads(answer.split(b"\r\n\r\n")[1])["error"]
    assert str(most) in error and "edges.http.max_body_bytes" in error


def test_a_stream_is_refused_by_infer(bard):
    answer = raw_infer(bard, {"inputs": [{**TEXT, "data": ["a"]}, {
        "name": "stream", "shape": [1], "datatype": "BOOL", "data": [True]}]})
    assert answer.status_code == 501 and "decoupled" in answer.json()["error"]


def test_what_is_counted(tmp_path):
    with Cluster(tmp_path) as cluster:
        for _ in range(3):
            assert cluster.post(GENERATE, GREEDY).status_code == 200
        cluster.complete(max_tokens=2)
        stats = client(cluster).get_inference_statistics("bard")["model_stats"][0]
        assert stats["inference_count"] == stats["inference_stats"]["success"]["count"] == 4
        assert stats["inference_stats"]["fail"]["count"] == 0
        assert cluster.metric("nv_inference_request_success", model="bard", version="1") == 4
        assert cluster.metric("nv_inference_pending_request_count") == 0


def test_the_death_of_the_worker_ends_a_stream_once(tmp_path):
    with Cluster(tmp_path) as cluster:
        body = {**GREEDY, "max_tokens": 250, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", cluster.url + GENERATE + "_stream", json=body,
                          timeout=PATIENCE_S) as answer:
            lines = answer.iter_lines()
            next(lines)
            cluster.kill("worker")
            parts = [json.loads(x[6:]) for x in lines if x.startswith("data: ")]
        # It may have ended by itself before the worker died.
        assert all("error" not in p for p in parts[:-1])
        if "error" in parts[-1]:
            assert cluster.metric("nv_inference_request_failure") == 1
        eventually(lambda: cluster.get("/v2/health/ready").status_code == 200, "ready again")


def test_who_leaves_is_counted_as_cancelled(tmp_path):
    with Cluster(tmp_path) as cluster:
        body = {**GREEDY, "max_tokens": 250, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", cluster.url + GENERATE + "_stream", json=body) as answer:
            next(answer.iter_lines())
        eventually(lambda: cluster.idle(), "no sequence is left")
        eventually(lambda: cluster.metric("nv_inference_request_failure", reason="CANCELED")
                   + cluster.metric("nv_inference_request_success") == 1, "it is counted once")
