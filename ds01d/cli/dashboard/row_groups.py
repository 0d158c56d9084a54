"""Which rows of the live view are wanted, in which order, and in which groups. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.dashboard.rows import (
    FREE,
    GpuHeading,
    Row,
    SlotRow,
    UserHeading,
    gpu_index,
    row_text,
)
from ds01d.model.primitives import Wall, Word


class RowOrder(Word):
    """What rows are sorted by; the value is the name that is shown."""

    SLOT = "slot"
    USER = "user"
    ENDS = "ends"
    MEMORY = "memory"
    UTILIZATION = "utilisation"
    PROBLEM = "drift"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """Rows below one heading, or none. `together`: they are not divided between columns."""

    heading: GpuHeading | UserHeading | None
    rows: tuple[SlotRow, ...]
    together: bool = False

    @property
    def lines(self) -> tuple[Row, ...]:
        return self.rows if self.heading is None else (self.heading, *self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChoice:
    """Which rows are wanted, and how they are sorted.

    `words`: all of them must be in a row. `hides_free` None: only where there is no room for them.
    """

    order: RowOrder = RowOrder.SLOT
    is_reversed: bool = False
    words: tuple[str, ...] = ()
    hides_free: bool | None = None


def group_rows(view: StatusView, rows: Sequence[SlotRow], choice: RowChoice) -> list[RowGroup]:
    """The wanted rows, sorted and in groups: by GPU, by user, or all of them in one."""
    wanted = [
        row
        for row in rows
        if not (choice.hides_free and row.is_free)
        and all(word in row_text(row) for word in choice.words)
    ]
    # By GPU only in the order of slots: in any other the slots of a GPU do not stand together.
    if choice.order is RowOrder.SLOT:
        groups = list(_group_by_gpu(view, rows, wanted, is_filtered=bool(choice.words)))
        return groups[::-1] if choice.is_reversed else groups
    ordered = _sort_rows(wanted, _SORT_VALUES[choice.order], is_reversed=choice.is_reversed)
    if choice.order is RowOrder.USER:
        return list(_group_by_user(ordered))
    return [RowGroup(heading=None, rows=tuple(ordered))]


def _group_by_gpu(
    view: StatusView, rows: Iterable[SlotRow], wanted: Sequence[SlotRow], *, is_filtered: bool
) -> Iterator[RowGroup]:
    gpus = {str(gpu.index): gpu for gpu in view.gpus}
    # A GPU whose MIG mode is on and that has no device yet has no slot, and is shown all the same.
    slots: dict[str, set[str]] = {index: set() for index in gpus}
    free: dict[str, int] = dict.fromkeys(gpus, 0)
    below: dict[str, list[SlotRow]] = {}
    for row in rows:
        index = gpu_index(row.slot)
        slots.setdefault(index, set()).add(row.slot.id)
        free[index] = free.get(index, 0) + (row.state == FREE)
    for row in wanted:
        below.setdefault(gpu_index(row.slot), []).append(row)
    for index in sorted(slots, key=_natural_key):
        # A heading without rows would look like a GPU without slots.
        if is_filtered and index not in below:
            continue
        heading = GpuHeading(
            index=index,
            gpu=gpus.get(index),
            slots=len(slots[index]),
            free=free[index],
            is_seen=view.daemon is not None,
        )
        yield RowGroup(heading=heading, rows=tuple(below.get(index, ())), together=True)


def _group_by_user(ordered: Iterable[SlotRow]) -> Iterator[RowGroup]:
    by_user: dict[str, list[SlotRow]] = {}
    for row in ordered:
        by_user.setdefault(_user_value(row) or "", []).append(row)
    for user, rows in by_user.items():
        heading = UserHeading(
            user=user,
            slots=len({row.slot.id for row in rows}),
            containers=len({row.holder.container for row in rows if row.holder is not None}),
        )
        yield RowGroup(heading=heading, rows=tuple(rows))


def _sort_rows(
    rows: Sequence[SlotRow], value: Callable[[SlotRow], float | str | None], *, is_reversed: bool
) -> list[SlotRow]:
    """Sorted by value; whichever way round, rows without one come last, and free ones after."""
    valued = [row for row in rows if value(row) is not None]
    others = [row for row in rows if value(row) is None]
    # Stable, so that rows alike stay in the order of the slots from one look to the next.
    valued.sort(key=value, reverse=is_reversed)  # type: ignore[arg-type]
    others.sort(key=lambda row: row.holder is None)
    return [*valued, *others]


def _user_value(row: SlotRow) -> str | None:
    return None if row.holder is None else row.holder.shown_user or "unknown"


def _ends_value(row: SlotRow) -> Wall | None:
    return None if row.holder is None else row.holder.until


def _memory_value(row: SlotRow) -> float | None:
    share = row.memory_share
    return None if share is None or row.is_free else -share


def _utilization_value(row: SlotRow) -> float | None:
    utilization = row.slot.utilization
    return None if utilization is None or row.is_free else -utilization


def _problem_value(row: SlotRow) -> float | None:
    return min((problem.rank for problem in row.problems), default=None)


_SORT_VALUES: dict[RowOrder, Callable[[SlotRow], float | str | None]] = {
    RowOrder.USER: _user_value,
    RowOrder.ENDS: _ends_value,
    # The most used first, as everybody looks for.
    RowOrder.MEMORY: _memory_value,
    RowOrder.UTILIZATION: _utilization_value,
    RowOrder.PROBLEM: _problem_value,
}


def _natural_key(text: str) -> tuple[bool, int, str]:
    """GPU 10 comes after GPU 9; what is not a number comes last."""
    is_number = text.isascii() and text.isdigit() and len(text) < 10
    return (not is_number, int(text) if is_number else 0, text)
