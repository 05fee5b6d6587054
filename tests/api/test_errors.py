"""What is wrong gets the right status, OpenAI's shape and the name of the field."""

import httpx
import openai
import pytest

from troupe_process import Cluster

COMPLETION = {"model": "bard", "prompt": "ROMEO:", "max_tokens": 4}
CHAT = {"model": "bard", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


def check_shape(answer, status):
    assert answer.status_code == status, answer.text
    body = answer.json()["error"]
    assert set(body) == {"message", "type", "param", "code"} and body["message"]
    return body


@pytest.mark.parametrize("field, value", [
    ("temperature", -0.1), ("temperature", "hot"), ("top_p", 0), ("top_p", 2), ("top_k", -2),
    ("min_p", 1.5), ("max_tokens", 0), ("max_tokens", -3), ("max_tokens", 1.5), ("seed", "x"),
    ("stop_token_ids", [-1]), ("stream", 1), ("n", 2), ("best_of", 2), ("logprobs", 21),
    ("echo", True), ("suffix", "x"), ("presence_penalty", 1), ("frequency_penalty", 1),
    ("logit_bias", {"1": 1}), ("response_format", {"type": "json_object"}), ("temprature", 1),
    ("prompt", None), ("prompt", []), ("prompt", 5), ("model", 5),
])
def test_bad_fields_of_completions(bard, field, value):
    body = check_shape(bard.post("/v1/completions", {**COMPLETION, field: value}), 400)
    assert body["type"] == "invalid_request_error"
    assert body["param"].split("[")[0] == field


@pytest.mark.parametrize("field, value", [
    ("messages", []), ("messages", "hi"), ("tools", [{"type": "function"}]),
    ("tool_choice", "required"), ("functions", [{}]), ("audio", {}), ("modalities", ["audio"]),
    ("messages", [{"role": "king", "content": "x"}]), ("reasoning_effort", "high"),
    ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
])
def test_bad_fields_of_chat(bard, field, value):
    body = check_shape(bard.post("/v1/chat/completions", {**CHAT, field: value}), 400)
    assert body["param"].split("[")[0] == field


def test_unknown_model(bard):
    with pytest.raises(openai.NotFoundError) as caught:
        bard.openai().completions.create(**{**COMPLETION, "model": "hamlet"})
    assert caught.value.code == "model_not_found"
    check_shape(bard.get("/v1/models/hamlet"), 404)


def test_too_long_a_prompt(bard):
    body = check_shape(bard.complete("word " * 5000), 400)
    assert body["code"] == "context_length_exceeded"
    body = check_shape(bard.complete([5] * 600), 400)
    assert body["code"] == "context_length_exceeded"


def test_token_ids_outside_the_vocabulary(bard):
    check_shape(bard.complete([1, 2, 2_000_000_000]), 400)
    check_shape(bard.complete([1, 2, -1]), 400)


def test_paths_and_methods(bard):
    check_shape(bard.get("/v1/nothing"), 404)
    answer = bard.get("/v1/completions")
    check_shape(answer, 405)
    assert "POST" in answer.headers["allow"]
    assert httpx.options(bard.url + "/v1/completions").status_code == 204
    assert httpx.head(bard.url + "/v1/models").status_code == 200


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'{"model": NaN}', b'{"model": "\xff"}', b"[" * 100000,
    b'{"model": "bard", "prompt": "x", "temperature": 1e999}', b'{"model": "\\ud800"}',
])
def test_bad_json(bard, body):
    answer = httpx.post(bard.url + "/v1/completions", content=body)
    check_shape(answer, 400)


def test_a_body_too_large(bard):
    answer = httpx.post(bard.url + "/v1/completions", content=b" " * (8 << 20), timeout=60)
    check_shape(answer, 413)


def test_more_prompts_than_can_ever_fit(tmp_path):
    with Cluster(tmp_path, ("--set", "limits.max_queued_requests=8")) as cluster:
        answer = cluster.complete(["x"] * 20, max_tokens=1)
        body = check_shape(answer, 400)
        assert body["param"] == "prompt" and "limits.max_queued_requests" in body["message"]
        assert "retry-after" not in answer.headers
        assert cluster.complete(["x"] * 8, max_tokens=1).status_code == 200
