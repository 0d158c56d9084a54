"""Takes one snapshot of all sources; each is an answer or an `Unknown`. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from ds01d.config import Config
from ds01d.decide.owner_guess import list_guessed_logins
from ds01d.decide.ownership import is_login, parse_uid
from ds01d.model.books import BadRecord, Record
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Container, Engine, GpuRequestKind, State
from ds01d.model.device_access import DeviceAccess
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Unknown
from ds01d.model.reservation import ProcessState, ReservingProcess
from ds01d.model.snapshot import Snapshot
from ds01d.reconcile.ports import World


def observe_host(
    world: World, checkpoint: Checkpoint, config: Config, names: frozenset[ContainerName] | None
) -> Snapshot:
    """Ask every source once; `names` None is a sweep."""
    now = world.clock.now()
    sweep = names is None
    # Docker first: its containers decide how fresh the NVML sample has to be.
    docker = world.engine.observe(names)
    gpu = None
    if world.gpu is not None:
        # Decision 5: a request by index or count is resolved by a sample from after the start.
        fresh = isinstance(docker, Engine) and _has_unresolved_request(docker, checkpoint, names)
        oldest = now.boot if fresh else now.boot - config.policy.settle_s
        gpu = world.gpu.sample(not_before=Boot(oldest))
    # Decision 59: a pass over some names reads only their files again; with thousands of records
    # that is what makes it short.
    metadata = world.metadata.read(names)
    passwd, logins = _find_users(world, docker)
    owners = world.owners.read() if world.owners is not None else {}
    state, operations, limits = world.state.read(), world.operations.read(), world.limits.read()
    return Snapshot(
        now=now,
        docker=docker,
        gpu=gpu,
        state=state,
        metadata=metadata,
        operations=operations,
        limits=limits,
        names=names,
        # Decision 48: a source may take a minute to answer, so waits begin when the last one has.
        looked=world.clock.now().boot,
        passwd=passwd,
        logins=logins,
        owners=owners,
        # Only findings need them, and only a sweep has findings.
        faults=world.gpu.read_faults() if sweep and world.gpu is not None else {},
        processes=find_process_states(world, metadata),
        device_access=_read_access(world, docker) if sweep else {},
    )


def _read_access(world: World, docker: Engine | Unknown) -> Mapping[ContainerId, DeviceAccess]:
    """What the running containers may open, for findings."""
    if world.device_rules is None or isinstance(docker, Unknown):
        return {}
    running = {c.id for c in docker.containers.values() if c.state is State.RUNNING}
    return world.device_rules.read_access(running) if running else {}


def find_process_states(
    world: World, records: Mapping[ContainerName, Record | BadRecord] | Unknown
) -> Mapping[ReservingProcess, ProcessState]:
    """Which of the processes for which slots are reserved still run."""
    if isinstance(records, Unknown):
        return {}
    reserving = {
        process
        for record in records.values()
        if isinstance(record, Record)
        for process in record.processes
    }
    # Decision 233: /proc is looked at only while something is reserved.
    return world.reserving.find_states(reserving) if reserving else {}


def _has_unresolved_request(
    engine: Engine, checkpoint: Checkpoint, names: frozenset[ContainerName] | None
) -> bool:
    """Whether a living container requests devices by index or count that are not resolved yet."""
    if names is None:
        candidates = tuple(engine.containers.values())
    else:
        candidates = tuple(engine.by_name[name] for name in names if name in engine.by_name)
    return any(_needs_resolving(container, checkpoint) for container in candidates)


def _needs_resolving(container: Container, checkpoint: Checkpoint) -> bool:
    request = container.request
    if (
        not container.state.alive
        or isinstance(request, Unknown)
        or request.ask is GpuRequestKind.NONE
    ):
        return False
    if container.requested_uuids is not None:
        return False
    resolved = checkpoint.resolved.get(container.id)
    return resolved is None or resolved.started != container.started


def _find_users(
    world: World, docker: Engine | Unknown
) -> tuple[Mapping[int, str], Mapping[str, int]]:
    """Logins of the uids in names, and uids of the logins that something else names.

    Of labels where the uid in the name has no login; of folders and slices.
    """
    # Of every container, also in a pass over a few names: users of shared slots count as well.
    if isinstance(docker, Unknown):
        return {}, {}
    uids = [*map(parse_uid, docker.by_name)]  # None: no uid in that name
    named = frozenset(uid for uid in set(uids) if uid is not None)
    logins = world.passwd.find_logins(named)
    # Decision 71: a label counts only where no login is known for the uid in the name.
    unknown = named - logins.keys()
    pairs = zip(docker.by_name.values(), uids, strict=True) if unknown else ()
    labels = [container.user_labels for container, uid in pairs if uid in unknown]
    claims = set(filter(is_login, {*chain.from_iterable(labels)}))
    claims |= list_guessed_logins(docker.containers.values())
    return logins, world.passwd.find_uids(frozenset(claims)) if claims else {}
