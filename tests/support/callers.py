"""Scripts that ask the booking service, each a process for which it reserves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

# What asks, as the drop-in does, in a tenth of its time; prints the reply, or an empty line.
_CLIENT: Final = """\
import _socket, json, sys
path, user = sys.argv[1:]
parameters = {"user": user, "process": True}
call = {"method": "io.github.ds01.Booking.Allocate", "parameters": parameters}
peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
data = b""
try:
    peer.connect(path)
    peer.send(json.dumps(call).encode() + b"\\0")
    while not data.endswith(b"\\0"):
        part = peer.recv(65536)
        if not part:
            break
        data += part
except OSError:
    data = b""
print(data[:-1].decode() if data.endswith(b"\\0") else "")
"""
_SCRIPT: Final = """\
ask() { text=$("$@"); echo "$text"; }
ask "$@"
while read -r _; do ask "$@"; done
"""


class Caller:
    """A script that asks for a slot at once, and again when it is told to, until it ends."""

    def __init__(self, folder: Path, socket: Path, user: str) -> None:
        script = folder / "caller"
        # Not as `bash -c`: that would be a line of this process. Nor written while others read it.
        if not script.exists():
            written = folder / f"caller-{id(self)}"
            written.write_text(_SCRIPT, encoding="utf-8")
            written.replace(script)
        words = [sys.executable, "-I", "-S", "-c", _CLIENT, str(socket), user]
        self.process = subprocess.Popen(
            ["bash", str(script), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.reply = self._read()

    @property
    def booking(self) -> dict[str, Any] | None:
        """What it was given."""
        given: dict[str, Any] | None = self.reply.get("parameters", {}).get("booking")
        return given

    def ask_again(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.reply = self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        reply: dict[str, Any] = json.loads(self.process.stdout.readline().strip() or "{}")
        return reply

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        self.process.communicate()
