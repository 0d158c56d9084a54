"""What Enter shows of a row of the live view: all that is published of it, as blocks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ds01d.cli.ctl.log_view import log_table
from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.ctl.status_view import state_cell, unbooked_cell
from ds01d.cli.dashboard.problems import Problem, ProblemIndex, list_problems
from ds01d.cli.dashboard.rows import RowKey, gpu_index, share_of
from ds01d.cli.dashboard.view import (
    GPU_COLUMNS,
    UNKNOWN,
    DashboardState,
    daemon_blocks,
    gpu_row,
    memory_cell,
    operation_blocks,
)
from ds01d.cli.output.blocks import Block, Cell, Facts, Sentence, Table, Title, Tone, Toned
from ds01d.documents.values import display_time
from ds01d.reporting.status import GpuStatus, Holder, SlotStatus


def detail_blocks(state: DashboardState, key: RowKey) -> Iterator[Block]:
    """What is known of the row that `key` names, which may be gone by now."""
    match key.kind:
        case "gpu":
            yield from _gpu_blocks(state, key.subject)
        case "user":
            yield from _user_blocks(state, key.subject)
        case _:
            yield from _slot_blocks(state, key)


def detail_title(key: RowKey) -> str:
    """What the details are about, in words."""
    if key.kind == "user":
        return f"user {key.subject}" if key.subject else "slots without a holder"
    if key.kind == "gpu":
        return f"GPU {key.subject}"
    return (
        f"slot {key.subject}, held by {key.container}" if key.container else f"slot {key.subject}"
    )


def _gpu_blocks(state: DashboardState, index: str) -> Iterator[Block]:
    view = state.status
    gpus = [gpu for gpu in view.gpus if str(gpu.index) == index]
    for gpu in gpus:
        yield Facts([*zip(GPU_COLUMNS, gpu_row(gpu), strict=True), ("uuid", gpu.uuid)])
    if not gpus:
        # A GPU that fell off the bus is what somebody opens this page for.
        reason = view.daemon_problem or "it is not in the last sample"
        yield Sentence(f"no readings of GPU {index}: {reason}", Tone.WARN)
    slots = [slot for slot in view.slots if gpu_index(slot) == index]
    yield Title("slots")
    yield _slots_table(slots)


def _user_blocks(state: DashboardState, user: str) -> Iterator[Block]:
    slots = [
        slot
        for slot in state.status.slots
        if any((holder.shown_user or "unknown") == user for holder in slot.holders)
        or (not user and not slot.holders)
    ]
    yield _slots_table(slots)
    if user and slots:
        yield Sentence("")
        yield Sentence("limits and what is left: ds01ctl quota USER", Tone.FAINT)


def _slot_blocks(state: DashboardState, key: RowKey) -> Iterator[Block]:
    view = state.status
    slot = next((slot for slot in view.slots if slot.id == key.subject), None)
    if slot is None:
        yield Sentence(f"slot {key.subject} is not in the books any more", Tone.WARN)
        return
    # The page stays open, and the world goes on.
    if key.container and all(holder.container != key.container for holder in slot.holders):
        yield Sentence(f"{key.container} does not hold it any more", Tone.WARN)
    gpu = next((gpu for gpu in view.gpus if str(gpu.index) == gpu_index(slot)), None)
    yield Facts(tuple(_slot_facts(slot, gpu)))
    # The holder that was chosen comes first, those who share the slot with it after.
    for holder in sorted(slot.holders, key=lambda holder: holder.container != key.container):
        yield Title("holder")
        yield Facts(tuple(_holder_facts(holder)))
    if slot.foreign_holders:
        yield Title("used without a booking")
        rows: list[list[Cell]] = [
            [holder.container, holder.shown_user or UNKNOWN, state_cell(holder.state)]
            for holder in slot.foreign_holders
        ]
        yield Table(("container", "user", "state"), rows)
    yield from _problem_blocks(view, slot)
    yield from _log_blocks(state, {holder.container for holder in slot.holders})
    yield Sentence("")
    subject = key.container or slot.id
    yield Sentence(f"all that is known, with reasons: ds01ctl explain {subject}", Tone.FAINT)


def _slot_facts(slot: SlotStatus, gpu: GpuStatus | None) -> Iterator[tuple[str, Cell]]:
    yield "type", slot.kind
    yield "gpu", f"{gpu.index}, {gpu.name or 'name unknown'}" if gpu is not None else UNKNOWN
    if gpu is not None and gpu.health:
        yield "health", Toned(gpu.health, Tone.BAD)
    yield "uuid", slot.uuid or UNKNOWN
    share = share_of(slot.memory_used, slot.memory_total)
    used = memory_cell(slot.memory_used, slot.memory_total)
    yield "memory", used if share is None else f"{used} ({share * 100:.0f} %)"
    yield "utilisation", UNKNOWN if slot.utilization is None else f"{slot.utilization} %"
    yield "processes", UNKNOWN if slot.processes is None else slot.processes
    if slot.foreign:
        yield "also used by", Toned(slot.shown_foreign, Tone.WARN)
    if not slot.holders:
        yield "state", unbooked_cell(slot)


def _holder_facts(holder: Holder) -> Iterator[tuple[str, Cell]]:
    yield "container", holder.container
    yield "user", holder.shown_user or UNKNOWN
    if holder.user_by is not None:
        yield "user by", holder.user_by.value
    if not holder.is_charged:
        yield "quota", "does not count"
    yield "state", state_cell(holder.state)
    if holder.idle_since is not None:
        yield "idle since", Toned(display_time(holder.idle_since), Tone.WARN)
    # A running container has no end by time, which is no unknown end.
    yield "ends", display_time(holder.until) or "not by time"
    yield "its processes", UNKNOWN if holder.processes is None else holder.processes
    memory = None if holder.memory_used is None else f"{holder.memory_used / 2**30:.1f} GiB"
    yield "their memory", memory or UNKNOWN


def _problem_blocks(view: StatusView, slot: SlotStatus) -> Iterator[Block]:
    # No drifts and no knowledge of drifts must not look alike.
    if view.daemon is None:
        yield Title("drifts and findings")
        yield Sentence("known only while ds01d runs", Tone.FAINT)
        return
    index = ProblemIndex(list_problems(view))
    problems: dict[Problem, None] = {}
    # A drift of two holders is listed once.
    for holder in (*slot.holders, None):
        problems.update(dict.fromkeys(index.find_at(slot, holder)))
    if problems:
        yield Title("drifts and findings")
        yield problem_table(problems)


def overview_blocks(state: DashboardState) -> Iterator[Block]:
    """All drifts and findings, wherever they are, the daemon, and the last operations."""
    problems = list_problems(state.status)
    if problems:
        yield Title("drifts and findings")
        yield problem_table(problems)
    yield from daemon_blocks(state)
    yield from operation_blocks(state)


def problem_table(problems: Iterable[Problem]) -> Table:
    """Drifts and findings, a row each."""
    rows: list[list[Cell]] = [
        [
            problem.kind,
            Toned(problem.standing, problem.tone),
            problem.container or None,
            problem.slot or None,
            display_time(problem.first_seen),
            display_time(problem.until),
            problem.reason,
        ]
        for problem in problems
    ]
    columns = ("kind", "standing", "container", "slot", "first seen", "until", "reason")
    return Table(columns, rows)


def _log_blocks(state: DashboardState, names: set[str]) -> Iterator[Block]:
    rows = [row for row in state.operations if row.line is not None and row.line.container in names]
    if rows:
        yield Title("last operations")
        yield log_table(rows)


def _slots_table(slots: Iterable[SlotStatus]) -> Table:
    rows: list[list[Cell]] = []
    for slot in slots:
        memory = memory_cell(slot.memory_used, slot.memory_total)
        if not slot.holders:
            rows.append([slot.id, None, None, unbooked_cell(slot), None, memory])
        rows += [
            [
                slot.id,
                holder.container,
                holder.shown_user,
                state_cell(holder.state),
                display_time(holder.until),
                memory,
            ]
            for holder in slot.holders
        ]
    return Table(("slot", "container", "user", "state", "until", "memory"), rows)
