"""Running containers that have used none of their slots for long."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

from ds01d.decide.idleness import find_idle_rule, is_exempt
from ds01d.decide.index import BooksIndex
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Holds, Verdicts
from ds01d.model.keep_alive import KEEP_ALIVE_LABEL, find_keep_alive
from ds01d.model.primitives import Wall
from ds01d.text import format_span


def idle_holder(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """Nobody else can have what they hold. Reported, never stopped: no repair depends on it."""
    for name, verdict in verdicts.items() if index.checkpoint.idle else ():
        container = index.containers.get(name)
        run = None if container is None else index.checkpoint.idle.get(container.id)
        if container is None or run is None or not isinstance(verdict, Holds):
            continue
        rule = find_idle_rule(verdict.user, index)
        if rule.seconds is None or index.snapshot.now.boot - run.since < rule.seconds:
            continue
        if is_exempt(container, verdict.user, index):
            continue
        slots = tuple(sorted(verdict.slots))
        label = find_keep_alive(container.labels, container.created)
        problem = label.problem if label is not None else ""
        reason = (
            f"it runs, and has used none of its slots ({', '.join(slots)}) since"
            f" {_format_time(run.began)}; reported after {format_span(rule.seconds)}"
            f" ({rule.source})"
        )
        yield Finding(
            kind=FindingKind.IDLE_HOLDER,
            container=name,
            slot=slots[0],
            reason=f"{reason}; its label {KEEP_ALIVE_LABEL} is invalid: {problem}"
            if problem
            else reason,
            slots=slots,
            user=verdict.user,
            since=run.began,
        )


def _format_time(at: Wall) -> str:
    try:
        return datetime.fromtimestamp(at, tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        # A damaged checkpoint must not end each pass that reports it.
        return "an unknown time"
