"""How soon the death of a stage is known and its streams go on, between nodes in network namespaces of their own; medians.

    TROUPE_BIN=build/release/bin/troupe TROUPE_NETEM=build/release/bin/netem tests/bench/faults.py [ROUNDS]
"""
import json
import pathlib
import random
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cluster"))
# pylint: disable=wrong-import-position
from faults import FRONTS, STAGES, Fault, Site, ask_all, draw_request, next_tokens
from network import Network
from troupe_process import eventually


def strike(site, kind, bodies):
    """@return how long the front took to know, and how long then the last stream took to go on, in ms"""
    eventually(site.healed, "all are there")
    fault = Fault(kind, "stage1", after_s=0.4, lasts_s=1.6, restart_s=1.0, delay="0ms", loss=0)
    site.restart_delay_s = fault.restart_s
    answers = []
    load = threading.Thread(target=lambda: answers.extend(ask_all(bodies)))
    load.start()
    struck = fault.strike(site)
    load.join()
    told = eventually(lambda: site.told("front", fault.stage, struck), "the front knows")
    return 1000 * (told - struck), 1000 * next_tokens(answers, struck, told)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    chance = random.Random(4)
    bodies = [{**draw_request(chance), "max_tokens": 250, "ignore_eos": True, "stop_token_ids": None} for _ in range(4)]
    with tempfile.TemporaryDirectory() as folder, Network([*FRONTS, *STAGES], seed=4) as net, net.inside("front"):
        with Site(net, pathlib.Path(folder)) as site:
            for what, kind, load in (("kill -9, idle", "kill", []), ("kill -9, 4 streams", "kill", bodies),
                                     ("SIGSTOP, 4 streams", "stop", bodies), ("black hole, 4 streams", "hole", bodies)):
                began = time.monotonic()
                known, resumed = zip(*(strike(site, kind, load) for _ in range(rounds)))
                row = {"fault": what, "detected_ms": round(statistics.median(known), 1), "worst": round(max(known), 1)}
                if load:
                    row |= {"resumed_ms_later": round(statistics.median(resumed), 1), "worst_resumed": round(max(resumed), 1)}
                print(json.dumps(row | {"rounds": rounds, "took_s": round(time.monotonic() - began)}), flush=True)


if __name__ == "__main__":
    main()
