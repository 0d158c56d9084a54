"""Changes in Docker: images pulled, containers created, started, stopped and removed.

Only the container commands and the service use it; no pass does. Every call has its deadline.
Whatever fails is an `EngineFailed`, and what Docker refused with a message an `EngineRefused`.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import msgspec

from ds01d.adapters.docker.create_body import build_create_body, find_excess
from ds01d.adapters.docker.engine_info import read_info
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.docker.parsing import read_container
from ds01d.adapters.host.image_catalogue import REFERENCE
from ds01d.errors import EngineFailed, EngineRefused, Malformed, NoSuchContainer
from ds01d.model.confinement import Confinement
from ds01d.model.containers import Container
from ds01d.model.creation import Plan, Progress
from ds01d.model.primitives import ContainerId

# A change takes longer than a query: creating a container from a large image takes seconds.
_CHANGE_FACTOR = 6


class DockerCommands:
    """One engine. One thread may use it; `cancel_pull` and `close` are for any."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        *,
        pull_idle_s: float,
        pull_timeout_s: float,
    ) -> None:
        self._client = HttpClient(url, timeout_s)
        # A client of its own: a pull is cancelled while the other one asks what is left of it.
        self._puller = HttpClient(url, timeout_s)
        self._change_timeout_s = _CHANGE_FACTOR * timeout_s
        self._pull_idle_s, self._pull_timeout_s = pull_idle_s, pull_timeout_s

    @property
    def instance(self) -> str:
        """The process that gave the last answer; "" if that is not known."""
        return self._client.instance

    def cancel_pull(self) -> None:
        """Abort a pull in progress, and every later one."""
        self._puller.close()

    def close(self) -> None:
        """Break every connection."""
        self._client.close()
        self._puller.close()

    def find_container(self, reference: str) -> Container | None:
        """Inspect by name or ID. None only if Docker itself answers 404."""
        try:
            container = read_container(self._client.inspect(reference), default_runtime="")
        except NoSuchContainer:
            return None
        except Malformed as error:
            raise self._client.make_error(str(error)) from error
        # Docker takes the beginning of an ID for a name, but only if nothing has that name.
        return container if reference in {container.name, container.id} else None

    def read_binds(self, reference: str) -> tuple[str, ...]:
        """The folders of the host that a container mounts, as "/host:/inside[:options]"."""
        body = self._client.inspect(reference)
        return tuple(self._client.decode_answer(body, _InspectBinds, "inspect").host.binds or ())

    def find_excess(self, reference: str, confinement: Confinement) -> tuple[str, ...]:
        """What a container has beyond what `confinement` lets it have. Raises `NoSuchContainer`."""
        info = read_info(self._client.get("/info"))
        body = self._client.inspect(reference)
        try:
            return find_excess(body, confinement, default_runtime=info.default_runtime)
        except Malformed as error:
            raise self._client.make_error(str(error)) from error

    def remaps_users(self) -> bool:
        """The engine maps root in its containers to another user (userns-remap)."""
        return read_info(self._client.get("/info")).remaps_users

    def has_image(self, reference: str) -> bool:
        """The engine has the image."""
        try:
            self._client.get(f"/images/{quote(self._check_reference(reference), safe='/:@')}/json")
        except EngineRefused as refusal:
            if refusal.is_missing("image"):
                return False
            raise
        return True

    def pull_image(self, reference: str) -> Iterator[Progress]:
        """Pull an image, yielding its progress. Raises `EngineFailed`."""
        name = self._check_reference(reference)
        if "@" not in name and ":" not in name.rpartition("/")[2]:
            name += ":latest"  # without a tag Docker pulls every tag of the image
        layers: dict[str, tuple[int, int]] = {}
        for line in self._puller.pull_image(
            {"fromImage": name},
            opening_s=self._change_timeout_s,
            idle_s=self._pull_idle_s,
            total_s=self._pull_timeout_s,
        ):
            step = self._parse_step(line)
            progress = step.progress
            if step.layer and progress and progress.total and step.status == "Downloading":
                layers[step.layer] = (progress.current, progress.total)
            # A layer that was there already reports no size, and would jump the bar.
            elif step.layer in layers and step.status in {"Download complete", "Pull complete"}:
                layers[step.layer] = (layers[step.layer][1],) * 2
            yield Progress(
                done=sum(done for done, _ in layers.values()),
                total=sum(total for _, total in layers.values()),
                doing=step.status,
            )
        # The stream of a pull that was aborted ends without an error.
        if not self.has_image(reference):
            raise self._client.make_error("pull ended without the image and without an error")

    def create_container(self, plan: Plan) -> tuple[ContainerId, list[str]]:
        """Create a container; its ID, and what Docker warns of. Raises `EngineFailed`."""
        _, body = self._client.send(
            "POST",
            "/containers/create",
            {"name": plan.name},
            msgspec.json.encode(build_create_body(plan)),
            timeout_s=self._change_timeout_s,
        )
        created = self._client.decode_answer(body, _Created, "create")
        return ContainerId(created.id), created.warnings or []

    def start_container(self, container: ContainerId) -> None:
        """Start a container; no change if it runs."""
        self._send("POST", f"/containers/{container}/start")

    def stop_container(self, container: ContainerId, kill_after_s: int) -> bool:
        """Stop a container, by force after `kill_after_s`. False if it was stopped already."""
        status = self._send(
            "POST", f"/containers/{container}/stop", {"t": str(kill_after_s)}, kill_after_s
        )
        # 304: it was stopped already, and the stop is not ours to log.
        return status != 304

    def remove_container(self, container: ContainerId, *, force: bool) -> None:
        """Remove it with its anonymous volumes; no change if it does not exist."""
        try:
            self._send("DELETE", f"/containers/{container}", {"force": str(int(force)), "v": "1"})
        except NoSuchContainer:
            return

    def _send(
        self, method: str, path: str, params: dict[str, str] | None = None, extra_s: float = 0.0
    ) -> int:
        status, _ = self._client.send(
            method, path, params, timeout_s=self._change_timeout_s + extra_s
        )
        return status

    def _check_reference(self, reference: str) -> str:
        if not REFERENCE.fullmatch(reference):
            raise self._make_refusal(f"invalid image name {reference[:200]!a}")
        return reference

    def _parse_step(self, line: bytes) -> _PullStep:
        step = self._client.decode_answer(line, _PullStep, "pull")
        if failure := step.error or (step.error_detail and step.error_detail.message):
            raise self._make_refusal(failure)
        return step

    def _make_refusal(self, message: str) -> EngineFailed:
        return EngineRefused(str(self._client.make_error(message)), status=400, message=message)


class _PullProgress(msgspec.Struct):
    current: int = 0
    total: int = 0


class _ErrorDetail(msgspec.Struct):
    message: str = ""


class _PullStep(msgspec.Struct):
    status: str = ""
    layer: str = msgspec.field(name="id", default="")
    progress: _PullProgress | None = msgspec.field(name="progressDetail", default=None)
    error: str = ""  # deprecated from API 1.48 on (moby, api/docs/CHANGELOG.md)
    error_detail: _ErrorDetail | None = msgspec.field(name="errorDetail", default=None)


class _HostBinds(msgspec.Struct):
    binds: list[str] | None = msgspec.field(name="Binds", default=None)


class _InspectBinds(msgspec.Struct):
    host: _HostBinds = msgspec.field(name="HostConfig", default_factory=_HostBinds)


class _Created(msgspec.Struct):
    id: str = msgspec.field(name="Id")
    warnings: list[str] | None = msgspec.field(name="Warnings", default=None)
