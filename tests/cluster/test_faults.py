"""Stages that are killed, stopped or cut off under load lose nobody's request, and a front that dies leaves nothing behind.

As a script: test_faults.py --rounds 100 --seed 7 [--executor cpu]
"""

import argparse
import contextlib
import pathlib
import random
import sys
import tempfile
import time

import pytest

from faults import FRONTS, STAGES, Round, Site, draw_pool
from network import Network, require_rights
from troupe_process import eventually

ROUNDS = 10
SEED = 20261126


@contextlib.contextmanager
def broken_world(folder, seed, executor="simulated"):
    """The cluster, and requests with their answers."""
    with Network([*FRONTS, *STAGES], seed) as net, net.inside("front"):
        with Site(net, pathlib.Path(folder), executor) as site:
            yield site, draw_pool(random.Random(seed), 30)


def run_rounds(folder, rounds, seed, executor="simulated"):
    """@return what went wrong"""
    print(f"seed {seed}", flush=True)
    wrong = []
    with broken_world(folder, seed, executor) as (site, pool):
        assert all(a.status == 200 and a.done and not a.error for _, a in pool), pool
        for number in range(rounds):
            one = Round(site, pool, seed, number)
            found = one.run()
            print(one.story(), flush=True)
            for line in found:
                print("  WRONG: " + line, flush=True)
            wrong += found
            if found and site.nodes["front"].process.poll() is not None:
                break
        print(f"stages started anew: {len(site.starts)}", flush=True)
    return wrong


def test_faults_of_stages_lose_and_double_nothing(tmp_path):
    require_rights()
    assert not run_rounds(tmp_path, ROUNDS, SEED)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--seed", type=int, default=time.time_ns() % (1 << 31))
    options.add_argument("--executor", default="simulated")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = run_rounds(folder, given.rounds, given.seed, given.executor)
    print(f"{given.rounds} rounds, seed {given.seed}: {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
