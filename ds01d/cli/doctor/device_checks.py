"""Whether running containers can open their GPUs, and whether a reload of systemd takes these away.

The second is known to everybody; the first only to root, whose process joins the cgroup of a
container for a moment. Nothing of a container is changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.docker.decoding import decode_answer
from ds01d.adapters.docker.engine_info import read_info
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.host.access_report import AccessReport
from ds01d.adapters.host.device_probe import find_denied_nodes
from ds01d.cli.doctor.source_checks import Check, ok, warn
from ds01d.config import Config
from ds01d.decide.device_loss import find_minors
from ds01d.errors import Ds01Error
from ds01d.model.containers import Container
from ds01d.model.device_access import CONTROL_MINOR, NVIDIA_MAJOR, TriedAccess, name_node
from ds01d.model.primitives import ContainerName, Source, Unknown
from ds01d.reconcile.ports import World
from ds01d.reconcile.reconciler import Reconciler
from ds01d.text import format_count

_NAME: Final = "device access"
_SECOND_LOOK_S: Final = 1.0
_LOST_FIX: Final = (
    "docker restart it: systemd has replaced the rules of its cgroup (see docs/operations.md)"
)


class _InspectedState(msgspec.Struct):
    pid: int = msgspec.field(name="Pid", default=0)


class _Inspected(msgspec.Struct):
    state: _InspectedState = msgspec.field(name="State")


def check_devices(world: World, config: Config, dev: Path = Path("/dev")) -> Iterator[Check]:
    """Check both; nothing where no GPU is used."""
    if config.gpu.source == "none":
        return
    client = HttpClient(config.docker.url, config.docker.timeout_s)
    yield from _check_reload(client, dev)
    if os.geteuid() != 0:
        yield ok(_NAME, "of containers: not checked, only root can (sudo ds01ctl doctor)")
        return
    yield from _check_containers(world, config, client)


def _check_reload(client: HttpClient, dev: Path) -> Iterator[Check]:
    """Whether the next `systemctl daemon-reload` takes the GPUs from containers."""
    try:
        driver = read_info(client.get("/info")).cgroup_driver
    except Ds01Error:  # the check of Docker reports it
        return
    control = dev / "char" / f"{NVIDIA_MAJOR}:{CONTROL_MINOR}"
    # Decision 279: systemd forgets the rules of a device that has no name there.
    if driver == "systemd" and (dev / "nvidiactl").exists() and not control.exists():
        yield warn(
            _NAME,
            f"{control} is missing: each systemctl daemon-reload may take the GPUs from running"
            " containers",
            "nvidia-ctk system create-dev-char-symlinks --create-all, at each boot; or CDI; or"
            " native.cgroupdriver=cgroupfs in Docker's daemon.json",
        )


def _check_containers(world: World, config: Config, client: HttpClient) -> Iterator[Check]:
    """Try the nodes of every container that holds a slot by its request."""
    checked = 0
    try:
        for name, answer in _try_containers(world, config, client):
            if isinstance(answer, Unknown):
                yield warn(_NAME, f"of {name} is not known: {answer.reason}", "run it again")
            elif answer.denied:
                nodes = ", ".join(map(name_node, sorted(answer.denied)))
                yield warn(_NAME, f"{name} runs and cannot open {nodes}", _LOST_FIX)
            else:
                checked += 1
    except Ds01Error as error:
        yield warn(_NAME, f"of containers is not known: {error}", "see the checks above")
    if checked:
        yield ok(_NAME, f"{format_count(checked, 'container')} can open the requested GPUs")


def publish_devices(world: World, config: Config, report: AccessReport) -> int:
    """Try them all and leave what was found for ds01d; how many. Raises `Ds01Error`."""
    client = HttpClient(config.docker.url, config.docker.timeout_s)
    answers = _try_containers(world, config, client)
    tried = [answer for _, answer in answers if isinstance(answer, TriedAccess)]
    report.write(tried, world.clock.now())
    return len(tried)


def _try_containers(
    world: World, config: Config, client: HttpClient
) -> Iterator[tuple[ContainerName, TriedAccess | Unknown]]:
    """Each running container that holds what it requested. Raises `Ds01Error`."""
    decision = Reconciler(world, config).plan().decision
    index = decision.index
    if index is None:
        return
    for name, verdict in decision.verdicts.items():
        container = index.containers.get(name)
        if container is None or container.started is None:
            continue
        minors = {*find_minors(container, verdict, index).values()}
        if not minors:
            continue
        nodes = {name_node(minor): minor for minor in (*sorted(minors), CONTROL_MINOR)}
        denied = _probe_nodes(client, container, [*nodes])
        # Decision 279: runc denies everything for a moment while it changes rules.
        if not isinstance(denied, Unknown) and denied:
            time.sleep(_SECOND_LOOK_S)
            denied = _probe_nodes(client, container, [*nodes])
        if isinstance(denied, Unknown):
            yield name, denied
            continue
        lost = frozenset(nodes[node] for node in denied)
        yield (
            name,
            TriedAccess(
                container=container.id,
                started=container.started,
                allowed=frozenset(nodes.values()) - lost,
                denied=lost,
            ),
        )


def _probe_nodes(
    client: HttpClient, container: Container, nodes: list[str]
) -> Collection[str] | Unknown:
    subject = f"/containers/{container.id}/json"
    # Asked now: a container that was started again since the list has another process.
    try:
        pid = decode_answer(client.get(subject), _Inspected, subject).state.pid
    except Ds01Error as error:
        return Unknown(source=Source.DOCKER, reason=str(error))
    if pid <= 0:
        return Unknown(source=Source.DOCKER, reason="it has no process any more")
    return find_denied_nodes(container.id, pid, nodes)
