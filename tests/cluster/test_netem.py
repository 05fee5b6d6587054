"""The link emulator by itself: what it delays, loses, reorders and cuts, and that nothing is left of it."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from network import NETEM, Network, require_rights

require_rights()
PATIENCE_S = 20.0


@pytest.fixture(name="net")
def three_nodes():
    with Network(["a", "b", "c"], seed=7) as net:
        yield net


def bound(net, name, kind):
    with net.inside(name):
        made = socket.socket(socket.AF_INET, kind)
        made.bind((net.address(name), 0))
    made.settimeout(PATIENCE_S)
    return made


class Pipe:
    """Datagrams from one node to another."""

    def __init__(self, net, source, target):
        self.to = bound(net, target, socket.SOCK_DGRAM)
        self.to.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.at = self.to.getsockname()
        self.source = bound(net, source, socket.SOCK_DGRAM)

    def __enter__(self):
        # So that nothing waits for ARP later.
        self.source.sendto(b"", self.at)
        self.to.recv(1)
        return self

    def __exit__(self, *_):
        self.to.close()
        self.source.close()

    def send(self, numbers):
        for number in numbers:
            self.source.sendto(number.to_bytes(4, "little"), self.at)
            time.sleep(0.0001)

    def receive(self, limit_s):
        self.to.settimeout(limit_s)
        out = []
        try:
            while True:
                out.append(int.from_bytes(self.to.recv(64), "little"))
        except TimeoutError:
            return out


def test_bytes_arrive_whole_over_loss_delay_and_disorder(net):
    for command in ("delay 1ms", "loss 0.02", "reorder 0.05"):
        net(command)
    sent = os.urandom(1 << 20)
    got = bytearray()
    with bound(net, "b", socket.SOCK_STREAM) as server, bound(net, "a", socket.SOCK_STREAM) as client:
        server.listen()

        def receive():
            with server.accept()[0] as peer:
                peer.settimeout(PATIENCE_S)
                while piece := peer.recv(65536):
                    got.extend(piece)

        receiver = threading.Thread(target=receive)
        receiver.start()
        client.connect(server.getsockname())
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        receiver.join()
    assert got == sent
    _, lost, swallowed, reordered = map(int, net("count a b").split())
    assert lost > 0 and reordered > 0 and swallowed == 0


def test_a_cut_is_a_black_hole_until_it_heals(net):
    with Pipe(net, "a", "b") as pipe, Pipe(net, "a", "c") as other:
        net("cut a b")
        pipe.send([1])
        other.send([2])
        assert other.receive(0.3) == [2]
        # Nobody says that the way is closed: the frame is gone without a word.
        assert pipe.receive(0.1) == []
        net("heal")
        pipe.send([3])
        assert pipe.receive(0.3) == [3]
        net("cut a")
        other.send([4])
        assert other.receive(0.3) == []
    assert int(net("count a b").split()[2]) == 1


def test_one_direction_can_be_cut_alone(net):
    with Pipe(net, "a", "b") as pipe, Pipe(net, "b", "a") as back:
        net("deaf b a")
        pipe.send([1])
        back.send([2])
        assert pipe.receive(0.3) == [] and back.receive(0.3) == [2]


def test_a_delay_holds_every_frame(net):
    with Pipe(net, "a", "b") as pipe:
        began = time.monotonic()
        pipe.send([1])
        assert pipe.to.recv(64) and time.monotonic() - began < 0.2
        net("delay 250ms")
        began = time.monotonic()
        pipe.send([1])
        assert pipe.to.recv(64) and time.monotonic() - began >= 0.25


def test_loss_and_disorder_follow_the_seed():
    def run(seed):
        with Network(["a", "b"], seed) as net, Pipe(net, "a", "b") as pipe:
            net("loss 0.3")
            pipe.send(range(300))
            lost = pipe.receive(0.5)
            net("loss 0")
            net("reorder 0.3")
            pipe.send(range(300))
            return lost, pipe.receive(0.5)

    (kept, mixed), again, (other, _) = run(11), run(11), run(12)
    assert again[0] == kept and other != kept
    assert 150 < len(kept) < 270 and kept == sorted(kept)
    assert sorted(mixed) == list(range(300)) and mixed != sorted(mixed)


def test_what_is_wrong_is_said(net):
    for command in ("cut a nobody", "delay soon", "loss 2", "dance", "count a"):
        with pytest.raises(ValueError, match="error: "):
            net(command)


def test_a_machine_without_the_rights_says_the_mend():
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups"]
    done = subprocess.run([*unprivileged, NETEM, "--seed", "1", "a"], text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert "no network namespace" in done.stderr and "TROUPE_WITHOUT_NETWORK_TESTS=1" in done.stderr


def test_nothing_is_left_when_the_test_is_killed():
    script = ("import sys, time; from network import Network\n"
              "net = Network(['a'], 1); print(net._netem.pid, flush=True); time.sleep(60)")
    here = pathlib.Path(__file__).parent
    with subprocess.Popen([sys.executable, "-c", script], cwd=here, stdout=subprocess.PIPE, text=True) as process:
        netem = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    end = time.monotonic() + PATIENCE_S
    while pathlib.Path(f"/proc/{netem}").exists():
        assert time.monotonic() < end, "netem outlives what started it"
        time.sleep(0.02)
