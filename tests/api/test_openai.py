"""What the openai client, unchanged, gets for good requests."""

import concurrent.futures

ASK = {"model": "bard", "prompt": "ROMEO:\n", "max_tokens": 24, "seed": 7}
TALK = {"model": "bard", "messages": [{"role": "user", "content": "Speak of love."}],
        "max_tokens": 24, "seed": 7}


def test_models(bard):
    client = bard.openai()
    assert [m.id for m in client.models.list()] == ["bard"]
    assert client.models.retrieve("bard").object == "model"


def test_completion(bard):
    answer = bard.openai().completions.create(**ASK)
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
    assert answer.model == "bard" and len(answer.choices) == 1
    choice = answer.choices[0]
    assert choice.index == 0 and choice.finish_reason in ("stop", "length") and choice.text
    assert choice.logprobs is None
    assert 1 <= answer.usage.completion_tokens <= 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_completion_stream_equals_the_whole(bard):
    client = bard.openai()
    whole = client.completions.create(**ASK)
    chunks = list(client.completions.create(**ASK, stream=True,
                                            stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_chat(bard):
    answer = bard.openai().chat.completions.create(**TALK)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant"
    assert isinstance(answer.choices[0].message.content, str)


def test_chat_stream_equals_the_whole(bard):
    client = bard.openai()
    whole = client.chat.completions.create(**TALK)
    chunks = list(client.chat.completions.create(**TALK, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_a_seed_means_the_same_alone_and_in_a_crowd(bard):
    client = bard.openai()
    alone = client.completions.create(**ASK).choices[0].text
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.completions.create, **{**ASK, "seed": 7 + i % 2})
                 for i in range(8)]
        texts = [a.result().choices[0].text for a in asked]
    assert set(texts[0::2]) == {alone}
    assert len(set(texts[1::2])) == 1 and texts[1] != alone


def test_temperature_zero_needs_no_seed(bard):
    client = bard.openai()
    ask = {**ASK, "temperature": 0}
    ask.pop("seed")
    assert len({client.completions.create(**ask).choices[0].text for _ in range(2)}) == 1


def test_prompt_as_tokens_and_as_several(bard):
    client = bard.openai()
    ids = client.completions.create(**{**ASK, "prompt": [5, 6, 7], "max_tokens": 2})
    assert ids.usage.prompt_tokens == 3
    two = client.completions.create(**{**ASK, "prompt": ["ROMEO:\n", "JULIET:\n"]})
    assert [c.index for c in two.choices] == [0, 1]
    assert two.choices[0].text == client.completions.create(**ASK).choices[0].text


def test_stop_strings(bard):
    client = bard.openai()
    greedy = {**ASK, "temperature": 0, "max_tokens": 40}
    text = client.completions.create(**greedy).choices[0].text
    stop = text[len(text) // 2:len(text) // 2 + 3]
    stopped = client.completions.create(**greedy, stop=[stop, "\0never"]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.text == text[:text.index(stop)]
    kept = client.completions.create(**greedy, stop=stop,
                                     extra_body={"include_stop_str_in_output": True})
    assert kept.choices[0].text == text[:text.index(stop)] + stop
    streamed = client.completions.create(**greedy, stop=stop, stream=True)
    assert "".join(c.choices[0].text for c in streamed) == stopped.text


def test_extra_parameters_and_length(bard):
    client = bard.openai()
    answer = client.completions.create(
        **ASK, extra_body={"top_k": 1, "min_p": 0.1, "ignore_eos": True, "cache_salt": "salt"})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 24


def test_a_repeated_prompt_is_found_in_the_cache(bard):
    client = bard.openai()
    prompt = "A long enough prompt, so that some blocks of it are full: " * 3
    first = client.completions.create(**{**ASK, "prompt": prompt}).usage
    again = client.completions.create(**{**ASK, "prompt": prompt}).usage
    assert again.prompt_tokens == first.prompt_tokens
    assert 0 < again.prompt_tokens_details.cached_tokens < again.prompt_tokens


def test_plain_routes(bard):
    assert bard.get("/health").json() == {"status": "alive"}
    assert bard.get("/ready").status_code == 200
    assert "version" in bard.get("/version").json()
    echoed = bard.get("/health", headers={"X-Request-Id": "mine"})
    assert echoed.headers["x-request-id"] == "mine"
    bard.openai().completions.create(**ASK)
    for name in ("generation_tokens_total", "prompt_tokens_total", "request_success_total",
                 "e2e_request_latency_seconds_count", "time_to_first_token_seconds_count"):
        assert bard.metric("vllm:" + name) > 0, name


def test_a_long_prompt_without_max_tokens_gets_what_room_there_is(bard):
    answer = bard.complete(prompt=[5] * 505, ignore_eos=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 7
    assert bard.complete(prompt=[5] * 505, max_tokens=16).status_code == 400
