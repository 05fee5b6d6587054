"""Floods, deaths, drains: whole clusters of their own."""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import shutil
import signal
import struct
import threading

import httpx
import openai
import pytest

from troupe_process import ROOT, Cluster, eventually, events, run, write_cluster

LONG = {"max_tokens": 250, "ignore_eos": True}
SLOW = ("--set", "models.bard.max_num_seqs=2", "--set", "models.bard.max_queued_requests=4")


def test_a_flood_is_answered_429_and_the_others_complete(tmp_path):
    with Cluster(tmp_path, SLOW) as cluster:
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda i: cluster.complete(seed=i, **LONG), range(64)))
        seen = collections.Counter(a.status_code for a in answers)
        assert set(seen) == {200, 429}, seen
        for answer in answers:
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["error"]["type"] == "rate_limit_error"
            else:
                assert answer.json()["usage"]["completion_tokens"] == 250
        eventually(cluster.idle, "idle after the flood")


@pytest.fixture(scope="module")
def mortal(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("mortal")) as cluster:
        yield cluster


def stream_to_its_end(cluster, seed, begun):
    """How one stream under fire ends: "done", "error" or the class of a broken connection."""
    body = {"model": "bard", "prompt": "ROMEO:", "stream": True, "seed": seed, **LONG}
    try:
        with httpx.stream("POST", cluster.url + "/v1/completions", json=body, timeout=60) as answer:
            if answer.status_code != 200:
                begun.release()
                return "error"
            last = None
            for event in events(answer):
                if last is None:
                    begun.release()
                last = event
            if last == "[DONE]":
                return "done"
            return "error" if isinstance(last, dict) and "error" in last else "silence"
    except httpx.TransportError as e:
        begun.release()
        return type(e).__name__


@pytest.mark.parametrize("kind", ["scheduler", "kv_manager", "worker", "replica", "backend",
                                  "router", "edge"])
def test_a_death_ends_in_errors_and_a_restart(mortal, kind):
    begun = threading.Semaphore(0)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(stream_to_its_end, mortal, i, begun) for i in range(6)]
        whole = [pool.submit(mortal.complete, seed=i, **LONG) for i in range(2)]
        assert begun.acquire(timeout=60)
        try:
            mortal.kill(kind)
        except httpx.TransportError:
            assert kind == "edge"
        ends = {s.result(timeout=60) for s in streams}
    assert "silence" not in ends, ends
    if kind != "edge":
        assert ends <= {"done", "error"}, ends
        for answer in (w.result(timeout=60) for w in whole):
            assert answer.status_code in (200, 503), answer.text
            assert answer.status_code == 200 or int(answer.headers["retry-after"]) > 0

    def serves():
        try:
            return mortal.complete(max_tokens=3).status_code == 200
        except httpx.TransportError:
            return False

    eventually(serves, f"served again after the death of {kind}")
    eventually(mortal.idle, "nothing left over")
    assert mortal.metric("troupe:actor_restarts_total") > 0
    assert mortal.get("/health").status_code == 200


def test_the_death_of_the_node_ends_the_process_with_a_word(tmp_path):
    with Cluster(tmp_path) as cluster:
        assert cluster.kill("nonsense").status_code == 400
        with httpx.stream("POST", cluster.url + "/v1/completions", timeout=60,
                          json={"model": "bard", "prompt": "ROMEO:", "stream": True, **LONG}) as answer:
            next(events(answer))
            with contextlib.suppress(httpx.TransportError):
                cluster.kill("node")
        assert cluster.process.wait(30) == 1
        eventually(lambda: any("node actor died" in line for line in cluster.complaints), "says why")


def test_sigterm_lets_streams_end_and_refuses_new_ones(tmp_path):
    with Cluster(tmp_path) as cluster:
        body = {"model": "bard", "prompt": "ROMEO:", "stream": True, **LONG}
        with httpx.stream("POST", cluster.url + "/v1/completions", json=body, timeout=60) as answer:
            received = events(answer)
            next(received)
            cluster.process.send_signal(signal.SIGTERM)

            def refused():
                try:
                    late = cluster.complete(max_tokens=1)
                except httpx.TransportError:
                    return True
                assert late.status_code in (200, 503)
                return late.status_code == 503 and "retry-after" in late.headers

            eventually(refused, "new requests are refused")
            assert list(received)[-1] == "[DONE]"
        assert cluster.process.wait(60) == 0


