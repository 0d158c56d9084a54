"""Ports of loopback."""

import socket


def find_free_port() -> int:
    """A port on which nobody listens now; somebody may before it is used."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
