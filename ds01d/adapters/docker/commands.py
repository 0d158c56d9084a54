"""Docker, as one who changes something: images pulled, containers created, started, removed.

Only the container commands use it; the daemon never does. Every call has its deadline. Whatever
fails is an `EngineFailed`, and what Docker refused in so many words an `EngineRefused`.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import msgspec

from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.docker.parsing import read_container
from ds01d.adapters.host.image_catalogue import REFERENCE
from ds01d.errors import EngineFailed, EngineRefused, Malformed, NoSuchContainer
from ds01d.model.containers import Container
from ds01d.model.creation import Plan, Progress, Setup
from ds01d.model.primitives import ContainerId

# Work takes longer than an answer: of a large image, a container is created in seconds.
_WORK = 6
_IDLE_S = 15.0


class DockerCommands:
    """One engine. One thread may use it; `give_up_pulling` and `close` are for any."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._client = HttpClient(url, timeout_s)
        self._puller = HttpClient(url, timeout_s)
        self._work_s = _WORK * timeout_s

    @property
    def instance(self) -> str:
        """The process that gave the last answer; "" if that is not known."""
        return self._client.instance

    def give_up_pulling(self) -> None:
        """End a pull, now and from now on."""
        self._puller.close()

    def close(self) -> None:
        """Break every connection."""
        self._client.close()
        self._puller.close()

    def find(self, reference: str) -> Container | None:
        """Inspect by name or id. None only if Docker itself says 404."""
        try:
            container = read_container(self._client.inspect(reference), default_runtime="")
        except NoSuchContainer:
            return None
        except Malformed as error:
            raise self._client.make_error(str(error)) from error
        # Docker takes the beginning of an id for a name, but only if nothing has that name.
        return container if reference in {container.name, container.id} else None

    def binds(self, reference: str) -> tuple[str, ...]:
        """The folders of the host that a container mounts, as "/host:/inside[:options]"."""
        try:
            seen = msgspec.json.decode(self._client.inspect(reference), type=_Mounted)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._client.make_error(f"an inspect answer is invalid: {error}") from error
        return tuple(seen.host.binds or ())

    def has_image(self, reference: str) -> bool:
        """Whether the engine has the image already."""
        try:
            self._client.get(f"/images/{_path(self._checked(reference))}/json")
        except EngineRefused as refusal:
            if refusal.status == 404 and "no such image" in refusal.message.lower():
                return False
            raise
        return True

    def pull(self, reference: str) -> Iterator[Progress]:
        """Fetch an image, telling how far it is."""
        name = self._checked(reference)
        if "@" not in name and ":" not in name.rpartition("/")[2]:
            name += ":latest"  # Docker would fetch every tag there is.
        layers: dict[str, tuple[int, int]] = {}
        for line in self._puller.pull_image(
            {"fromImage": name}, idle_s=_IDLE_S, opening_s=max(_IDLE_S, self._work_s)
        ):
            try:
                told = msgspec.json.decode(line, type=_Told)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise self._client.make_error(f"a pull tells nonsense: {error}") from error
            if failure := told.error or (told.detail and told.detail.message):
                raise self._refused(failure)
            part = told.part
            if told.layer and part is not None and part.total and told.doing == "Downloading":
                layers[told.layer] = (part.current, part.total)
            elif told.layer in layers and told.doing in {"Download complete", "Pull complete"}:
                layers[told.layer] = (layers[told.layer][1],) * 2
            yield Progress(
                done=sum(done for done, _ in layers.values()),
                total=sum(total for _, total in layers.values()),
                doing=told.doing,
            )
        # A pull that is cut off ends without a word.
        if not self.has_image(reference):
            raise self._client.make_error("it did not say why the image is not there")

    def create(self, plan: Plan) -> ContainerId:
        """Create a container."""
        _, body = self._client.send(
            "POST",
            "/containers/create",
            {"name": plan.name},
            msgspec.json.encode(_document(plan)),
            timeout_s=self._work_s,
        )
        try:
            return ContainerId(msgspec.json.decode(body, type=_Created).id)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._client.make_error(f"it created something unknown: {error}") from error

    def start(self, container: ContainerId) -> None:
        """Start a container; nothing happens if it runs."""
        self._send("POST", f"/containers/{container}/start")

    def stop(self, container: ContainerId, patience_s: int) -> bool:
        """Stop a container, by force after `patience_s`. Whether it ran until now."""
        status = self._send(
            "POST", f"/containers/{container}/stop", {"t": str(patience_s)}, patience_s
        )
        return status != 304

    def remove(self, container: ContainerId, *, force: bool) -> None:
        """Remove it with its anonymous volumes; nothing happens if it is gone."""
        try:
            self._send("DELETE", f"/containers/{container}", {"force": str(int(force)), "v": "1"})
        except NoSuchContainer:
            return

    def _send(
        self, method: str, path: str, params: dict[str, str] | None = None, more_s: float = 0.0
    ) -> int:
        status, _ = self._client.send(method, path, params, timeout_s=self._work_s + more_s)
        return status

    def _checked(self, reference: str) -> str:
        if not REFERENCE.fullmatch(reference):
            raise self._refused(f"{reference[:200]!a} is no name that an image can have")
        return reference

    def _refused(self, words: str) -> EngineFailed:
        return EngineRefused(str(self._client.make_error(words)), status=400, message=words)


