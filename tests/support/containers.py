"""The container commands as processes, on a site in front of a real engine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import secrets
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from ds01d.adapters.files.file_lock import Lock
from ds01d.adapters.host.callers import look_up_person
from ds01d.cli.base.context import host_environment
from ds01d.cli.ctl.main import main as ds01ctl
from ds01d.model.creation import Caller
from simulation.engine import IMAGE, PrivateEngine
from simulation.proxy import Proxy
from tests.support.daemon import ROOT, Site

CATALOGUE = f"""\
[container]
command = ["sleep", "600"]

[[image]]
framework = "pytorch"
version = "2.5.0"
image = "{IMAGE}"

[[image]]
framework = "pytorch"
version = "2.10.0"
architecture = "CUDA_BLACKWELL"
image = "{IMAGE}"

[[image]]
framework = "tensorflow"
version = "2.16.1"
architecture = "CUDA_ADA"
image = "localhost:1/not/there:1"
"""
UID = 1001
PATIENT: Mapping[str, Mapping[str, object]] = {
    "docker": {"timeout": "5s"},
    "books": {"lock_timeout": "10s"},
    "daemon": {"sweep_interval": "5s"},
}
"""For commands that are to succeed: an engine on a busy machine is no engine that is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


class Yard:
    """A site with a catalogue, and a proxy before its engine. uid 1001 calls, behind sudo."""

    def __init__(
        self,
        folder: Path,
        engine: PrivateEngine,
        proxy: Proxy | None = None,
        *,
        pulls: Mapping[str, str] | None = None,
        **tables: Any,
    ) -> None:
        """Without a proxy: straight to the engine. `pulls`: keys of [containers]."""
        self.engine, self._proxy = engine, proxy
        catalogue = folder / "frameworks.toml"
        catalogue.write_text(CATALOGUE, encoding="utf-8")
        containers = {"frameworks": str(catalogue), **(pulls or {})}
        self.site = Site(folder, (proxy or engine).url, containers=containers, **tables)
        self.site.configure(**PATIENT)
        self.catalogue = catalogue
        limits = self.site.limits.read_text(encoding="utf-8")
        most = limits.replace("priority: 1}", "priority: 1, max_mig_instances: 2}")
        self.site.limits.write_text(most, encoding="utf-8")

    @property
    def proxy(self) -> Proxy:
        assert self._proxy is not None
        return self._proxy

    def command(self, *words: str) -> list[str]:
        """What starts a command: "create", … for `container-create …`."""
        return [sys.executable, "-m", "ds01d.cli.ctl.main", "container", *words]

    def env(self, uid: int | None = UID) -> dict[str, str]:
        """Its environment; uid None: plain root."""
        own = {} if uid is None else {"SUDO_UID": str(uid)}
        known = {key: value for key, value in self.site.environment().items() if key != "SUDO_UID"}
        return known | own

    def call(self, *words: str, uid: int | None = UID) -> Done:
        """Run a command to its end, in this process, without a terminal, as root for `uid`."""
        who = Caller(person=look_up_person(uid or 0), root=True)
        return self._call(words, who)

    def call_as(self, uid: int, *words: str) -> Done:
        """The same as a user who is not root."""
        return self._call(words, Caller(person=look_up_person(uid), root=False))

    def _call(self, words: Sequence[str], caller: Caller) -> Done:
        result = CliRunner().invoke(
            ds01ctl,
            ["--config", str(self.site.config), "container", *words],
            obj=replace(host_environment(), find_caller=lambda: caller),
        )
        unexpected = result.exception
        if unexpected is not None and not isinstance(unexpected, SystemExit):
            raise unexpected
        return Done(returncode=result.exit_code, stdout=result.stdout, stderr=result.stderr)

    def run(self, *words: str) -> Done:
        """The same in a process of its own."""
        with self.begun(*words) as running:
            stdout, stderr = running.communicate(timeout=60)
        return Done(returncode=running.returncode, stdout=stdout, stderr=stderr)

    @contextmanager
    def begun(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Start a command, to be interrupted; it is killed if it is still there at the end."""
        with subprocess.Popen(
            self.command(*words),
            env=self.env(),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as running:
            try:
                yield running
            finally:
                running.kill()

    def listed(self, *words: str, uid: int | None = UID) -> list[dict[str, Any]]:
        """What `container-list --json` has."""
        answer = self.call("list", "--json", *words, uid=uid)
        assert answer.returncode == 0, answer.stderr
        found: list[dict[str, Any]] = json.loads(answer.stdout)["containers"]
        return found

    def shown(self) -> str:
        """What the dashboard and the allocator show of the slots."""
        return "\n".join(
            subprocess.run(
                [sys.executable, "-m", *words],
                env=self.env(None),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout
            for words in (
                ["ds01d.cli.dashboard.main", "--once"],
                ["ds01d.cli.allocator.main", "status"],
            )
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the books."""
        with Lock(Path(f"{self.site.state}.lock"), 5):
            yield

    def outcomes(self, name: str) -> list[tuple[str, str]]:
        """Operation and status of a container's lines in the operations log, not its bookings'."""
        bookings = {"allocate", "release", "mark-stopped"}
        lines = self.site.operation_lines(name)
        return [(line[0], line[4]) for line in lines if line[0] not in bookings]

    def left_of(self, name: str) -> Mapping[str, object]:
        """What there is of a container, by every source that tells; {} for nothing."""
        rows = self.engine.client.containers(all=True)
        names = {row.lstrip("/") for one in rows for row in one["Names"]}
        status = self.site.state.read_text(encoding="utf-8")
        found = {
            "docker": name in names,
            "state": name in status,
            "metadata": self.site.record(name),
            "counters": [slot for slot in self.site.read_state()["gpus"] if self.site.users(slot)],
        }
        return {source: told for source, told in found.items() if told}


class Registry:
    """A registry of one image, on a port of this host, from which an engine can pull it."""

    def __init__(self, engine: PrivateEngine, *, hangs: bool = False, cuts: bool = False) -> None:
        """`hangs`: before the last byte of the layer; `cuts`: there, each time."""
        layer = _layer(engine)
        over = self._over = threading.Event()
        config = _json(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["sleep", "600"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(layer))]},
            }
        )
        kinds = "application/vnd.docker."
        self._manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": f"{kinds}distribution.manifest.v2+json",
                "config": _blob(f"{kinds}container.image.v1+json", config),
                "layers": [_blob(f"{kinds}image.rootfs.diff.tar.gzip", layer)],
            }
        )
        blobs = {_digest(blob): blob for blob in (layer, config)}
        manifest = self._manifest

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Containerd's image store tries TLS first, and again without only after an HTTP error.
            default_request_version = "HTTP/1.1"

            def do_GET(self) -> None:
                *_, kind, what = ["", *self.path.strip("/").split("/")]
                body, media = b"{}", "application/json"
                if kind == "manifests" and what not in {"1", _digest(manifest)}:
                    self.send_error(404)
                    return
                if kind == "manifests":
                    body, media = manifest, f"{kinds}distribution.manifest.v2+json"
                elif kind == "blobs":
                    body, media = blobs[what], "application/octet-stream"
                self.send_response(200)
                self.send_header("Content-Type", media)
                self.send_header("Docker-Content-Digest", _digest(body))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "GET":
                    return
                if body is layer and (hangs or cuts):
                    self.wfile.write(body[:-1])
                    self.wfile.flush()
                    if hangs:
                        over.wait(60)
                    self.close_connection = True
                    return
                self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - as http.server wants it

            def log_message(self, *_: object) -> None:
                """Keep still."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.image = f"127.0.0.1:{self._server.server_port}/test/pulled:1"
        self.digest = _digest(manifest)

    def __enter__(self) -> Registry:  # noqa: PYI034 - typing has no Self in Python 3.10
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


def _layer(engine: PrivateEngine) -> bytes:
    """The test image as it lies in the engine, as a layer."""
    saved = b"".join(engine.client.get_image(IMAGE))
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        listed = archive.extractfile("manifest.json")
        assert listed is not None
        (name,) = json.loads(listed.read())[0]["Layers"]
        layer = archive.extractfile(name)
        assert layer is not None
        data = layer.read()
    if data.startswith(b"\x1f\x8b"):  # as containerd's image store keeps it
        data = gzip.decompress(data)
    # An engine that has a layer does not fetch it again.
    with io.BytesIO(data) as file:
        with tarfile.open(fileobj=file, mode="a") as archive:
            archive.addfile(tarfile.TarInfo(f"pulled-{secrets.token_hex(8)}"))
        return gzip.compress(file.getvalue(), 1, mtime=0)


def _blob(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(data), "digest": _digest(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(document: object) -> bytes:
    return json.dumps(document).encode()
