"""Checks of the sources: whether each is reachable, how fast, and whether its data is valid.

Each check covers one thing and names the fix. Writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from ds01d.config import Config
from ds01d.decide.engine_identity import describe_engine, engine_differences
from ds01d.errors import Ds01Error
from ds01d.model.books import AllocatorState, BadRecord, Unreadable
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Engine
from ds01d.model.devices import Inventory
from ds01d.model.primitives import Unknown, Word
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.ports import World
from ds01d.text import format_count

SLOW_GPU_S = 1.0
_MOST_NAMED = 5
_Answer = TypeVar("_Answer")


class Health(Word):
    """The result of a check; only `fail` keeps ds01d from working."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the doctor. `fix`: what to do about it, "" if nothing."""

    name: str
    health: Health
    detail: str
    fix: str = ""


def ok(name: str, detail: str) -> Check:
    return Check(name=name, health=Health.OK, detail=detail)


def warn(name: str, detail: str, fix: str) -> Check:
    return Check(name=name, health=Health.WARN, detail=detail, fix=fix)


def fail(name: str, detail: str, fix: str) -> Check:
    return Check(name=name, health=Health.FAIL, detail=detail, fix=fix)


def check_sources(world: World, config: Config, ask_version: Callable[[], str]) -> Iterator[Check]:
    """Read every source once, as a pass does. `ask_version` returns the version of Docker."""
    # Only read: the doctor is called by users without rights, and changes nothing.
    checkpoint, problem = CheckpointStore(world.state_dir).load()
    yield from _check_docker(world, config, ask_version, checkpoint)
    yield from _check_nvml(world, config)
    yield _check_state(world, config)
    yield from _check_metadata(world, config)
    yield from _check_limits(world, config)
    operations = world.operations.read()
    if isinstance(operations, Unknown):
        fix = f"make {config.logs.operations} readable"
        yield warn("operations log", f"{operations.reason}; pending creations are unknown", fix)
    else:
        yield ok("operations log", f"{format_count(len(operations), 'container')} listed")
    # A missing directory is normal before the first pass.
    if problem and os.access(config.daemon.state_dir, os.F_OK):
        yield warn("checkpoint", problem, "make it readable; a pass moves a broken one aside")
    else:
        containers = format_count(len(checkpoint.identities), "container")
        yield ok(
            "checkpoint",
            f"{containers} recorded" if checkpoint.boot_id else "empty: no pass has run yet",
        )


def _time_call(ask: Callable[[], _Answer]) -> tuple[_Answer, float]:
    began = monotonic()
    return ask(), monotonic() - began


def _check_docker(
    world: World, config: Config, ask_version: Callable[[], str], checkpoint: Checkpoint
) -> Iterator[Check]:
    answer, took_s = _time_call(lambda: world.engine.observe(names=None))
    if isinstance(answer, Unknown):
        fix = "start Docker, or add this user to group docker, or correct docker.url"
        yield fail("docker", answer.reason, fix)
        return
    try:
        engine_version = f"version {ask_version()}"
    except (Ds01Error, ValueError) as error:
        engine_version = f"version unknown ({error})"
    count = format_count(len(answer.containers), "container")
    detail = f"{engine_version}; {count} listed in {took_s:.3f} s"
    # Half of it on a quiet host is all of it on a busy one.
    if took_s > config.docker.timeout_s / 2:
        fix = f"raise docker.timeout ({config.docker.timeout_s:g} s), or find out what slows Docker"
        yield warn("docker", detail, fix)
    else:
        yield ok("docker", detail)
    yield _check_engine(answer, checkpoint, world.clock.now().boot_id)
    for warning in answer.warnings:
        yield warn("engine", warning.text, warning.fix)


def _check_engine(answer: Engine, checkpoint: Checkpoint, boot_id: str) -> Check:
    identity, trusted = answer.identity, checkpoint.engine
    engine = describe_engine(identity)
    if trusted is None:
        return ok("engine", f"{engine}; the first pass will trust it")
    changes = [*engine_differences(trusted, identity, same_boot=checkpoint.boot_id == boot_id)]
    if not changes:
        return ok("engine", f"{engine}, trusted")
    detail = f"{engine} is not the trusted engine ({', '.join(changes)}): nothing is released"
    return fail("engine", detail, "if this engine is the right one: ds01ctl thaw --engine")