class _Part(msgspec.Struct):
    current: int = 0
    total: int = 0


class _Detail(msgspec.Struct):
    message: str = ""


class _Told(msgspec.Struct):
    doing: str = msgspec.field(name="status", default="")
    layer: str = msgspec.field(name="id", default="")
    part: _Part | None = msgspec.field(name="progressDetail", default=None)
    error: str = ""  # deprecated from API 1.48 on (moby, api/docs/CHANGELOG.md)
    detail: _Detail | None = msgspec.field(name="errorDetail", default=None)


class _Host(msgspec.Struct):
    binds: list[str] | None = msgspec.field(name="Binds", default=None)


class _Mounted(msgspec.Struct):
    host: _Host = msgspec.field(name="HostConfig", default_factory=_Host)


class _Created(msgspec.Struct):
    id: str = msgspec.field(name="Id")


def _path(reference: str) -> str:
    return quote(reference, safe="/:@")


def _document(plan: Plan) -> dict[str, object]:
    """As `docker run -dit` asks for a container: a shell in it waits for whoever attaches."""
    setup = plan.setup
    document: dict[str, object] = {
        "Image": plan.image,
        "Labels": dict(plan.labels),
        "Tty": True,
        "OpenStdin": True,
        "HostConfig": _host(setup) | _request(plan),
    }
    if not plan.devices:
        # Where NVIDIA's runtime is the default, an image would have all GPUs for the asking.
        document["Env"] = ["NVIDIA_VISIBLE_DEVICES=void"]
    if setup.command:
        document["Cmd"] = list(setup.command)
    if setup.user:
        document["User"] = setup.user
    return document


def _host(setup: Setup) -> dict[str, object]:
    host: dict[str, object] = {"Binds": list(setup.mounts)}
    if setup.network:
        host["NetworkMode"] = setup.network
    if setup.ipc:
        host["IpcMode"] = setup.ipc
    if setup.shm_bytes:
        host["ShmSize"] = setup.shm_bytes
    return host


def _request(plan: Plan) -> dict[str, object]:
    """The devices by their UUIDs; a container without any asks for none."""
    if not plan.devices:
        return {}
    wanted = {
        "Driver": "",
        "Count": 0,
        "DeviceIDs": list(plan.devices),
        "Capabilities": [["gpu"]],
        "Options": {},
    }
    return {"DeviceRequests": [wanted]}
