"""How likely tokens were, over the OpenAI API and KServe's: one set of figures in three forms."""

import itertools
import json
import math

import httpx
import pytest

from troupe_process import PATIENCE_S

ASK = {"model": "bard", "prompt": "ROMEO:\n", "max_tokens": 6, "temperature": 0}
TALK = {"model": "bard", "messages": [{"role": "user", "content": "Speak of love."}],
        "max_tokens": 6, "temperature": 0}
GENERATE = "/v2/models/bard/generate"
STATES = (None, False, True)


def events_of(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def completion(bard, **fields):
    return bard.openai().completions.create(**{**ASK, **fields})


def test_greedy_tokens_are_the_likeliest_and_make_the_text(bard):
    choice = completion(bard, logprobs=5).choices[0]
    told = choice.logprobs
    assert len(told.tokens) == 6 and "".join(told.tokens) == choice.text
    assert told.text_offset == [sum(map(len, told.tokens[:i])) for i in range(6)]
    for token, mine, top in zip(told.tokens, told.token_logprobs, told.top_logprobs):
        assert len(top) == 5 and top[token] == mine == max(top.values()) <= 0
        assert sum(map(math.exp, top.values())) <= 1 + 1e-5


def test_zero_tells_the_chosen_token_alone(bard):
    told = completion(bard, logprobs=0).choices[0].logprobs
    assert [list(top.items()) for top in told.top_logprobs] == [
        [pair] for pair in zip(told.tokens, told.token_logprobs)]
    assert completion(bard).choices[0].logprobs is None


def test_they_are_the_models_own_whatever_the_temperature(bard):
    """The first position is the same for every seed: so are the likeliest tokens there."""
    first = completion(bard, logprobs=20, max_tokens=1).choices[0].logprobs.top_logprobs[0]
    for seed in range(8):
        told = completion(bard, logprobs=20, max_tokens=1, temperature=1.5, seed=seed,
                          extra_body={"top_k": 50}).choices[0].logprobs
        assert first.items() <= told.top_logprobs[0].items()
        assert told.top_logprobs[0][told.tokens[0]] == told.token_logprobs[0]


def test_a_stream_tells_the_same_as_the_whole(bard):
    whole = completion(bard, logprobs=2).choices[0].logprobs
    chunks = [c.choices[0].logprobs for c in completion(bard, logprobs=2, stream=True)]
    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert sum((getattr(c, field) for c in chunks), []) == getattr(whole, field)


def test_chat(bard):
    answer = bard.openai().chat.completions.create(**TALK, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    text = b"".join(bytes(one.bytes) for one in content)
    assert text.decode() == answer.choices[0].message.content
    for one in content:
        assert [t.logprob for t in one.top_logprobs] == sorted(
            (t.logprob for t in one.top_logprobs), reverse=True)
        assert len(one.top_logprobs) == 3 and one.top_logprobs[0].logprob == one.logprob
    bare = bard.openai().chat.completions.create(**TALK, logprobs=True).choices[0].logprobs.content
    assert [one.logprob for one in bare] == [one.logprob for one in content]
    assert all(one.top_logprobs == [] for one in bare)
    chunks = bard.openai().chat.completions.create(**TALK, logprobs=True, top_logprobs=3,
                                                   stream=True)
    streamed = [one for c in chunks if c.choices[0].logprobs for one in c.choices[0].logprobs.content]
    assert streamed == content


@pytest.mark.parametrize("path, body, param", [
    ("/v1/completions", {**ASK, "logprobs": 21}, "logprobs"),
    ("/v1/completions", {**ASK, "logprobs": -1}, "logprobs"),
    ("/v1/completions", {**ASK, "logprobs": True}, "logprobs"),
    ("/v1/completions", {**ASK, "prompt_logprobs": 1}, "prompt_logprobs"),
    ("/v1/chat/completions", {**TALK, "logprobs": 3}, "logprobs"),
    ("/v1/chat/completions", {**TALK, "top_logprobs": 3}, "top_logprobs"),
    ("/v1/chat/completions", {**TALK, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
])
def test_refused(bard, path, body, param):
    answer = bard.post(path, body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


def flags_of(states):
    names = ("exclude_input_in_output", "return_finish_reason", "return_cumulative_logprob",
             "return_logprobs", "return_num_input_tokens", "return_num_output_tokens")
    return {name: state for name, state in zip(names, states) if state is not None}


def check_part(part, flags, asked):
    expected = {"model_name", "model_version", "text_output"}
    expected |= {name.removeprefix("return_") for name in flags if name[:6] == "return" and flags[name]}
    assert set(part) == expected
    if "logprobs" not in part:
        return []
    if not asked:
        assert part["logprobs"] == "null"
        return []
    return json.loads(part["logprobs"])


def check_tokens(told, parts, flags, text):
    assert len(told) == 4
    for one in told:
        (first, *others) = one.values()
        assert set(first) == {"logprob", "rank", "decoded_token"} and len(one) == 2
        assert first["rank"] == 1 and all(o["rank"] == 2 for o in others)
    chosen = [next(iter(one.values())) for one in told]
    assert "".join(c["decoded_token"] for c in chosen) == text
    if flags.get("return_cumulative_logprob"):
        assert parts[-1]["cumulative_logprob"] == pytest.approx(
            sum(c["logprob"] for c in chosen), abs=1e-4)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("exclude", STATES)
@pytest.mark.parametrize("stream", [False, True])
def test_the_whole_grid_of_outputs(bard, stream, exclude, asked):
    """Every state of every flag, 1,458 requests with log-probabilities and as many without."""
    ask = {"text_input": "ROMEO:\n", "max_tokens": 4, "temperature": 0, "stream": stream,
           **({"logprobs": 2} if asked else {})}
    plain = bard.post(GENERATE, {**ask, "stream": False, "exclude_input_in_output": True})
    text = plain.json()["text_output"]
    with httpx.Client(base_url=bard.url, timeout=PATIENCE_S) as client:
        for states in itertools.product(STATES, repeat=5):
            flags = flags_of((exclude, *states))
            answer = client.post(GENERATE + "_stream", json={**ask, **flags})
            parts = events_of(answer.text)
            if stream and exclude is False:
                assert "not allowed" in json.dumps(parts or answer.json())
                continue
            told = sum((check_part(p, flags, asked) for p in parts), [])
            said = "".join(p["text_output"] for p in parts)
            assert said == (text if stream or exclude else "ROMEO:\n" + text)
            if flags.get("return_finish_reason"):
                reasons = [p["finish_reason"] for p in parts]
                assert reasons == ["None"] * (len(parts) - 1) + ["length"]
            if flags.get("return_num_output_tokens"):
                assert sum(p["num_output_tokens"] for p in parts) == 4
            if asked and flags.get("return_logprobs"):
                check_tokens(told, parts, flags, text)
