"""Ports of loopback that nobody else is given."""

import socket


def hold_port(host: str = "127.0.0.1") -> socket.socket:
    """A socket bound to a port that no connection gets, and nobody who asks for any port.

    A server that sets SO_REUSEADDR, as nearly all do, can listen there as long as this is open.
    """
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((host, 0))
    return holder


def find_free_port(host: str = "127.0.0.1") -> int:
    """A port of this address on which nobody listens, held until this process ends."""
    # Between a look and its use any connection of this machine could get it.
    holder = hold_port(host)
    port = int(holder.getsockname()[1])
    holder.detach()  # stays open, and nobody is warned of it
    return port
