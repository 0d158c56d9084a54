"""Calls of the booking service as other users: each a process of its own with that uid."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ds01d.service.client import INTERFACE

DAEMON, BIN = 1, 2
"""Two uids that every Debian has a login for: `daemon` and `bin`."""

_CALL = """\
import os, socket, sys
uid = int(sys.argv[3])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
peer.sendall(sys.argv[2].encode() + b"\\0")
reply = b""
while not reply.endswith(b"\\0") and (data := peer.recv(65536)):
    reply += data
print(reply.rstrip(b"\\0").decode())
"""


def call_as(uid: int, path: Path, method: str, **parameters: object) -> dict[str, Any]:
    """Make a call as `uid`, who is in no group; gives the reply, {} if there was none."""
    call = {"method": f"{INTERFACE}.{method}", "parameters": parameters}
    done = subprocess.run(
        [sys.executable, "-I", "-c", _CALL, str(path), json.dumps(call), str(uid)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    reply: dict[str, Any] = json.loads(done.stdout or "{}")
    return reply


def read_error(reply: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The short name of an error, and its parameters; "" for none."""
    return str(reply.get("error", "")).rpartition(".")[2], reply["parameters"]


@contextmanager
def public_socket() -> Iterator[Path]:
    """A path for a socket that every user can reach, and that is short enough for one."""
    with tempfile.TemporaryDirectory(prefix="ds01d-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "booking.sock"
