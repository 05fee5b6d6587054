"""A cluster as people start it: the binary, a cluster file, a port of its own."""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import httpx

ROOT = pathlib.Path(__file__).resolve().parents[2]
TROUPE = os.environ.get("TROUPE_BIN", str(ROOT / "build/dev/bin/troupe"))
# Busy machines and sanitizers are slow; nothing here waits for it unless something is broken.
PATIENCE_S = 60.0


def eventually(condition, what, limit_s=PATIENCE_S):
    """The first true value of `condition`, asked again and again."""
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.01)


def children(pid):
    """The processes that it has started, in order."""
    found = set()
    for thread in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found |= set(map(int, thread.read_text().split()))
        except (FileNotFoundError, ProcessLookupError):
            pass  # a thread that has ended meanwhile; another one has its children
    return sorted(found)


def clean_environment(**more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TROUPE_")}
    return {**kept, **more}


def run(*arguments, stdin=None, limit_s=PATIENCE_S, **environment):
    """Runs one `troupe` command to its end."""
    return subprocess.run([TROUPE, *map(str, arguments)], input=stdin, text=True, timeout=limit_s,
                          capture_output=True, env=clean_environment(**environment))


def write_cluster(folder, **keys):
    """A cluster file that serves bard."""
    file = folder / "cluster.json"
    file.write_text(json.dumps({"model_repository": str(ROOT / "examples/models"), **keys}))
    return file


class Cluster:
    """`troupe up` in a process of its own, of a cluster file or of a `repository`; a context manager."""

    def __init__(self, folder, arguments=(), port=0, repository=None, environment=None, program=TROUPE, **keys):
        self.file = repository or write_cluster(folder, **keys)
        what = ["--model-repository"] if repository else []
        command = [str(program), "up", *what, str(self.file), "--port", str(port), "--fault-injection", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env=clean_environment(**(environment or {})))
        self.output = []
        self.complaints = []
        self._readers = [
            threading.Thread(target=self._collect, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.output), (self.process.stderr, self.complaints))]
        for reader in self._readers:
            reader.start()
        self.url = None

    @staticmethod
    def _collect(stream, lines):
        for line in stream:
            lines.append(line)

    def _line(self, pattern):
        for line in list(self.output):
            found = re.search(pattern, line)
            if found:
                return found
        assert self.process.poll() is None, "ended early: " + "".join(self.output + self.complaints)
        return None

    def __enter__(self):
        try:
            self.url = eventually(lambda: self._line(r"http://[0-9.]+:\d+"), "an address").group(0)
            eventually(lambda: self._line("^ready"), "the line that says ready")
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(10)
                except subprocess.TimeoutExpired:
                    self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(5)
        text = "".join(self.complaints)
        assert "AddressSanitizer" not in text and "runtime error" not in text, text

    @property
    def port(self):
        return int(self.url.rsplit(":", 1)[1])

    def openai(self, **options):
        # Here, for the GPU machine has none.
        import openai
        given = {"api_key": "none", "max_retries": 0, "timeout": PATIENCE_S, **options}
        return openai.OpenAI(base_url=self.url + "/v1", **given)

    def get(self, path, **options):
        return httpx.get(self.url + path, timeout=PATIENCE_S, **options)

    def post(self, path, body, **options):
        return httpx.post(self.url + path, json=body, timeout=PATIENCE_S, **options)

    def complete(self, prompt="ROMEO:", **fields):
        return self.post("/v1/completions", {"model": "bard", "prompt": prompt, **fields})

    def kill(self, kind):
        return self.post("/troupe/v1/debug/kill", {"actor": kind})

    def replica(self):
        return self.get("/troupe/v1/status").json()["replicas"][0]

    def idle(self):
        """True when no sequence is known to the replica, so that no block is held."""
        now = self.replica()
        return now["running"] == 0 and now["waiting"] == 0

    def metric(self, name, **labels):
        return metric(self.url, name, **labels)


def metric(url, name, **labels):
    """The sum of the samples of this name that carry these labels."""
    total = 0.0
    for line in httpx.get(url + "/metrics", timeout=PATIENCE_S).text.splitlines():
        if line.split("{")[0].split(" ")[0] == name:
            if all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
    return total


def events(response):
    """The JSON objects of a stream of server-sent events; the last one is "[DONE]" if it came."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield line[6:] if line[6:] == "[DONE]" else json.loads(line[6:])


def text_across(response, harm):
    """The text of a completion that is streamed, behind whose first part `harm` is called."""
    parts = events(response)
    text = next(parts)["choices"][0]["text"]
    harm()
    for part in parts:
        if part != "[DONE]":
            assert "choices" in part, part
            text += part["choices"][0]["text"]
    return text
