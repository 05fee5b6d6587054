"""Stages that are killed, stopped or cut off under load lose nobody's request, and a front that dies leaves nothing behind.

As a script: test_faults.py --rounds 100 --seed 7 [--executor cpu | --ranks]
"""

import argparse
import contextlib
import pathlib
import random
import sys
import tempfile
import time

import pytest

from faults import FRONTS, KINDS_OF_RANKS, STAGES, Front, Round, Site, ask_all, differences, draw_pool
from network import Network, require_rights
from troupe_process import eventually

ROUNDS = 10
SEED = 20261126
# One replica with a rank on each stage: what meets either of them meets all streams.
RANKS = {"executor": "cpu", "kinds": KINDS_OF_RANKS, "replicas": 1,
         "models": {"bard": {"instances": 1, "tensor_parallel": 2, "cpu_threads": 1, "max_num_seqs": 6}}}


require_rights()


@contextlib.contextmanager
def broken_world(folder, seed, executor="simulated", **keys):
    """The cluster, and requests with their answers."""
    with Network([*FRONTS, *STAGES], seed) as net, net.inside("front"):
        with Site(net, pathlib.Path(folder), executor, **keys) as site:
            pool = draw_pool(random.Random(seed), 30)
            assert all(a.status == 200 and a.done and not a.error for _, a in pool), pool
            yield site, pool


def run_rounds(site, pool, rounds, seed):
    """@return what went wrong"""
    print(f"seed {seed}", flush=True)
    wrong = []
    for number in range(rounds):
        one = Round(site, pool, seed, number)
        found = one.run()
        print(one.story(), flush=True)
        for line in found:
            print("  WRONG: " + line, flush=True)
        wrong += found
        assert site.nodes["front"].process.poll() is None, site.nodes["front"].complaints
    migrated = site.metric("troupe:migrations_total")
    print(f"stages started anew: {len(site.starts)}, streams that went on elsewhere: {migrated:.0f}", flush=True)
    if rounds >= ROUNDS and (not site.starts or not migrated):
        wrong.append("no fault met a stream")
    return wrong


@pytest.fixture(name="world", scope="module")
def one_world(tmp_path_factory):
    with broken_world(tmp_path_factory.mktemp("world"), SEED) as made:
        yield made


def test_faults_of_stages_lose_and_double_nothing(world):
    assert not run_rounds(*world, ROUNDS, SEED)


def test_a_front_that_is_killed_leaves_nothing_behind(world):
    site, pool = world
    front = Front(site, pool, random.Random(SEED))
    site.nodes["other"].kill()
    killed = time.monotonic()
    found = [eventually(lambda s=s: site.told(s, "other", killed), f"{s} notices") for s in STAGES]
    # Within a second; the view of it is up to 0.7 s old.
    eventually(site.at_rest, "its blocks are free", limit_s=max(found) + 1.7 - time.monotonic())
    freed = time.monotonic()
    assert front.clients_end(5)
    assert all(a.status != 200 or not a.done for a in front.answers), "an answer came from nowhere"
    print(f"front killed: detected in {1000 * (max(found) - killed):.0f} ms, blocks free {1000 * (freed - max(found)):.0f} ms later")
    eventually(site.healed, "it is started anew")


def test_a_front_that_is_cut_off_costs_the_other_front_nothing(world):
    site, pool = world
    front = Front(site, pool, random.Random(SEED))
    starts = list(site.starts)
    site.net("cut other")
    cut = time.monotonic()
    answers = ask_all([body for body, _ in pool])
    assert not [d for pair, answer in zip(pool, answers) for d in differences(*pair, answer)]
    for stage in STAGES:
        eventually(lambda s=stage: site.told(s, "other", cut), f"{stage} notices")
    site.net("heal")
    # Its streams were parked meanwhile; they go on once it has the stages back.
    assert front.clients_end(30)
    eventually(site.healed, "all are one cluster again")
    # Both stages have dropped what they had for it, and nothing more.
    assert site.starts == starts
    undisturbed = ask_all(front.bodies)
    assert not [d for row in zip(front.bodies, undisturbed, front.answers) for d in differences(*row)]


def test_faults_of_ranks_lose_and_double_nothing(tmp_path):
    with broken_world(tmp_path, SEED, **RANKS) as ranks:
        assert not run_rounds(*ranks, ROUNDS // 2, SEED)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--seed", type=int, default=time.time_ns() % (1 << 31))
    options.add_argument("--executor", default="simulated")
    options.add_argument("--ranks", action="store_true")
    given = options.parse_args()
    how = RANKS if given.ranks else {"executor": given.executor}
    with tempfile.TemporaryDirectory() as folder, broken_world(folder, given.seed, **how) as world:
        wrong = run_rounds(*world, given.rounds, given.seed)
    print(f"{given.rounds} rounds, seed {given.seed}: {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
