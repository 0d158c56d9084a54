"""The status in words: the line of STATUS=, and the parts of it that commands show too."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Final

from ds01d.model.containers import EngineWarningKind
from ds01d.model.drift import Outcome
from ds01d.model.primitives import Source, Wall
from ds01d.reporting.status import PassHealth, Status
from ds01d.text import format_count

_HALF_A_DAY_S: Final = 43_200.0


def format_summary(status: Status, now: Wall) -> str:
    """For STATUS=: "3 slots of 12 held, 0 drifts; docker ok, nvml ok; last sweep at 20:51:04".

    Before it that passes fail, then failed repairs.
    """
    # Decision 106: with clock times, since the line stays until the next one.
    used = sum(bool(slot.holders) for slot in status.slots)
    open_drifts = sum(d.count for d in status.drifts if d.outcome is not Outcome.DONE)
    counts = [f"{format_count(used, 'slot')} of {len(status.slots)} held"]
    counts.append(f"{format_count(open_drifts, 'drift')}{incomplete_suffix(status)}")
    if status.findings:
        counts.append(format_count(len(status.findings), "finding"))
    parts = [
        describe_failing(status.passes, now),
        describe_failed(status),
        *_describe_states(status),
        ", ".join(counts),
        ", ".join(_describe_sources(status)),
    ]
    if status.last_sweep:
        parts.append(f"last sweep at {_format_clock(status.last_sweep.at, now)}")
    return "; ".join(part for part in parts if part)


def describe_failing(passes: PassHealth, now: Wall) -> str:
    """Since when and why passes fail, "" if they do not."""
    if passes.failing_since is None:
        return ""
    success = (
        "none has succeeded yet"
        if passes.last_success is None
        else f"the last that succeeded began at {_format_clock(passes.last_success, now)}"
    )
    since = _format_clock(passes.failing_since, now)
    return f"passes fail since {since}, nothing is repaired: {passes.reason}; {success}"


def describe_failed(status: Status) -> str:
    """How many repairs failed, and why the first of them did; "" if none did."""
    failed = sum(d.count for d in status.drifts if d.outcome is Outcome.FAILED)
    if not failed:
        return ""
    # The counts are complete, the list of open drifts is bounded: there may be no reason.
    reasons = [drift.reason for drift in status.open_drifts if drift.outcome is Outcome.FAILED]
    why = f": {reasons[0]}" if reasons else ""
    return f"{format_count(failed, 'repair')} failed{why}"


def _format_clock(at: Wall, now: Wall) -> str:
    """A local time of the clock, with the date unless it is within half a day of now."""
    local = datetime.fromtimestamp(at, timezone.utc).astimezone()
    return f"{local:%H:%M:%S}" if abs(now - at) < _HALF_A_DAY_S else f"{local:%Y-%m-%d %H:%M:%S}"


def incomplete_suffix(status: Status) -> str:
    """The suffix " known" of a count of drifts that a failed source makes incomplete, or ""."""
    # Only these decide about drifts; the others inform.
    needed = (Source.DOCKER, Source.NVML, Source.STATE, Source.METADATA)
    down = (status.sources[source] for source in needed if source in status.sources)
    return "" if all(answer.ok for answer in down) else " known"


def _describe_states(status: Status) -> Iterable[str]:
    if status.mode == "observe":
        yield "observing only"
    if not status.engine_trusted:
        yield "another Docker engine, nothing is released"
    if status.freezes:
        yield "frozen: " + ", ".join(
            "everything" if freeze.subject == "*" else freeze.subject for freeze in status.freezes
        )
    for warning in status.warnings:
        # That one never ends, so it would hide every other in the line.
        if warning.kind is not EngineWarningKind.NO_LASTING_ID:
            yield warning.text
    if status.degraded:
        yield "degraded: " + ", ".join(status.degraded)


def _describe_sources(status: Status) -> Iterable[str]:
    """Docker and NVML always, the others only where they fail."""
    for source, answer in status.sources.items():
        if not answer.ok:
            yield f"{source} down ({answer.reason})"
        elif source in {Source.DOCKER, Source.NVML}:
            yield f"{source} ok"