def test_sigterm_answers_all_that_had_come(tmp_path):
    with Cluster(tmp_path) as cluster:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(cluster.complete, seed=i, **LONG) for i in range(16)]
            eventually(lambda: cluster.replica()["running"] > 0, "one runs")
            cluster.process.send_signal(signal.SIGTERM)
            ends = collections.Counter(a.result().status_code for a in asked)
        assert set(ends) <= {200, 503} and ends[200] > 0, ends
        assert cluster.process.wait(60) == 0


def test_a_second_signal_ends_at_once(tmp_path):
    with Cluster(tmp_path, SLOW) as cluster:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            begun = threading.Semaphore(0)
            streams = [pool.submit(stream_to_its_end, cluster, i, begun) for i in range(6)]
            assert begun.acquire(timeout=60)
            cluster.process.send_signal(signal.SIGTERM)
            eventually(lambda: any("draining" in line for line in list(cluster.complaints))
                       or cluster.process.poll() is not None, "drains")
            cluster.process.send_signal(signal.SIGTERM)
            assert cluster.process.wait(30) in (0, 130)
            for stream in streams:
                assert stream.result(timeout=30) != "silence"


def test_a_port_in_use_is_named(bard, tmp_path):
    second = run("up", bard.file, "--port", bard.port)
    assert second.returncode == 1
    assert f"127.0.0.1:{bard.port}" in second.stderr and "another port" in second.stderr


def test_api_keys(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"sha256:{hashlib.sha256(b'open sesame').hexdigest()}  alice\n")
    keys.chmod(0o600)
    edges = {"http": {"port": 0, "api_keys_file": str(keys)}}
    with Cluster(tmp_path, edges=edges) as cluster:
        ask = {"model": "bard", "prompt": "x", "max_tokens": 1}
        assert cluster.openai(api_key="open sesame").completions.create(**ask).choices
        with pytest.raises(openai.AuthenticationError) as caught:
            cluster.openai(api_key="wrong").completions.create(**ask)
        assert caught.value.code == "invalid_api_key"
        assert cluster.get("/troupe/v1/status").status_code == 401
        assert cluster.get("/health").status_code == 200
        assert run("status", "--url", cluster.url, "--json").returncode == 1
        good = run("status", "--url", cluster.url, "--json", TROUPE_API_KEY="open sesame")
        assert good.returncode == 0, good.stderr


def poisoned(folder):
    """bard with an output head of its own and a NaN in the input embedding of token 200, a byte that
    no verse has."""
    copy = shutil.copytree(ROOT / "examples/models/bard/hf", folder / "poisoned")
    file = copy / "model.safetensors"
    raw = file.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:8 + size]), bytearray(raw[8 + size:])
    embedding = header["model.embed_tokens.weight"]
    begin, end = embedding["data_offsets"]
    head = bytes(data[begin:end])
    width = embedding["shape"][1] * 2
    data[begin + 200 * width:begin + 200 * width + 2] = b"\xc0\x7f"
    header["lm_head.weight"] = {**embedding, "data_offsets": [len(data), len(data) + len(head)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + data + head)
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": False}))
    return copy


def test_logits_that_are_no_numbers_fail_their_request_alone(tmp_path):
    with Cluster(tmp_path, ("--set", f"models.bard.model={poisoned(tmp_path)}")) as cluster:
        with concurrent.futures.ThreadPoolExecutor(9) as pool:
            good = [pool.submit(cluster.complete, seed=i, **LONG) for i in range(8)]
            eventually(lambda: cluster.replica()["running"] > 0, "the others run")
            bad = cluster.complete(prompt=[5, 200, 6], max_tokens=5)
            assert bad.status_code == 500 and "finite" in bad.json()["error"]["message"], bad.text
            assert {g.result().status_code for g in good} == {200}
        eventually(cluster.idle, "nothing left over")


def test_a_prompt_that_cannot_fit_is_refused_unread(tmp_path):
    with Cluster(tmp_path) as cluster:
        # Encoding it would take a second of the one thread that turns everybody's tokens into text,
        # so it is refused by its bytes.
        refused = cluster.complete(prompt="the " * 900_000)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        assert "bytes" in refused.json()["error"]["message"]


def test_what_is_wrong_with_a_length_is_said_at_start(tmp_path):
    for setting in ("models.bard.max_model_len=1", "models.bard.max_model_len=0"):
        done = run("up", write_cluster(tmp_path), "--port", "0", "--set", setting)
        assert done.returncode == 1 and "max_model_len" in done.stderr, done.stderr
    with Cluster(tmp_path, ("--set", "models.bard.enable_chunked_prefill=false")) as cluster:
        assert cluster.complete(prompt="word " * 100, max_tokens=1).status_code == 200
