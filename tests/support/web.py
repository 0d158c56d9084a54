"""`ds01ctl web` as a process, and requests to it."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.daemon import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def request(where: int | Path, path: str = "/", *, method: str = "GET", **headers: str) -> Reply:
    """Ask a server at a port of 127.0.0.1 or a unix socket; `If_None_Match` for that header."""
    connection = (
        UnixConnection(where)
        if isinstance(where, Path)
        else http.client.HTTPConnection("127.0.0.1", where, timeout=60)
    )
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        reply = connection.getresponse()
        given: dict[str, Any] = {name.lower(): value for name, value in reply.getheaders()}
        return Reply(status=reply.status, headers=given, body=reply.read())
    finally:
        connection.close()


@contextmanager
def serving(
    config: Path, environment: Mapping[str, str], listen: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Run `ds01ctl web` until the end of the block; it serves when this begins."""
    listening = [f"--listen={listen}"] if listen else []
    command = [sys.executable, "-m", "ds01d.cli.ctl.main", "web", "--config", str(config)]
    with subprocess.Popen(
        [*command, *listening], env={**environment}, cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("serving "), line + process.stderr.read()
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()
