#!/usr/bin/env python3
"""Streams of random lengths against a server, about half of them given up midway; then nothing may be left behind.

usage: soak.py PORT PID SECONDS STREAMS MODEL [SEED]
Ends with 1 when a request fails, when the KV cache is not empty in the end, or when the process or the GPU grows.
"""
import asyncio
import json
import random
import re
import subprocess
import sys
import time

port, pid, seconds, streams = (int(x) for x in sys.argv[1:5])
model = sys.argv[5]
seed = int(sys.argv[6]) if len(sys.argv) > 6 else 1
done, given_up, failed = 0, 0, []


async def request(method, path, body=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
                 f"content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    return reader, writer


async def stream(rng, until):
    global done, given_up
    while time.monotonic() < until:
        ids = [rng.randrange(10, 100000 if model.startswith("llama") else 200) for _ in range(rng.choice([4, 60, 300, 900]))]
        body = {"model": model, "prompt": ids, "max_tokens": rng.choice([8, 64, 300]), "stream": True,
                "ignore_eos": True, "temperature": rng.choice([0, 1])}
        patience = rng.randrange(1, 40000) if rng.random() < 0.5 else 1 << 40
        try:
            reader, writer = await request("POST", "/v1/completions", json.dumps(body).encode())
            got, tail = 0, b""
            while got < patience:
                part = await asyncio.wait_for(reader.read(4096), 60)
                if not part:
                    break
                got += len(part)
                tail = (tail + part)[-300:]
            writer.close()
            if got >= patience:
                given_up += 1
            elif b"[DONE]" in tail:
                done += 1
            else:
                failed.append(tail.decode(errors="replace"))
        except (OSError, asyncio.TimeoutError) as wrong:
            failed.append(repr(wrong))


async def metrics():
    reader, writer = await request("GET", "/metrics")
    text = (await reader.read()).decode()
    writer.close()

    def of(name):
        return sum(float(x) for x in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))
    return of("vllm:num_requests_running") + of("vllm:num_requests_waiting"), of("vllm:kv_cache_usage_perc")


def memory():
    at = pid
    # A server behind `timeout` is its child.
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        at = (children.read().split() or [pid])[0]
    with open(f"/proc/{at}/status") as status:
        host = int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) // 1024
    try:
        gpu = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                             capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError):
        gpu = 0
    return host, int(gpu)


async def main():
    begin = time.monotonic()
    tasks = [asyncio.create_task(stream(random.Random(seed * 1000 + i), begin + seconds)) for i in range(streams)]
    await asyncio.sleep(seconds / 3)
    early = memory()
    await asyncio.gather(*tasks)
    late = memory()
    for _ in range(100):
        open_requests, used = await metrics()
        if open_requests == 0 and used == 0:
            break
        await asyncio.sleep(0.1)
    wrong = []
    if failed:
        wrong.append(f"{len(failed)} requests failed, the first: {failed[0][:200]}")
    if open_requests or used:
        wrong.append(f"{open_requests:.0f} requests and {used:.4f} of the KV cache are left")
    if late[0] > early[0] * 1.05 + 32 or late[1] > early[1] + 64:
        wrong.append(f"memory grew from {early} to {late} MiB")
    print(f"{done} answers, {given_up} given up in {seconds} s at {streams} streams; host and GPU hold {early}, then "
          f"{late} MiB; {'FAILED: ' + '; '.join(wrong) if wrong else 'nothing is left behind: passed'}")
    return 1 if wrong or not done or not given_up else 0


sys.exit(asyncio.run(main()))
