"""Docker's JSON parsed: rows of the list, inspect answers and events.

Pure: bytes come in, facts go out, or `Malformed` for bytes that are not what Docker writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from ds01d.adapters.docker.decoding import decode_answer, parse_time
from ds01d.adapters.docker.gpu_claims import MountPoint
from ds01d.adapters.docker.gpu_request import HostConfig, read_request
from ds01d.adapters.docker.home_folders import find_homes
from ds01d.errors import Malformed
from ds01d.model.containers import Container, State
from ds01d.model.primitives import ContainerId, ContainerName, Wall

# The events after which a container's facts may have changed. Others, `exec_*` above all, do not
# matter and are very many.
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
# Podman's names for two of them (4.3; libpod/events): it has no `destroy` of a container.
_PODMAN_ACTIONS = {"remove": "destroy", "died": "die"}
EVENT_FILTER = (*ACTIONS, *_PODMAN_ACTIONS)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FULL_ID = re.compile(r"[0-9a-f]{64}")
_STATES = {state.value: state for state in State}
_MAX_LABEL_LENGTH = 1024
_MAX_NAME_LENGTH = 1024
_NOT_LABELS = frozenset(("image", "name", "oldName", "exitCode", "execDuration", "signal"))


class ContainerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A container as the list shows it. `status` is Docker's text for people, with an age."""

    # A struct of msgspec is made in half the time of a dataclass, and a sweep makes one for each
    # container.

    id: ContainerId
    name: ContainerName
    state: State
    status: str
    labels: Mapping[str, str]
    created: Wall


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEvent:
    """One event about a container. `at` is on the engine's clock."""

    action: str
    id: ContainerId
    name: ContainerName | None = None
    old_name: ContainerName | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    at: Wall
    exit_code: int | None = None


def read_rows(body: bytes) -> list[ContainerRow]:
    """The rows of a list. Raises `Malformed`, also for one invalid row."""
    # A list without the invalid row would look as if that container were gone.
    return [
        ContainerRow(
            id=_parse_id(row.id),
            name=_choose_name(row.names or (), row.id),
            state=_parse_state(row.state),
            status=row.status,
            labels=_drop_long_labels(row.labels or {}),
            created=Wall(row.created),
        )
        for row in decode_answer(body, list[_Row], "list of containers")
    ]


def read_container(
    body: bytes, *, default_runtime: str, nvidia_runtimes: frozenset[str] = frozenset()
) -> Container:
    """The container of an inspect answer. Raises `Malformed`.

    `default_runtime` and `nvidia_runtimes` as the engine's /info has them.
    """
    answer = decode_answer(body, _Inspect, "inspect")
    container_id = _parse_id(answer.id)
    labels, parent = answer.config.labels or {}, answer.host_config.cgroup_parent or ""
    return Container(
        id=container_id,
        name=_parse_name(answer.name, container_id) or ContainerName(container_id),
        state=_parse_state(answer.state.status),
        labels=_drop_long_labels(labels),
        request=read_request(
            answer.host_config,
            answer.config.env or (),
            default_runtime=default_runtime,
            nvidia_runtimes=nvidia_runtimes,
            mounts=answer.mounts or (),
        ),
        privileged=bool(answer.host_config.privileged),
        image=answer.config.image or "",
        cgroup_parent=parent if len(parent) <= _MAX_LABEL_LENGTH else "",
        homes=find_homes(answer.mounts or (), labels),
        created=parse_time(answer.created),
        started=parse_time(answer.state.started_at),
        finished=parse_time(answer.state.finished_at),
    )


def read_event(line: bytes) -> EngineEvent | None:
    """The event of one line of the stream; None if it is not about a container."""
    event = decode_answer(line, _Event, "event")
    if event.type != "container":
        return None
    attributes = event.actor.attributes or {}
    code, container_id = attributes.get("exitCode", ""), _parse_id(event.actor.id)
    return EngineEvent(
        action=_PODMAN_ACTIONS.get(event.action, event.action),
        id=container_id,
        name=_parse_name(attributes.get("name"), container_id),
        old_name=_parse_name(attributes.get("oldName"), container_id),
        labels=_drop_long_labels(
            {key: value for key, value in attributes.items() if key not in _NOT_LABELS}
        ),
        at=event.wall_time,
        exit_code=int(code) if re.fullmatch(r"-?[0-9]{1,10}", code) else None,
    )


def _drop_long_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    # A label may hold megabytes. A long one is left out, not cut: a name that is cut may be the
    # name of somebody else.
    if sum(map(len, labels.values())) <= _MAX_LABEL_LENGTH:
        return labels
    return {key: value for key, value in labels.items() if len(value) <= _MAX_LABEL_LENGTH}


def read_event_time(line: bytes) -> Wall:
    """When an event of any type happened, on the engine's clock."""
    return decode_answer(line, _Stamp, "event").wall_time


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


class _HostConfig(HostConfig, frozen=True, rename="pascal"):
    cgroup_parent: str | None = None


class _Config(msgspec.Struct, rename="pascal"):
    env: list[str] | None = None
    labels: dict[str, str] | None = None
    image: str | None = None


class _Inspect(msgspec.Struct, rename="pascal"):
    id: str
    name: str
    state: _State
    config: _Config
    host_config: _HostConfig
    mounts: list[MountPoint] | None = None
    created: str | None = None


class _Actor(msgspec.Struct):
    id: str = msgspec.field(name="ID")
    attributes: dict[str, str] | None = msgspec.field(name="Attributes", default=None)


class _Stamp(msgspec.Struct):
    time: int = 0
    time_nano: int = msgspec.field(name="timeNano", default=0)

    @property
    def wall_time(self) -> Wall:
        seconds: float = self.time_nano / 1e9 if self.time_nano else self.time
        return Wall(seconds)


class _Event(_Stamp, kw_only=True):
    type: str = msgspec.field(name="Type")
    action: str = msgspec.field(name="Action")
    actor: _Actor = msgspec.field(name="Actor")


def _parse_id(text: str) -> ContainerId:
    if not _ID.fullmatch(text):
        raise Malformed(f"invalid container ID {text[:80]!a}")
    return ContainerId(text)


def _parse_state(text: str) -> State:
    state = _STATES.get(text)
    if state is None:
        raise Malformed(f"unknown container state {text[:80]!a}")
    return state


def _choose_name(names: list[str] | tuple[()], container_id: str) -> ContainerName:
    # Names with a second slash are links from other containers.
    for name in names:
        plain = name.removeprefix("/")
        if plain and "/" not in plain and (usable := _parse_name(plain, container_id)) is not None:
            return usable
    return ContainerName(container_id)


def _parse_name(text: str | None, container_id: str) -> ContainerName | None:
    """The name without its leading slash; the ID for a name that cannot be used; None for none."""
    if not text:
        return None
    name = text.removeprefix("/")
    # decision 134: Docker takes names of nearly a megabyte, and ten such bookings would make a
    # state file that nobody reads. A name of the form of an ID may be another container's.
    usable = len(name) <= _MAX_NAME_LENGTH and _FULL_ID.fullmatch(name) is None
    return ContainerName(name if usable else container_id)
