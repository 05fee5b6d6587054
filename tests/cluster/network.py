"""Nodes in network namespaces of their own, joined by `netem`, which tests can tell to cut, delay, lose and reorder."""

import contextlib
import ctypes
import os
import pathlib
import subprocess
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NETEM = os.environ.get("TROUPE_NETEM", str(ROOT / "build/dev/bin/netem"))
CLONE_NEWNET = 0x40000000
# UCX finds its devices in /sys, which shows those of the namespace that mounted it.
ENTER = 'mount -t sysfs sysfs /sys && exec "$@"'
LIBC = ctypes.CDLL(None, use_errno=True)


def require_rights():
    """Leaves the calling module out where the operator said so; otherwise a lack of rights is a failure."""
    if os.environ.get("TROUPE_WITHOUT_NETWORK_TESTS") == "1":
        pytest.skip("TROUPE_WITHOUT_NETWORK_TESTS=1", allow_module_level=True)


class Network:
    """A context manager. What it made ends with it, and with the process if that is killed."""

    def __init__(self, names, seed):
        self.names, self.seed = list(names), seed
        self.commands = []
        self._spaces, self._addresses, self._processes = {}, {}, []
        self._lock = threading.Lock()
        self._netem = subprocess.Popen([NETEM, "--seed", str(seed), *self.names], text=True, bufsize=1,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for line in self._netem.stdout:
            words = line.split()
            if words == ["ready"]:
                return
            _, name, pid, descriptor, address = words
            self._spaces[name] = f"/proc/{pid}/fd/{descriptor}"
            self._addresses[name] = address
        self._netem.wait()
        raise RuntimeError(self._netem.stderr.read().strip())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for process in self._processes:
            process.wait()
        self._netem.stdin.close()
        self._netem.wait(30)
        complaints = self._netem.stderr.read()
        self._netem.stdout.close()
        self._netem.stderr.close()
        assert self._netem.returncode == 0, complaints

    def __call__(self, command):
        """Tells the switch something, e.g. "cut a b"; see netem/main.cpp."""
        with self._lock:
            self.commands.append(command)
            self._netem.stdin.write(command + "\n")
            answer = self._netem.stdout.readline().strip()
        if not answer or answer.startswith("error"):
            raise ValueError(f"netem, '{command}': {answer or 'it has ended'}")
        return answer

    def address(self, name):
        return self._addresses[name]

    def popen(self, name, command, **options):
        """Starts a process in the namespace of a node. It keeps its id, so that a signal meets it."""
        inside = ["nsenter", f"--net={self._spaces[name]}", "unshare", "--mount", "sh", "-c", ENTER, "sh"]
        process = subprocess.Popen([*inside, *map(str, command)], **options)
        self._processes.append(process)
        return process

    @contextlib.contextmanager
    def inside(self, name):
        """Sockets that this thread makes meanwhile are those of the node."""
        with open("/proc/thread-self/ns/net", encoding="ascii") as outside:
            with open(self._spaces[name], encoding="ascii") as space:
                _enter(space)
            try:
                yield
            finally:
                _enter(outside)


def _enter(space):
    if LIBC.setns(space.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace cannot be entered")
