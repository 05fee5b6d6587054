"""A cluster of several processes on this machine, each `troupe up FILE --node NAME`."""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import httpx

from frail import frail_program
from ports import free_ports
from troupe_process import PATIENCE_S, ROOT, TROUPE, clean_environment, eventually, metric

# What stages run on. They may share a GPU: to NCCL each is a machine of its own.
DEVICE = os.environ.get("TROUPE_DEVICE", "cpu")
ON_DEVICE = {} if DEVICE == "cpu" else {"kv_cache_memory_bytes": 1 << 28, "swap_space": 0}
# Texts of all devices are the same in float32.
ENVIRONMENT = {} if DEVICE == "cpu" else {"TROUPE_SET__models__bard__dtype": "float32"}
# A library that CUDA loads into a stage and that breaks the GPU for it (engine/exec/cuda/test_break.cpp).
BREAK = os.environ.get("TROUPE_BREAK")


class Process:
    """`troupe up` with its output; `popen` starts it elsewhere than here."""

    def __init__(self, file, *arguments, popen=subprocess.Popen, program=TROUPE, **environment):
        command = [str(program), "up", str(file), "--log-level", "warn", *map(str, arguments)]
        self.process = popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, env=clean_environment(**environment))
        self.output, self.complaints = [], []
        # The complaints again, each with the time when it was read.
        self.told = []
        for stream, lines in ((self.process.stdout, self.output),
                              (self.process.stderr, self.complaints)):
            threading.Thread(target=self._collect, args=(stream, lines), daemon=True).start()

    def _collect(self, stream, lines):
        for line in stream:
            lines.append(line)
            if lines is self.complaints:
                self.told.append((time.monotonic(), line))

    def find(self, pattern, lines=None):
        for line in list(self.output if lines is None else lines):
            found = re.search(pattern, line)
            if found:
                return found
        assert self.process.poll() is None, "ended early: " + "".join(self.output + self.complaints)
        return None

    def complained(self, pattern):
        return any(re.search(pattern, line) for line in list(self.complaints))

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)

    def wait(self, limit_s=PATIENCE_S):
        return self.process.wait(limit_s)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        text = "".join(self.complaints)
        assert "AddressSanitizer" not in text and "runtime error" not in text, text


class Globe:
    """A front and two stages with a replica of bard each, or as many replicas as the keys make; a
    context manager that starts all three. `break_device` breaks the device of a stage of a frail one."""

    def __init__(self, folder, stages=2, replicas=None, frail=False, environment=None, **keys):
        self.folder = folder
        self.environment = ENVIRONMENT if environment is None else environment
        self.program, self.of_node, self.device = TROUPE, {}, DEVICE
        if frail:
            self._make_frail()
        self.ports = free_ports(stages + 2)
        self.secret = folder / "globe.secret"
        self.secret.write_text("not for strangers\n" * 2)
        self.secret.chmod(0o600)
        self.stages = stages
        self.replicas = replicas or stages
        self.keys = keys
        self.file = self.write("cluster.json")
        self.nodes = {}
        self.url = None

    def _make_frail(self):
        if DEVICE == "cpu":
            self.program, caches = frail_program(self.folder)
            self.of_node = {f"stage{i}": {"TROUPE_SET__cache_directory": str(caches)} for i in (1, 2)}
            self.device, sign = "cuda:0", caches / "break"
        else:
            self.of_node = {"stage2": {"CUDA_INJECTION64_PATH": BREAK}}
            sign = pathlib.Path("/tmp/troupe-break-device")
        self.break_device = sign.touch

    def node(self, index):
        """What the file says of a node; 0 is the front."""
        made = {"name": f"stage{index}" if index else "front", "devices": [self.device] if index else [],
                "address": f"127.0.0.1:{self.ports[index]}"}
        if index == 0:
            made.update(router=True, edges={"http": {"port": 0}})
        return made

    def write(self, name, stages=None, **keys):
        stages = stages or self.stages
        file = self.folder / name
        file.write_text(json.dumps({
            "cluster": "globe", "secret_file": self.secret.name,
            "model_repository": str(ROOT / "examples/models"),
            # Sanitizers on a busy machine are slower than any node that lives.
            "wire": {"dead_after_s": 3},
            "nodes": [self.node(i) for i in range(stages + 1)],
            "models": {"bard": {"instances": stages, "cpu_threads": 1, **ON_DEVICE}}, **self.keys, **keys}))
        return file

    def start(self, name, file=None, *arguments):
        self.nodes[name] = Process(file or self.file, "--node", name, *arguments, program=self.program,
                                   NCCL_HOSTID=name, **self.environment, **self.of_node.get(name, {}))
        return self.nodes[name]

    def kill(self, name):
        """Ends a node's process, and waits until the front knows it."""
        self.nodes[name].kill()
        self.nodes[name].wait()
        return eventually(lambda: (row := self.seen(name))["state"] == "down" and row, f"{name} is down")

    def __enter__(self):
        try:
            for i in range(self.stages + 1):
                self.start(self.node(i)["name"])
            front = self.nodes["front"]
            self.url = eventually(lambda: front.find(r"http://[0-9.]+:\d+"), "an address").group(0)
            for name, process in self.nodes.items():
                eventually(lambda p=process: p.find("^ready"), f"{name} is ready")
            eventually(lambda: self.states("replicas") == ["ready"] * self.replicas, "all are ready")
        except BaseException:
            for process in self.nodes.values():
                process.process.kill()
            raise
        return self

    def __exit__(self, *_):
        for process in self.nodes.values():
            process.stop()

    def status(self):
        return httpx.get(self.url + "/troupe/v1/status", timeout=PATIENCE_S).json()

    def metric(self, name, **labels):
        """As the front shows it, of all replicas."""
        return metric(self.url, name, **labels)

    def states(self, what):
        return [row["state"] for row in self.status()[what]]

    def seen(self, name):
        """The row of a node as the front shows it, or an empty one."""
        return next((n for n in self.status()["nodes"] if n["name"] == name), {"state": "unknown"})

    def replica_on(self, name):
        return next((r for r in self.status()["replicas"] if r["node"] == name), {"state": "unknown"})

    def body(self, **fields):
        return {"model": "bard", "prompt": "ROMEO:", **fields}

    def complete(self, **fields):
        return httpx.post(self.url + "/v1/completions", json=self.body(**fields), timeout=PATIENCE_S)

    def stream(self, **fields):
        return httpx.stream("POST", self.url + "/v1/completions", timeout=PATIENCE_S,
                            json=self.body(stream=True, **fields))
