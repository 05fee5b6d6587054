#!/usr/bin/env python3
"""Streams to a server for minutes, a part of which are cut off at random, and looks at what that leaves behind.

usage: soak.py URL MODEL PID [SECONDS [STREAMS [SEED]]]      360 seconds, 256 streams at a time, seed 1

PID is the server's, for its memory. The answer is one line of JSON, and the status 1 if a stream failed, blocks stayed
taken, or memory grew by more than a twentieth from the first quarter to the end.
"""
import asyncio
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import urllib.parse
import urllib.request

GROWTH = 1.05


def host_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) // 1024


def device_mib():
    # It counts all GPUs, whichever this process may see.
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    asked = ["nvidia-smi", "-i", gpu, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0])
    except (OSError, subprocess.CalledProcessError):
        return 0


class Soak:
    def __init__(self, url, model, seconds, streams, seed):
        self.url, self.model, self.seconds, self.streams = urllib.parse.urlparse(url), model, seconds, streams
        self.draw = random.Random(seed)
        self.counts = {"finished": 0, "cut": 0, "failed": 0}
        self.first_failure = ""

    def request(self):
        words = ["".join(self.draw.choice("abcd") for _ in range(4)) for _ in range(self.draw.choice((4, 60, 200, 400)))]
        body = json.dumps({"model": self.model, "prompt": " ".join(words), "max_tokens": self.draw.randint(1, 400), "stream": True,
                           "temperature": self.draw.choice((0, 0.8)), "seed": self.draw.randint(0, 1 << 30), "ignore_eos": True})
        return (f"POST /v1/completions HTTP/1.1\r\nhost: soak\r\nconnection: close\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\n\r\n{body}").encode()

    async def one(self):
        reader, writer = await asyncio.open_connection(self.url.hostname, self.url.port, limit=1 << 20)
        # A third leaves before the end; the bytes until then are drawn too.
        leaves_after = self.draw.randint(0, 40_000) if self.draw.random() < 1 / 3 else None
        try:
            writer.write(self.request())
            await writer.drain()
            got, tail = 0, b""
            while part := await asyncio.wait_for(reader.read(1 << 16), 60):
                got += len(part)
                tail = (tail + part)[-2000:]
                if leaves_after is not None and got >= leaves_after:
                    self.counts["cut"] += 1
                    return
            whole = b"data: [DONE]" in tail
            self.counts["finished" if whole else "failed"] += 1
            if not whole and not self.first_failure:
                self.first_failure = tail[-300:].decode(errors="replace")
        except (OSError, asyncio.TimeoutError) as why:
            self.counts["failed"] += 1
            self.first_failure = self.first_failure or repr(why)
        finally:
            writer.transport.abort()

    async def place(self, until):
        while asyncio.get_running_loop().time() < until:
            await self.one()

    async def run(self, pid):
        until = asyncio.get_running_loop().time() + self.seconds
        places = [asyncio.create_task(self.place(until)) for _ in range(self.streams)]
        await asyncio.sleep(self.seconds / 4)
        early = (host_mib(pid), device_mib())
        await asyncio.sleep(self.seconds * 3 / 4)
        late = (host_mib(pid), device_mib())
        await asyncio.gather(*places)
        return early, late

    def blocks_used(self):
        with urllib.request.urlopen(self.url.geturl() + "/troupe/v1/status", timeout=10) as answer:
            return sum(replica["blocks_used"] for replica in json.load(answer)["replicas"])


async def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    url, model, pid = sys.argv[1:4]
    seconds, streams, seed = (int(given) for given in (sys.argv[4:] + ["360", "256", "1"][len(sys.argv) - 4:]))
    soak = Soak(url, model, seconds, streams, seed)
    early, late = await soak.run(pid)
    for _ in range(50):
        if (used := soak.blocks_used()) == 0:
            break
        await asyncio.sleep(0.2)
    flat = all(after <= before * GROWTH for before, after in zip(early, late))
    print(json.dumps({"soak": soak.counts, "seconds": seconds, "streams": streams, "seed": seed, "blocks_used_after": used,
                      "host_mib": [early[0], late[0]], "device_mib": [early[1], late[1]], "flat": flat,
                      "first_failure": soak.first_failure}))
    sys.exit(0 if flat and used == 0 and soak.counts["failed"] == 0 else 1)


if __name__ == "__main__":
    asyncio.run(main())
