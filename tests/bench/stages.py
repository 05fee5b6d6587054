"""Two stages in processes of their own against one: tokens a second of a simulated step of 8 ms, 64 sequences a stage; medians.

    TROUPE_BIN=build/release/bin/troupe tests/bench/stages.py [ROUNDS]

Needs nothing but Python, so that it runs where the GPU is too. Both clusters stand all the time; rounds change between them.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/api"))
# pylint: disable=wrong-import-position
from ports import free_ports

TROUPE = os.environ.get("TROUPE_BIN", str(ROOT / "build/release/bin/troupe"))
SEQUENCES = 64
SIMULATED = {"step_us": 8000, "token_us": 0, "eos_probability": 0.0}


def write_cluster(folder, stages):
    """The file of a front and so many stages of bard, which computes nothing and takes 8 ms a step."""
    made = folder / "models/bard"
    shutil.copytree(ROOT / "examples/models/bard", made)
    config = made / "hf/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "simulated": SIMULATED}))
    secret = folder / "secret"
    secret.write_text("only for this bench\n" * 2)
    secret.chmod(0o600)
    ports = free_ports(stages + 1)
    nodes = [{"name": "front", "devices": [], "router": True, "edges": {"http": {"port": 0}}}]
    nodes += [{"name": f"stage{i + 1}", "devices": ["cpu"]} for i in range(stages)]
    for node, port in zip(nodes, ports):
        node["address"] = f"127.0.0.1:{port}"
    file = folder / "cluster.json"
    file.write_text(json.dumps({
        "cluster": "bench", "secret_file": secret.name, "model_repository": "models", "wire": {"dead_after_s": 3}, "nodes": nodes,
        "models": {"bard": {"instances": stages, "cpu_threads": 1, "max_num_seqs": SEQUENCES}}}))
    return file


@contextlib.contextmanager
def cluster(folder, stages):
    """The address of its front, all of it ready."""
    folder.mkdir()
    command = [TROUPE, "up", str(write_cluster(folder, stages)), "--executor", "simulated"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said, url, ready = "", None, 0
            while not (url and ready == stages + 1):
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"{' '.join(command)} ended:\n{said}")
                said += line
                url = url or next(iter(re.findall(r"http://[0-9.]+:\d+", line)), None)
                ready += "ready after" in line
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


def tokens_per_second(url, stages):
    """Each place is taken three times, so that the stages are full but for a short end."""
    at_a_time = SEQUENCES * stages
    asked = [TROUPE, "bench", "--url", url, "--load", f"16/200:{3 * at_a_time}@{at_a_time}", "--json"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=120).stdout
    row = next(json.loads(line) for line in said.splitlines() if line.startswith("{"))
    return row["output_tokens_per_s"]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    rates = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        urls = {stages: stack.enter_context(cluster(pathlib.Path(scratch) / str(stages), stages)) for stages in rates}
        for _ in range(rounds):
            for stages, seen in rates.items():
                seen.append(tokens_per_second(urls[stages], stages))
    ideal = SEQUENCES / 0.008
    ratios = [two / one for one, two in zip(*rates.values())]
    print(json.dumps({"one_stage": round(statistics.median(rates[1])), "two_stages": round(statistics.median(rates[2])),
                      "ratio": round(statistics.median(ratios), 3), "least": round(min(ratios), 3), "most": round(max(ratios), 3),
                      "one_of_ideal": round(statistics.median(rates[1]) / ideal, 3), "rounds": rounds}))


if __name__ == "__main__":
    main()
