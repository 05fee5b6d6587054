"""Ports for servers of tests and benches; Python alone, so that it serves where nothing is installed."""

import contextlib
import socket


def free_ports(count):
    """Ports that nobody listens at now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
