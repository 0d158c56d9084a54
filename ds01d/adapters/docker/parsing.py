"""Docker's JSON, understood: rows of the list, inspect answers, events, and the engine itself.

Pure: bytes come in, facts go out, or `Malformed` for bytes that are not what Docker writes. It asks
nobody and remembers nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TypeVar

import msgspec

from ds01d.adapters.docker.gpu_claims import Mount
from ds01d.adapters.docker.gpu_request import HostConfig, is_nvidia_runtime, read_request
from ds01d.errors import Malformed
from ds01d.model.containers import Container, State
from ds01d.model.primitives import ContainerId, ContainerName, Wall

T = TypeVar("T")

# The events that change what a container is, or that it is. Others are noise, `exec_*` above all.
ACTIONS = (
    "create",
    "destroy",
    "die",
    "oom",
    "pause",
    "rename",
    "restart",
    "start",
    "stop",
    "unpause",
    "update",
)
# Podman's words for two of them (4.3; libpod/events): it has no `destroy` of a container.
_ELSEWHERE = {"remove": "destroy", "died": "die"}
EVENT_FILTER = (*ACTIONS, *_ELSEWHERE)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FULL_ID = re.compile(r"[0-9a-f]{64}")
_STATES = {state.value: state for state in State}
_LONGEST_LABEL = 1024
_LONGEST_NAME = 1024
_NOT_LABELS = frozenset(("image", "name", "oldName", "exitCode", "execDuration", "signal"))


class ContainerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A container as the list shows it. `status` is Docker's sentence for people, with an age.

    A struct of msgspec, made in half the time of a dataclass: each sweep makes one per container.
    """

    id: ContainerId
    name: ContainerName
    state: State
    status: str
    labels: Mapping[str, str]
    created: Wall


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEvent:
    """Something that happened to a container, as the engine told it. `at` is the engine's clock."""

    action: str
    id: ContainerId
    name: ContainerName | None = None
    old_name: ContainerName | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    at: Wall
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """The engine about itself.

    `id`: "" where it does not say. `image_store`: what keeps images where the storage driver does
    not, "" where it does. `time`: the engine's clock, None where it does not say.
    `nvidia_runtimes`: names under which it runs NVIDIA's runtime.
    """

    id: str
    root_dir: str
    default_runtime: str
    driver: str = ""
    image_store: str = ""
    time: Wall | None = None
    nvidia_runtimes: frozenset[str] = frozenset()


def read_rows(body: bytes) -> list[ContainerRow]:
    """The answer of the list. One row that makes no sense spoils it: a list has all, or is none."""
    return [
        ContainerRow(
            id=_container_id(row.id),
            name=_name_among(row.names or (), row.id),
            state=_state(row.state),
            status=row.status,
            labels=_bounded(row.labels or {}),
            created=Wall(row.created),
        )
        for row in _decoded(body, list[_Row], "the list of containers")
    ]


def read_container(
    body: bytes, *, default_runtime: str, nvidia_runtimes: frozenset[str] = frozenset()
) -> Container:
    """An inspect answer; of the engine, its default runtime and its names for NVIDIA's."""
    seen = _decoded(body, _Inspect, "an inspect answer")
    container_id = _container_id(seen.id)
    return Container(
        id=container_id,
        name=_name(seen.name, container_id) or ContainerName(container_id),
        state=_state(seen.state.status),
        labels=_bounded(seen.config.labels or {}),
        request=read_request(
            seen.host_config,
            seen.config.env or (),
            default_runtime=default_runtime,
            nvidia_runtimes=nvidia_runtimes,
            mounts=seen.mounts or (),
        ),
        privileged=bool(seen.host_config.privileged),
        image=seen.config.image or "",
        created=read_time(seen.created),
        started=read_time(seen.state.started_at),
        finished=read_time(seen.state.finished_at),
    )


def read_event(line: bytes) -> EngineEvent | None:
    """One line of the stream; None for what is not about a container."""
    told = _decoded(line, _Event, "an event")
    if told.type != "container":
        return None
    about = told.actor.attributes or {}
    code, container_id = about.get("exitCode", ""), _container_id(told.actor.id)
    return EngineEvent(
        action=_ELSEWHERE.get(told.action, told.action),
        id=container_id,
        name=_name(about.get("name"), container_id),
        old_name=_name(about.get("oldName"), container_id),
        labels=_bounded({key: value for key, value in about.items() if key not in _NOT_LABELS}),
        at=Wall(told.time_nano / 1e9 if told.time_nano else told.time),
        exit_code=int(code) if re.fullmatch(r"-?[0-9]{1,10}", code) else None,
    )


