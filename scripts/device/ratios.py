#!/usr/bin/env python3
"""Joins two logs of JSON lines by their measures and prints a table of ratios, above 1 where ours is better.

usage: ratios.py NAME OURS PEERS [common]      with `common` only what both have measured
"""
import json
import sys


def rows_of(path):
    found = {}
    try:
        lines = open(path, errors="replace").read().splitlines()
    except OSError:
        return found
    for line in lines:
        if line.startswith('{"measure"'):
            row = json.loads(line)
            found[row["measure"]] = row
    return found


def figures(row):
    """(name, value, whether more is better) of what can be compared."""
    yield "step_ms", row.get("step_ms"), False
    yield "ms", row.get("ms"), False
    yield "output tokens/s", row.get("output_tokens_per_s"), True
    for name in ("ttft", "tpot", "itl"):
        yield f"{name} median ms", row.get(name, {}).get("median_ms"), False
        yield f"{name} p99 ms", row.get(name, {}).get("p99_ms"), False


def main():
    if len(sys.argv) < 4 or sys.argv[4:] not in ([], ["common"]):
        sys.exit(__doc__)
    name, ours, peers = sys.argv[1], rows_of(sys.argv[2]), rows_of(sys.argv[3])
    for measure, row in ours.items():
        if sys.argv[4:] and measure not in peers:
            continue
        other = dict((key, value) for key, value, _ in figures(peers.get(measure, {})) if value)
        for key, value, more in figures(row):
            peer = other.get(key)
            # What a peer does not tell of a measure has its place in the log.
            if not value or (other and not peer):
                continue
            ratio = "-" if not peer else f"{value / peer if more else peer / value:.2f} x"
            print(f"{name:9s} {measure:22s} {key:16s} {value:12.3f} {peer if peer else '-':>12} {ratio:>8}")
        steps = row.get("step_us")
        if steps:
            print(f"{name:9s} {measure:22s} us a step: " + ", ".join(f"{k} {v:.1f}" for k, v in steps.items()))


if __name__ == "__main__":
    main()
