"""What a user waits for and what an idle server holds: from `troupe up` to the first token of a
streamed answer, and the resident memory of the idle process after it; medians of seven.

    start.py BINARY [CLUSTER.json]
"""
import http.client
import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

ROUNDS = 7


def first_token(port):
    """Seconds are not wasted on a model that still loads: an answer of 503 is asked again."""
    body = json.dumps({"model": "bard", "prompt": "ROMEO:", "max_tokens": 8, "stream": True})
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


def measure(binary, cluster):
    begin = time.perf_counter()
    with subprocess.Popen([binary, "up", cluster, "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        port = next(int(found.group(1)) for line in server.stdout
                    if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
        first_token(port)
        took = time.perf_counter() - begin
        time.sleep(1)
        held = resident_mib(server.pid)
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    return took, held


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    cluster = sys.argv[2] if len(sys.argv) == 3 else "examples/quickstart/cluster.json"
    figures = [measure(sys.argv[1], cluster) for _ in range(ROUNDS)]
    print(json.dumps({"first_token_s": round(statistics.median(f[0] for f in figures), 3),
                      "idle_rss_mib": round(statistics.median(f[1] for f in figures), 1),
                      "all": figures}))


if __name__ == "__main__":
    main()