def _bounded(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Without what is too long to mean anything here: a label may hold megabytes.

    One that is cut would name somebody else; one that is left out names nobody.
    """
    if sum(map(len, labels.values())) <= _LONGEST_LABEL:
        return labels
    return {key: value for key, value in labels.items() if len(value) <= _LONGEST_LABEL}


def event_time(line: bytes) -> Wall:
    """When an event of any type happened, on the engine's clock."""
    told = _decoded(line, _Stamp, "an event")
    return Wall(told.time_nano / 1e9 if told.time_nano else told.time)


def read_info(body: bytes) -> EngineInfo:
    """The answer of /info."""
    told = _decoded(body, _Info, "what the engine says of itself")
    runtimes = told.runtimes or {}
    nvidia = (n for n, r in runtimes.items() if r is not None and is_nvidia_runtime(r.path or ""))
    return EngineInfo(
        id=told.id or "",
        root_dir=told.root_dir,
        default_runtime=told.default_runtime or "",
        driver=told.driver or "",
        image_store=_image_store(told.driver_status),
        time=read_time(told.system_time),
        nvidia_runtimes=frozenset(nvidia),
    )


def _image_store(driver_status: object) -> str:
    """Of the pairs that describe the driver, the one that names containerd's image store.

    `[["driver-type", "io.containerd.snapshotter.v1"]]` with Docker's containerd image store (the
    default from 29 on); a storage driver of Docker's own has no such pair.
    """
    for pair in driver_status if isinstance(driver_status, list) else ():
        if isinstance(pair, list) and len(pair) == 2 and pair[0] == "driver-type":
            return str(pair[1])
    return ""


def read_time(text: str | None) -> Wall | None:
    """A time as Docker writes it; None for none, which it writes as year 1."""
    try:
        when = msgspec.convert(text, datetime)
        if when.tzinfo is None or when.year <= 1:
            return None
        return Wall(when.astimezone(timezone.utc).timestamp())
    except (msgspec.ValidationError, OverflowError, ValueError):
        return None


class _Row(msgspec.Struct, rename="pascal"):
    id: str
    state: str
    created: int
    names: list[str] | None = None
    status: str = ""
    labels: dict[str, str] | None = None


class _State(msgspec.Struct, rename="pascal"):
    status: str
    started_at: str | None = None
    finished_at: str | None = None


class _Config(msgspec.Struct, rename="pascal"):
    env: list[str] | None = None
    labels: dict[str, str] | None = None
    image: str | None = None


class _Inspect(msgspec.Struct, rename="pascal"):
    id: str
    name: str
    state: _State
    config: _Config
    host_config: HostConfig
    mounts: list[Mount] | None = None
    created: str | None = None


class _Actor(msgspec.Struct):
    id: str = msgspec.field(name="ID")
    attributes: dict[str, str] | None = msgspec.field(name="Attributes", default=None)


class _Stamp(msgspec.Struct):
    time: int = 0
    time_nano: int = msgspec.field(name="timeNano", default=0)


class _Event(_Stamp, kw_only=True):
    type: str = msgspec.field(name="Type")
    action: str = msgspec.field(name="Action")
    actor: _Actor = msgspec.field(name="Actor")


class _Runtime(msgspec.Struct):
    path: str | None = None


class _Info(msgspec.Struct):
    root_dir: str = msgspec.field(name="DockerRootDir")
    id: str | None = msgspec.field(name="ID", default=None)
    default_runtime: str | None = msgspec.field(name="DefaultRuntime", default=None)
    driver: str | None = msgspec.field(name="Driver", default=None)
    driver_status: object = msgspec.field(name="DriverStatus", default=None)
    system_time: str | None = msgspec.field(name="SystemTime", default=None)
    runtimes: dict[str, _Runtime | None] | None = msgspec.field(name="Runtimes", default=None)


def _decoded(body: bytes, form: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"{what} is not what Docker writes: {error}") from error


def _container_id(text: str) -> ContainerId:
    if not _ID.fullmatch(text):
        raise Malformed(f"{text[:80]!a} is no container id")
    return ContainerId(text)


def _state(text: str) -> State:
    state = _STATES.get(text)
    if state is None:
        raise Malformed(f"a container is in a state unknown to us: {text[:80]!a}")
    return state


def _name_among(names: list[str] | tuple[()], container_id: str) -> ContainerName:
    """The container's own name; those with another slash are links from other containers."""
    for name in names:
        own = name.removeprefix("/")
        if own and "/" not in own and (known := _name(own, container_id)) is not None:
            return known
    return ContainerName(container_id)


def _name(text: str | None, container_id: str) -> ContainerName | None:
    """As people write it: inspect, the list and `oldName` have a slash before it.

    Docker takes names of nearly a megabyte, and ten such bookings would make a state that nobody
    reads. Such a container is called by its ID, which Docker knows it by as well; and so is one
    whose name may be another's ID.
    """
    if not text:
        return None
    name = text.removeprefix("/")
    usable = len(name) <= _LONGEST_NAME and _FULL_ID.fullmatch(name) is None
    return ContainerName(name if usable else container_id)
