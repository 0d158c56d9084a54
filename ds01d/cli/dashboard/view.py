"""What `ds01-dashboard` shows: one look at the host, as a document and as blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ds01d.cli.ctl.log_view import LogRow, log_document, log_table
from ds01d.cli.ctl.report import finding_table
from ds01d.cli.ctl.status_document import StatusView, status_document
from ds01d.cli.ctl.status_view import (
    daemon_facts,
    describe_idle,
    format_memory,
    state_cell,
    status_warnings,
    unbooked_cell,
)
from ds01d.cli.output.blocks import (
    Block,
    Cell,
    Facts,
    Sentence,
    Table,
    Title,
    Tone,
    Toned,
)
from ds01d.config import Config
from ds01d.decide.freezes import describe_freeze
from ds01d.documents.values import DisplayTime, Document
from ds01d.model.primitives import Wall
from ds01d.reporting.status import GpuStatus, SlotStatus
from ds01d.text import format_span

UNKNOWN = Toned("unknown", Tone.FAINT)
HOT_C = 85
GPU_COLUMNS = ("gpu", "name", "mig", "memory", "temperature", "utilisation", "health")


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardState:
    """One look: what `ds01ctl status` knows, and the last lines of the operations log."""

    status: StatusView
    operations: tuple[LogRow, ...]
    log_problem: str
    now: Wall


def dashboard_document(state: DashboardState) -> dict[str, Document]:
    """The object that `ds01-dashboard --json` prints: that of `ds01ctl status`, and more."""
    return {
        "at": DisplayTime(state.now),
        **status_document(state.status),
        "users": [
            {"user": user, "containers": containers}
            for user, containers in _containers_by_user(state.status.slots).items()
        ],
        "operations": [log_document(row) for row in state.operations],
        "operations_trouble": state.log_problem,
    }


def dashboard_blocks(state: DashboardState, config: Config) -> Iterator[Block]:
    """The same for people."""
    status = state.status
    yield from doubt_sentences(state, config)
    yield Title("gpus")
    if status.gpus:
        yield Table(GPU_COLUMNS, [gpu_row(gpu) for gpu in status.gpus])
    else:
        yield Sentence("GPUs are shown while ds01d runs and uses NVML", Tone.FAINT)
    yield Title("slots")
    yield _table_or_none(_slots_table(state))
    yield Title("users")
    yield _table_or_none(_users_table(status.slots))
    yield from daemon_blocks(state)
    if status.daemon is not None and status.daemon.findings:
        yield Title("findings")
        yield finding_table(status.daemon.findings)
    yield from operation_blocks(state)


def doubt_sentences(state: DashboardState, config: Config) -> Iterator[Sentence]:
    """What puts the state in doubt, and what is frozen."""
    yield from status_warnings(state.status, config, state.now)
    for freeze in state.status.freezes:
        yield Sentence(f"frozen: {describe_freeze(freeze, state.now)}", Tone.WARN)


def daemon_blocks(state: DashboardState) -> Iterator[Block]:
    """The daemon and its sources."""
    daemon = state.status.daemon
    if daemon is not None:
        yield Title("daemon")
        yield Facts(tuple(daemon_facts(daemon, state.now)))


def operation_blocks(state: DashboardState) -> Iterator[Block]:
    """The last operations."""
    yield Title("last operations")
    if state.log_problem:
        yield Sentence(state.log_problem, Tone.BAD)
    yield _table_or_none(log_table(state.operations))


def _table_or_none(table: Table) -> Block:
    return table if table.rows else Sentence("none", Tone.FAINT)


def gpu_row(gpu: GpuStatus) -> list[Cell]:
    """A GPU as cells of `GPU_COLUMNS`."""
    mig: Cell = "none" if gpu.mig is None else "on" if gpu.mig else "off"
    hot = gpu.temperature is not None and gpu.temperature >= HOT_C
    return [
        gpu.index,
        gpu.name or UNKNOWN,
        mig,
        memory_cell(gpu.memory_used, gpu.memory_total),
        UNKNOWN
        if gpu.temperature is None
        else Toned(f"{gpu.temperature} °C", Tone.BAD if hot else Tone.PLAIN),
        UNKNOWN if gpu.utilization is None else f"{gpu.utilization} %",
        Toned(gpu.health, Tone.BAD) if gpu.health else Toned("ok", Tone.GOOD),
    ]


def memory_cell(used: int | None, total: int | None) -> Cell:
    """Used and whole memory in GiB; "unknown" where one of them is."""
    if used is None or total is None:
        return UNKNOWN
    return f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB"


def _slots_table(state: DashboardState) -> Table:
    """A row for each holder, and one for each slot that nobody holds."""
    rows: list[list[Cell]] = []
    for slot in state.status.slots:
        first: list[Cell] = [slot.id, slot.kind]
        last: list[Cell] = [
            Toned(slot.drifts, Tone.WARN) if slot.drifts else None,
            Toned(slot.shown_foreign, Tone.WARN) if slot.foreign else None,
            None if slot.utilization is None else f"{slot.utilization} %",
        ]
        if not slot.holders:
            readings: list[Cell] = [_slot_memory(slot.memory_used, slot), slot.processes]
            rows.append([*first, None, None, unbooked_cell(slot), None, *last, *readings])
        for holder in slot.holders:
            left = None if holder.until is None else format_span(holder.until - state.now)
            holder_cells: list[Cell] = [
                holder.container,
                holder.shown_user,
                state_cell(holder.state, describe_idle(holder, state.now)),
            ]
            readings = [_slot_memory(holder.memory_used, slot), holder.processes]
            rows.append([*first, *holder_cells, left, *last, *readings])
    # What is read from NVML comes last, as in `ds01ctl status -o wide`.
    columns = ("slot", "type", "container", "user", "state", "hold left", "drift", "others")
    return Table((*columns, "utilisation", "memory", "processes"), rows)


def _slot_memory(used: int | None, slot: SlotStatus) -> Cell:
    return format_memory(used, slot.memory_total)


def _users_table(slots: Sequence[SlotStatus]) -> Table:
    rows: list[list[Cell]] = [
        [user, len(names), ", ".join(names)] for user, names in _containers_by_user(slots).items()
    ]
    return Table(("user", "containers", "names"), rows)


def _containers_by_user(slots: Sequence[SlotStatus]) -> dict[str, list[str]]:
    """Each user's containers, by name; a container of several slots once."""
    containers: dict[str, dict[str, None]] = {}
    for slot in slots:
        for holder in slot.holders:
            # Decision 225: guesses stand apart, since a label may name anybody.
            containers.setdefault(holder.shown_user or "unknown", {})[holder.container] = None
    return {user: sorted(names) for user, names in sorted(containers.items())}
