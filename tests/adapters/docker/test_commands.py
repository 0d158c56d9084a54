"""What Docker tells while it pulls an image, as old engines and new ones write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ds01d.adapters.docker.commands import DockerCommands
from ds01d.errors import EngineFailed
from simulation.unix_http import UnixHandler, UnixServer

LAYER = b'{"status":"Pulling fs layer","id":"c0ffee"}\n'


class Registry:
    """An engine that pulls: `told` is what it writes meanwhile."""

    def __init__(self, told: bytes) -> None:
        self.told = told


class Handler(UnixHandler[Registry]):
    def handle_call(self) -> None:
        self.read_body()
        body = b'{"ApiVersion":"1.41"}' if self.plain_path == "/version" else self.owner.told
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize(
    "failure",
    [
        b'{"errorDetail":{"message":"no space left on device"},"error":"no space left on device"}',
        b'{"errorDetail":{"message":"no space left on device"}}',  # `error` is deprecated
    ],
)
def test_a_pull_that_fails_midway_fails_for_dockers_reason(tmp_path: Path, failure: bytes) -> None:
    path = tmp_path / "docker.sock"
    server = UnixServer(path, Registry(LAYER + failure + b"\n"), Handler)
    server.run()
    hands = DockerCommands(f"unix://{path}", 2.0, pull_idle_s=60, pull_timeout_s=60)
    try:
        with pytest.raises(EngineFailed, match="no space left on device"):
            list(hands.pull_image("ghcr.io/lab/image:1"))
    finally:
        hands.close()
        server.end()
