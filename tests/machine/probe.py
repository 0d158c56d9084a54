"""What a process may do in the sandbox of ds01d.service: run there by the distribution's Python.

Prints one JSON object. Takes nothing from the tests: it is copied into the machine.
"""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

WRITES = (
    *("/etc", "/usr", "/usr/lib/ds01d", "/opt", "/boot", "/run", "/srv", "/var/lib", "/var/log"),
    *("/var/cache", "/etc/ds01", "/var/lib/docker", "/dev", "/dev/shm", "/sys", "/proc/sys/kernel"),
    *("/var/lib/ds01", "/var/lib/ds01/container-metadata", "/var/log/ds01", "/var/lib/ds01d"),
)
OWN = ("/tmp", "/var/tmp", "/dev/shm")
READS = ("/home", "/home/alice/secret", "/root", "/proc/1/cgroup")
SOCKETS = {
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
    "inet": (socket.AF_INET, socket.SOCK_STREAM),
    "inet6": (socket.AF_INET6, socket.SOCK_DGRAM),
    "netlink": (socket.AF_NETLINK, socket.SOCK_RAW),
    "packet": (socket.AF_PACKET, socket.SOCK_RAW),
    "vsock": (socket.AF_VSOCK, socket.SOCK_STREAM),
}


def outcome(attempt: Callable[[], object]) -> str:
    """The name of the error, or "ok"."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def write(folder: str) -> None:
    """Make a file there, and remove it."""
    path = Path(folder, ".probe")
    path.write_text("probe")
    path.unlink()


def serve() -> None:
    """Listen on a loopback address, and connect to it."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname(), timeout=2):
            pass


def open_device(path: str) -> None:
    os.close(os.open(path, os.O_RDWR))


def become_root() -> None:
    os.setuid(0)


def open_socket(family: int, kind: int) -> None:
    socket.socket(family, kind).close()


def journal_is_seen() -> bool:
    """Whether files of the system's journal can be opened."""
    for root in ("/run/log/journal", "/var/log/journal"):
        for path in Path(root).glob("*/system.journal"):
            with contextlib.suppress(OSError):
                return bool(path.open("rb").read(8) == b"LPKSHHRH")
    return False


def look(path: str) -> None:
    """List a folder, or read a file."""
    place = Path(path)
    sorted(place.iterdir()) if place.is_dir() else place.read_bytes()


def status(*fields: str) -> list[str]:
    """Values of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return [line.split()[1] for line in lines if line.startswith(fields)]


found = {
    "uid": os.getuid(),
    "writes": {folder: outcome(partial(write, folder)) for folder in WRITES},
    "sockets": {name: outcome(partial(open_socket, *of)) for name, of in SOCKETS.items()},
    "serve": outcome(serve),
    "reads": {path: outcome(partial(look, path)) for path in READS},
    "of others": [str(path) for place in OWN for path in Path(place).iterdir()],
    "devices": {path: outcome(partial(open_device, path)) for path in sys.argv[1:]},
    "setuid": outcome(become_root),
    "unshare": subprocess.run(("unshare", "--user"), check=False, capture_output=True).returncode,
    "journal": journal_is_seen(),
    "capabilities": status("CapEff", "CapBnd"),
}
json.dump(found, sys.stdout)
