"""What a user waits for and what an idle server holds: from `troupe up` to the first token of a
streamed answer, and the resident memory of the idle process after it; medians.

    start.py BINARY [CLUSTER.json] [--model NAME] [--rounds N] [--set KEY=VALUE]...
"""
import argparse
import http.client
import json
import pathlib
import re
import signal
import statistics
import subprocess
import time


def first_token(port, model):
    """Seconds are not wasted on a model that still loads: an answer of 503 is asked again."""
    body = json.dumps({"model": model, "prompt": "ROMEO:", "max_tokens": 8, "stream": True})
    while True:
        link = http.client.HTTPConnection("127.0.0.1", port)
        link.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        answer = link.getresponse()
        if answer.status == 200:
            while not answer.readline().startswith(b"data: {"):
                pass
            return
        answer.read()
        link.close()
        time.sleep(0.002)


def resident_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) / 1024


def measure(asked):
    command = [asked.binary, "up", asked.cluster, "--port", "0"]
    for setting in asked.set:
        command += ["--set", setting]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        port = next(int(found.group(1)) for line in server.stdout
                    if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
        first_token(port, asked.model)
        took = time.perf_counter() - begin
        time.sleep(1)
        held = resident_mib(server.pid)
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    return took, held


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("binary")
    options.add_argument("cluster", nargs="?", default="examples/quickstart/cluster.json")
    options.add_argument("--model", default="bard")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--set", action="append", default=[])
    asked = options.parse_args()
    figures = [measure(asked) for _ in range(asked.rounds)]
    print(json.dumps({"first_token_s": round(statistics.median(f[0] for f in figures), 3),
                      "idle_rss_mib": round(statistics.median(f[1] for f in figures), 1),
                      "all": figures}))


if __name__ == "__main__":
    main()
