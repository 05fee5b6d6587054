#!/usr/bin/env python3
"""Measures vLLM with the figures of `troupe bench`, a JSON object a line. On the GPU machine, after the peer's
install_on_device.sh and with its env.sh.

usage: peer.py llama8b|qwen06b [--decode 1,8] [--first-token 128] [--load IN/OUT:REQUESTS]... [--rounds N] [--defaults]
               [--dummy IN/OUT:REQUESTS]...

With --defaults vLLM chooses its own limits of sequences and tokens a step; else they are ours. Its weights are like ours
(peer_weights.py); loads given by --dummy are measured before, with vLLM's own.
"""
import argparse
import json
import os
import statistics
import sys
import tempfile

root = os.environ.get("PEER_ROOT", "/tmp/peer")
sys.path.insert(0, root)
# For the processes that vLLM starts.
os.environ["PYTHONPATH"] = os.pathsep.join([os.path.dirname(os.path.abspath(__file__)), os.environ.get("PYTHONPATH", "")])
import bench_vllm  # noqa: E402


def numbers(text):
    return [int(x) for x in text.split(",") if x]


def say(**row):
    print(json.dumps(row), flush=True)


def measure_load(peer, load, name):
    shape, count = load.split(":")
    n_in, n_out = map(int, shape.split("/"))
    seconds = peer.run(int(count), n_in, n_out)
    say(measure=f"{name} {load}", seconds=round(seconds, 3),
        output_tokens_per_s=round(int(count) * n_out / seconds, 1))


def main():
    ap = argparse.ArgumentParser(usage=__doc__)
    ap.add_argument("model", choices=["llama8b", "qwen06b"])
    ap.add_argument("--decode", type=numbers, default=[])
    ap.add_argument("--first-token", type=numbers, default=[])
    ap.add_argument("--load", action="append", default=[])
    ap.add_argument("--dummy", action="append", default=[])
    ap.add_argument("--rounds", type=int, default=2)
    ap.add_argument("--defaults", action="store_true")
    args = ap.parse_args()
    if args.defaults:
        bench_vllm.LIMITS = {k: v for k, v in bench_vllm.LIMITS.items() if k in ("dtype", "max_model_len")}
    bench_vllm.LIMITS = {**bench_vllm.LIMITS, "worker_extension_cls": "peer_weights.Spread"}
    config = bench_vllm.LLAMA_8B if args.model == "llama8b" else bench_vllm.QWEN3_06B
    with tempfile.TemporaryDirectory() as out:
        peer = bench_vllm.Offline("large", config, bench_vllm.model_dir(config), out, "")
        say(measure="cold_start", **peer.results["cold_start_s"])
        peer.run(256, 128, 8)
        for load in args.dummy:
            measure_load(peer, load, "dummy_load")
        print("weights as ours:", peer.llm.collective_rpc("spread_weights")[0], "numbers", flush=True)
        # As in `troupe bench`: a single prompt finds a card that has not yet worked.
        for tokens in args.first_token:
            times = [peer.run(1, tokens, 1) * 1e3 for _ in range(args.rounds + 1)][1:]
            say(measure=f"first_token {tokens}", ms=round(statistics.median(times), 3))
        for batch in args.decode:
            peer.run(batch, 128, 8)
            slopes = []
            for _ in range(args.rounds):
                brief, lengthy = peer.run(batch, 128, 32), peer.run(batch, 128, 256)
                slopes.append((lengthy - brief) / (256 - 32) * 1e3)
            say(measure=f"decode {batch}", step_ms=round(statistics.median(slopes), 4))
        for load in args.load:
            measure_load(peer, load, "load")


if __name__ == "__main__":
    main()
