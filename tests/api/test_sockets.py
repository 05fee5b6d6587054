"""Clients that break the rules of HTTP, leave, or read nothing."""

import json
import re
import socket
import threading

import pytest

from troupe_process import eventually

LONG = {"model": "bard", "prompt": "ROMEO:", "max_tokens": 250, "ignore_eos": True, "seed": 1}

CHUNKED = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def connect(cluster, **_):
    s = socket.create_connection(("127.0.0.1", cluster.port), timeout=30)
    return s


def request(body, path="/v1/completions"):
    content = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n").encode() \
        + content


def read_all(s):
    data = b""
    while piece := s.recv(65536):
        data += piece
    return data


def test_a_target_may_be_a_whole_address(bard):
    for target in (b"http://x/v2/health/ready?a=b", b"HTTP://x:1/health", b"http://x/v1/models/bard"):
        with connect(bard) as s:
            s.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b" 200 " in read_all(s).split(b"\r\n")[0], target


@pytest.mark.parametrize("bytes_, status", [
    (b"\x00\x01\x02\x03\r\n\r\n", b" 400 "),
    (b"GET\r\n\r\n", b" 400 "),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b" 400 "),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n", b" 400 "),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", b" 4"),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b" 413 "),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", b" 400 "),
    (b"GET /health HTTP/1.1\r\n\r\n", b" 400 "),
    (CHUNKED.replace(b"chunked", b"xchunked") + b"2\r\n{}\r\n0\r\n\r\n", b" 501 "),
    (CHUNKED.replace(b"chunked", b"gzip, chunked") + b"2\r\n{}\r\n0\r\n\r\n", b" 501 "),
    (CHUNKED.replace(b"Transfer", b"Content-Length: 12\r\nTransfer"), b" 400 "),
    (CHUNKED.replace(b"chunked", b"xchunked\r\nContent-Length: 12"), b" 400 "),
    (CHUNKED.replace(b"Transfer", b"Content-Encoding: gzip\r\nTransfer"), b" 415 "),
    (CHUNKED.replace(b"Transfer", b"Expect: more\r\nTransfer"), b" 417 "),
    (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100000 + b"\r\n\r\n", b" 431 "),
    (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 3000 + b"\r\n", b" 431 "),
    (CHUNKED + b"2;" + b"a" * 300_000, b" 431 "),
    (CHUNKED + b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 60_000, b" 431 "),
])
def test_broken_requests(bard, bytes_, status):
    with connect(bard) as s:
        s.sendall(bytes_)
        assert status in read_all(s).split(b"\r\n")[0]
    assert bard.get("/health").status_code == 200


def test_half_a_request_and_leave(bard):
    for bytes_ in (b"", b"POST", request(LONG)[:60], request(LONG)[:-1]):
        with connect(bard) as s:
            s.sendall(bytes_)
    assert bard.get("/health").status_code == 200


def test_a_chunked_body_byte_by_byte(bard):
    body = json.dumps({**LONG, "max_tokens": 2}).encode()
    chunks = b"".join(b"1\r\n" + body[i:i + 1] + b"\r\n" for i in range(len(body)))
    with connect(bard) as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n")
        for i in range(0, len(chunks), 7):
            s.sendall(chunks[i:i + 7])
        s.sendall(b"0\r\n\r\n")
        assert b" 200 " in read_all(s).split(b"\r\n")[0]


def test_requests_sent_ahead(bard):
    with connect(bard) as s:
        last = request({**LONG, "max_tokens": 3}).replace(b"Host", b"Connection: close\r\nHost")
        s.sendall(request({**LONG, "max_tokens": 2}) * 2 + last)
        data = read_all(s)
    assert data.count(b"HTTP/1.1 200") == 3


def test_thousands_of_requests_sent_ahead(bard):
    count = 6000
    with connect(bard) as s:
        sender = threading.Thread(target=s.sendall, args=(b"".join(
            b"GET /v1/models/m%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(count))
            + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",))
        sender.start()
        data = read_all(s)
        sender.join()
    assert re.findall(rb"The model 'm(\d+)' does", data) == [b"%d" % i for i in range(count)]
    assert data.count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_frees_the_blocks(bard, stream):
    eventually(bard.idle, "idle before")
    before = bard.metric("vllm:request_success_total", finished_reason="abort")
    clients = [connect(bard) for _ in range(6)]
    for s in clients:
        s.sendall(request({**LONG, "stream": stream}))
    eventually(lambda: bard.metric("vllm:num_requests_running") > 0 or not bard.idle(), "running")
    for s in clients:
        s.close()
    eventually(bard.idle, "the replica is idle again")
    assert bard.metric("vllm:request_success_total", finished_reason="abort") > before


def test_leaving_behind_bytes_sent_ahead_frees_the_blocks(bard):
    eventually(bard.idle, "idle before")
    before = bard.metric("vllm:request_success_total", finished_reason="abort")
    clients = [connect(bard) for _ in range(6)]
    for s in clients:
        s.sendall(request({**LONG, "max_tokens": 480}) + b"x" * 200_000)
    eventually(lambda: bard.metric("vllm:num_requests_running") > 0, "running")
    for s in clients:
        s.close()
    eventually(bard.idle, "the replica is idle again")
    assert bard.metric("vllm:request_success_total", finished_reason="abort") > before


def test_a_slow_reader_slows_nobody(bard):
    slow = [connect(bard) for _ in range(4)]
    for s in slow:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.sendall(request({**LONG, "stream": True}))
    quick = bard.complete(max_tokens=20, seed=3)
    assert quick.status_code == 200
    eventually(bard.idle, "the batch ends although nobody reads")
    for s in slow:
        s.sendall(b"")
        data = b""
        while b"[DONE]" not in data:
            piece = s.recv(65536)
            assert piece, "the whole answer is there for a reader that comes late"
            data += piece
        s.close()
