"""Floods, deaths, drains: whole clusters of their own."""

import collections
import concurrent.futures
import contextlib
import hashlib
import signal
import threading

import httpx
import openai
import pytest

from troupe_process import Cluster, eventually, events, run

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
        streams = [pool.submit(stream_to_its_end, mortal, i, begun) for i in range(8)]
        assert begun.acquire(timeout=60)
        try:
            mortal.kill(kind)
        except httpx.TransportError:
            assert kind == "edge"
        ends = {s.result(timeout=60) for s in streams}
    assert "silence" not in ends, ends
    if kind != "edge":
        assert ends <= {"done", "error"}, ends

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
