#!/usr/bin/env python3
"""What a server does about an error that takes the GPU from its process.

usage: lost.py URL MODEL PID [RANKS]      of a server that was started with CUDA_INJECTION64_PATH=break.so
Breaks the GPU for the server's process, and wants the request that met it to fail with the reason, the server to be ready
again with an executor in a process of its own, and the text of before; then breaks that one's too, kills the third in the middle
of a stream, and wants the stream to end as it should. Several ranks are restarted as one: the request that met the error is then resumed, not failed,
and each rank whose GPU is lost has a process of its own; nothing is broken a second time. Prints how long each took, and a step before and after. Standard library only.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

SIGN = pathlib.Path("/tmp/troupe-break-device")
TOKENS = 256
PATIENCE_S = 60


def post(url, body):
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    return urllib.request.urlopen(request, timeout=PATIENCE_S)


def complete(url, model, tokens=TOKENS):
    """Status, text or error, and seconds."""
    begin = time.monotonic()
    body = {"model": model, "prompt": "ROMEO:", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    try:
        with post(url, body) as answer:
            said = json.load(answer)["choices"][0]["text"]
            return 200, said, time.monotonic() - begin
    except urllib.error.HTTPError as why:
        return why.code, why.read().decode(), time.monotonic() - begin


def stream(url, model, on_first):
    """The text, and the text behind whose end `on_first` was called."""
    text, parts, ended = "", 0, False
    body = {"model": model, "prompt": "ROMEO:", "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
    with post(url, body) as answer:
        for line in answer:
            ended = ended or line.startswith(b"data: [DONE]")
            if not line.startswith(b"data: {"):
                continue
            part = json.loads(line[6:])
            assert "choices" in part, part
            text += part["choices"][0]["text"]
            parts += 1
            if parts == 8:
                before = text
                on_first()
    assert ended and parts >= TOKENS, parts
    return text, before


def children(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def memory_of(pid):
    """MiB that the process has of the GPU's memory; 0 where nvidia-smi does not know it."""
    told = subprocess.run(["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"],
                          capture_output=True, text=True, check=False).stdout
    used = dict(line.split(", ") for line in told.splitlines() if ", " in line)
    return int(used.get(str(pid), 0))


def replica(url):
    with urllib.request.urlopen(url + "/troupe/v1/status", timeout=PATIENCE_S) as answer:
        return json.load(answer)["replicas"][0]


def broken(url, model, ranks):
    """Seconds from the error to the first answer of whatever comes after, and what was said to the request that met it."""
    restarts = replica(url)["restarts"]
    begin = time.monotonic()
    SIGN.touch()
    while SIGN.exists():
        time.sleep(0.001)
    status, said, _ = complete(url, model)
    assert (status == 500 and "illegal" in said) if ranks == 1 else status == 200, (status, said)
    while replica(url)["restarts"] == restarts:
        assert time.monotonic() < begin + PATIENCE_S, "was not restarted"
        time.sleep(0.01)
    while complete(url, model, 1)[0] != 200:
        assert time.monotonic() < begin + PATIENCE_S, "is not ready again"
        time.sleep(0.01)
    return time.monotonic() - begin, said


def main():
    url, model, pid = sys.argv[1], sys.argv[2], int(sys.argv[3])
    ranks = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    complete(url, model)
    _, text, alone = complete(url, model)
    had = memory_of(pid)
    took, said = broken(url, model, ranks)
    print("said:", said[:300])
    theirs = children(pid)
    assert 1 <= len(theirs) <= ranks, theirs
    complete(url, model)
    status, again, apart = complete(url, model)
    # Sums of ranks may be made in another order between processes.
    assert status == 200 and (again == text or ranks > 1), (status, again)
    print(f"memory of GPUs: {had} MiB of the server; since then {memory_of(pid)} and {[memory_of(child) for child in theirs]} of its children")
    told = f"served again after {took:.2f} s"
    if ranks == 1:
        took_again, _ = broken(url, model, ranks)
        told += f", from a child whose GPU broke too after {took_again:.2f} s"
        before, theirs = theirs, children(pid)
        assert len(theirs) == 1 and theirs != before, (before, theirs)
    begin = time.monotonic()
    whole, before = stream(url, model, lambda: os.kill(theirs[-1], signal.SIGKILL))
    # Behind the kill its prompt and tokens are one prompt: other kernels, and in bf16 other bits.
    assert text.startswith(before) or ranks > 1, "another text before the kill"
    print(f"passed: {told}; a stream lived through a kill of a child ({'with the same' if whole == text else 'with another'} text) and took "
          f"{time.monotonic() - begin:.2f} s; {1e3 * alone / TOKENS:.2f} ms a token before, {1e3 * apart / TOKENS:.2f} ms since")


main()
