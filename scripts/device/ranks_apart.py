#!/usr/bin/env python3
"""Two ranks in two processes that share a GPU: what the end of one costs.

usage: ranks_apart.py REPOSITORY MODEL      in the repository root, with TROUPE_BIN and TROUPE_DEVICE as tests/api has them
Kills the process of either rank in the middle of a stream and starts it again, and wants the stream to end as it should. Prints how
long that took, and a token before: two processes take turns on one GPU, so that is no figure of two GPUs. Needs httpx.
"""

import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path.cwd() / "tests" / "api"))
from nodes import Globe  # noqa: E402
from troupe_process import events  # noqa: E402

TOKENS = 40


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    repository, model = sys.argv[1:]
    bytes_of_a_rank = {"kv_cache_memory_bytes": 2 << 30, "swap_space": 0}
    keys = {"model_repository": str(pathlib.Path(repository).resolve()),
            "models": {model: {"instances": 1, "tensor_parallel": 2, **bytes_of_a_rank}}}
    with tempfile.TemporaryDirectory() as folder, Globe(pathlib.Path(folder), replicas=1, environment={}, **keys) as pair:
        ask = {"model": model, "prompt": "aaab aaac", "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
        pair.complete(**ask)
        begin = time.monotonic()
        assert pair.complete(**ask).status_code == 200
        told = [f"{1e3 * (time.monotonic() - begin) / TOKENS:.0f} ms a token"]
        for victim in ("stage2", "stage1"):
            with pair.stream(**ask) as answer:
                parts = events(answer)
                came = [next(parts)]
                begin = time.monotonic()
                pair.kill(victim)
                pair.start(victim)
                came.append(next(parts))
                again = time.monotonic() - begin
                came += [part for part in parts if part != "[DONE]"]
            assert len(came) >= TOKENS and all("choices" in part for part in came), came
            ready = pair.nodes[victim].find(r"^ready after ([0-9.]+) s").group(1)
            told.append(f"the next token {again:.2f} s after the end of the process of rank {int(victim[-1]) - 1} "
                        f"(the next said ready after {ready} s)")
        print("passed: " + ", ".join(told))


main()
