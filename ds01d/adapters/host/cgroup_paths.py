"""Container IDs in cgroup paths, in every form that runtimes are known to write. Pure.

An ID of 64 hex digits at a place that is not understood is an unknown container, never the host.
Sources of the forms: containerd and runc (`slice:prefix:ID` where the systemd form meets the
cgroupfs driver, opentelemetry-java-instrumentation 4507 and 4730, elastic/apm-agent-nodejs 3550),
podman (`libpod-payload-ID`, `libpod-conmon-ID`), CRI-O (`crio-ID.scope`, `crio-conmon-ID`), Kata
Containers (`kata_ID`), Docker (`/docker/ID`, `docker-ID.scope`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum, auto
from functools import lru_cache

from ds01d.model.primitives import ContainerId, Source, Unknown

ID_LENGTH = 64
IDS = re.compile(rb"(?:(?<![0-9a-f])|(?<=\\x[0-9a-f]{2}))[0-9a-f]{64}(?![0-9a-f])")
"""Every run of exactly 64 hex digits, wherever it stands; also behind an escape of systemd's
(`\\x2d` for a hyphen), which ends in two of them."""

_OF_USERS = re.compile(rb"/user@[0-9]+\.service(?:/[^\n]*)?$", re.MULTILINE)

_ANY_ID = re.compile(IDS.pattern.decode())
_RUNTIMES = (
    "docker|libpod|libpod-payload|libpod-conmon|cri-containerd|containerd|crio|crio-conmon"
    "|nerdctl|kata|runc"
)
_KNOWN_FORM = re.compile(
    rf"(?:[^:]*:[^:]+:|(?:{_RUNTIMES})[-_])?([0-9a-f]{{64}})(?:\.scope)?", re.ASCII
)
_POD = re.compile(r"(?:[a-z]+-)?libpod_pod_[0-9a-f]{64}(?:\.slice)?")


class _IdPosition(Enum):
    """Where in a path an ID stands."""

    UNDERSTOOD = auto()
    POD = auto()  # of podman: its containers lie below it
    STRANGE = auto()


def find_container(
    cgroup: str, is_known: Callable[[ContainerId], bool]
) -> ContainerId | Unknown | None:
    """The container in a /proc/PID/cgroup: the outermost that is `is_known`, else the outermost.

    Unknown where that stands at a place that is not understood; None: no container is named.
    """
    # The outermost container is the engine's; what runs inside it is the container's affair.
    marks = _list_marks(cgroup)
    understood = [
        container_id for _, place, container_id in marks if place is _IdPosition.UNDERSTOOD
    ]
    # A parent named after a container may be anybody's; one that the engine lists is real.
    listed = next(filter(is_known, understood), None)
    if listed is not None:
        return listed
    for _, place, container_id in (mark for mark in marks if mark[1] is not _IdPosition.POD):
        return container_id if place is _IdPosition.UNDERSTOOD else _make_unknown(container_id)
    return _make_unknown(marks[0][2]) if marks else None


def is_of_another(
    cgroup: str, container: ContainerId, is_known: Callable[[ContainerId], bool]
) -> bool:
    """Whether a process in a cgroup that names `container` is of one below it that is `is_known`.

    A container in a container is not known to the host's engine. One that is was made by it with
    the other's cgroup, or one of that name, for a parent (`docker run --cgroup-parent`): the user
    who makes a container may name there what they like.
    """
    marks = _list_marks(cgroup)
    # The deepest one: a path may name the same container twice.
    named = max(
        (depth for depth, _, container_id in marks if container_id == container), default=None
    )
    return named is not None and any(
        depth > named and place is _IdPosition.UNDERSTOOD and is_known(container_id)
        for depth, place, container_id in marks
    )


def without_users_own(cgroup: bytes) -> bytes:
    """A /proc/PID/cgroup without what lies below users' own systemd.

    There anybody makes cgroups of any name (delegation, user@.service(5)), so that a name there
    proves nothing of a container of the system's engine.
    """
    return _OF_USERS.sub(b"", cgroup) if b"/user@" in cgroup else cgroup


@lru_cache(maxsize=128)
def _list_marks(cgroup: str) -> tuple[tuple[int, _IdPosition, ContainerId], ...]:
    """Each ID with its depth, the outermost first. Each sample has those of the one before."""
    return tuple(sorted(_find_marks(cgroup), key=lambda mark: mark[0]))


def _find_marks(cgroup: str) -> Iterator[tuple[int, _IdPosition, ContainerId]]:
    """Each ID with its depth. Of cgroup v1 there are a dozen lines, most with the same path."""
    for path in dict.fromkeys(line.split(":", 2)[-1] for line in cgroup.split("\n")):
        for depth, part in enumerate(path.removesuffix(" (deleted)").split("/")):
            if match := _KNOWN_FORM.fullmatch(part):
                yield depth, _IdPosition.UNDERSTOOD, ContainerId(match[1])
                continue
            place = _IdPosition.POD if _POD.fullmatch(part) else _IdPosition.STRANGE
            for container_id in _ANY_ID.findall(part):
                yield depth, place, ContainerId(container_id)


def _make_unknown(container: ContainerId) -> Unknown:
    return Unknown(
        source=Source.NVML,
        reason=f"its cgroup path names {container[:12]} in a form that is not understood",
    )
