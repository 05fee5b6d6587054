"""Two stages in processes of their own against one: tokens a second of a simulated step of 8 ms, 64 sequences a stage; medians.

    TROUPE_BIN=build/release/bin/troupe tests/bench/stages.py [ROUNDS]
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

for folder in ("api", "cluster"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / folder))
# pylint: disable=wrong-import-position
import faults
from nodes import Globe, Process
from troupe_process import TROUPE

SEQUENCES = 64
faults.SIMULATED.update(step_us=8000, token_us=0, eos_probability=0.0)


class Stages(Globe):
    """A front and stages that compute nothing and take 8 ms a step."""

    def start(self, name, file=None, *arguments):
        self.nodes[name] = Process(file or self.file, "--node", name, "--executor", "simulated", *arguments)
        return self.nodes[name]


def tokens_per_second(cluster, stages):
    """Each place is taken three times, so that the stages are full but for a short end."""
    at_a_time = SEQUENCES * stages
    asked = [TROUPE, "bench", "--url", cluster.url, "--load", f"16/200:{3 * at_a_time}@{at_a_time}", "--json"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=120).stdout
    row = next(json.loads(line) for line in said.splitlines() if line.startswith("{"))
    return row["output_tokens_per_s"]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    rates = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as scratch:
        clusters = {}
        for stages in rates:
            at = pathlib.Path(scratch) / str(stages)
            at.mkdir()
            bard = {"instances": stages, "cpu_threads": 1, "max_num_seqs": SEQUENCES}
            clusters[stages] = Stages(at, stages, model_repository=str(faults.simulated_repository(at)), models={"bard": bard})
        with clusters[1], clusters[2]:
            for _ in range(rounds):
                for stages, seen in rates.items():
                    seen.append(tokens_per_second(clusters[stages], stages))
    ideal = SEQUENCES / 0.008
    ratios = [two / one for one, two in zip(*rates.values())]
    print(json.dumps({"one_stage": round(statistics.median(rates[1])), "two_stages": round(statistics.median(rates[2])),
                      "ratio": round(statistics.median(ratios), 3), "least": round(min(ratios), 3), "most": round(max(ratios), 3),
                      "one_of_ideal": round(statistics.median(rates[1]) / ideal, 3), "rounds": rounds}))


if __name__ == "__main__":
    main()