def _check_nvml(world: World, config: Config) -> Iterator[Check]:
    if world.gpu is None:
        yield ok(
            "nvml", 'not used (gpu.source = "none"): the slots of the state file are the inventory'
        )
        return
    gpu = world.gpu
    sample, took_s = _time_call(lambda: gpu.sample(not_before=world.clock.now().boot))
    if isinstance(sample, Unknown):
        fix = 'repair the driver (see nvidia-smi); on a host without GPUs set gpu.source = "none"'
        yield fail("nvml", sample.reason, fix)
        return
    detail = (
        f"driver {sample.driver or 'unknown'}, {format_count(len(sample.gpus), 'GPU')},"
        f" {format_count(len(sample.migs), 'MIG device')}, sampled in {took_s:.1f} s"
    )
    # A driver that lost its GPUs reports none, so an empty inventory must not release slots.
    if not sample.gpus:
        yield fail(
            "nvml",
            f"{detail}: no GPU found, taken for a driver failure",
            "repair the driver (see nvidia-smi)",
        )
    elif took_s > config.gpu.timeout_s / 2:
        fix = "enable persistence mode (nvidia-smi -pm 1), or raise gpu.timeout"
        yield warn("nvml", f"{detail}, close to its timeout of {config.gpu.timeout_s:g} s", fix)
    # Seconds per GPU mean that the driver is loaded for each sample: persistence mode is off.
    elif took_s > SLOW_GPU_S * len(sample.gpus):
        fix = "enable persistence mode: nvidia-smi -pm 1, or nvidia-persistenced"
        yield warn("nvml", detail, fix)
    else:
        yield ok("nvml", detail)
    yield from _check_gpus(sample)


def _check_gpus(sample: Inventory) -> Iterator[Check]:
    for gpu in sample.gpus:
        for reason in gpu.health:
            yield warn(f"gpu {gpu.index}", f"{gpu.uuid}: {reason}", "see nvidia-smi -q")
    for device, why in sample.blind.items():
        yield warn("nvml", f"{device}: {why}", "see nvidia-smi; nothing on it is released")
    for index, why in sample.incomplete.items():
        yield warn(f"gpu {index}", why, "see nvidia-smi -q")


def _check_state(world: World, config: Config) -> Check:
    answer = world.state.read()
    if isinstance(answer, AllocatorState):
        bookings = sum(len(slot.containers) for slot in answer.slots.values())
        detail = f"{format_count(len(answer.slots), 'slot')}, {format_count(bookings, 'booking')}"
        return ok("state", detail)
    if isinstance(answer, Unreadable):
        if config.books.kind == "docker" and answer.was_never_written:
            return ok("state", "nothing is reserved yet")
        fix = "a pass rebuilds it from Docker, NVML, metadata and the last good copy"
        return fail("state", answer.reason, fix)
    return fail(
        "state", answer.reason, f"correct books.state ({config.books.state}), or its permissions"
    )


def _check_metadata(world: World, config: Config) -> Iterator[Check]:
    answer = world.metadata.read()
    if isinstance(answer, Unknown):
        fix = f"correct books.metadata ({config.books.metadata}), or its permissions"
        yield fail("metadata", answer.reason, fix)
        return
    bad = [record for record in answer.values() if isinstance(record, BadRecord)]
    yield ok("metadata", f"{format_count(len(answer) - len(bad), 'record')} valid")
    # One cause often breaks many records, and the list must stay readable.
    for record in bad[:_MOST_NAMED]:
        fix = "a pass replaces it" if record.replaceable else "remove it by hand"
        yield warn("metadata", f"{record.container}: {record.reason}", fix)
    if len(bad) > _MOST_NAMED:
        yield warn("metadata", f"and {len(bad) - _MOST_NAMED} more like these", "see ds01ctl plan")


def _check_limits(world: World, config: Config) -> Iterator[Check]:
    answer = world.limits.read()
    if isinstance(answer, Unknown):
        fix = f"correct books.limits ({config.books.limits}), or its permissions"
        yield warn("limits", f"{answer.reason}; no hold ends until it is readable", fix)
        return
    listed = format_count(len(answer.holds), "user")
    unit = "slots" if answer.default_gpu_quota is None else "GPU-equivalents"
    yield ok("limits", f"{listed} listed, quotas in {unit}")
    rules = [("an unknown user", answer.unknown_user), *answer.holds.items()]
    unclear = [
        *answer.unclear,
        *answer.passed_over,
        *(
            f"{user}: {rule.problem}"
            for user, rule in rules
            if rule.problem and rule.seconds is None and rule.problem not in answer.passed_over
        ),
    ]
    for problem in unclear[:_MOST_NAMED]:
        yield warn("limits", problem, f"correct {config.books.limits}")
    if len(unclear) > _MOST_NAMED:
        detail = f"and {len(unclear) - _MOST_NAMED} more like these"
        yield warn("limits", detail, f"correct {config.books.limits}")
