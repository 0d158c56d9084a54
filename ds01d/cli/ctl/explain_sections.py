"""Single facts and verdicts, each as a document: for `explain`, and for whoever shows one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from ds01d.cli.output.blocks import Document
from ds01d.cli.output.text import DisplayTime, format_span
from ds01d.decide.index import BooksIndex
from ds01d.model.books import Attempt, BadRecord, Record
from ds01d.model.containers import Container
from ds01d.model.devices import GpuProcess
from ds01d.model.holding import Free, Holds, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.primitives import Boot, ContainerName, Now, Unknown, Wall

Section = dict[str, Document]

NOT_KNOWN = Boot(inf)
"""A moment that only the daemon knows."""
_OUR_LABELS = ("aime.mlc", "ds01.")


_HOLDS = {
    VerdictReason.PINNED: "it is pinned, so its bookings stay",
    VerdictReason.CREATING: "it is being created",
    VerdictReason.RUNNING: "it lives, with these devices",
    VerdictReason.LOST: "it lost its booking, which still counts",
}


def describe_verdict(said: Verdict, now: Now) -> str:
    """A verdict in words."""
    match said:
        case Holds():
            what = ", ".join(sorted(said.slots)) or "nothing"
            why = (
                _describe_hold(said)
                if said.why is VerdictReason.HOLD
                else _HOLDS.get(said.why, said.why.value)
            )
            return f"holds {what} as {said.user or 'an unknown user'}: {why}"
        case Free():
            why = {
                Proof.DESTROYED: "Docker reported it destroyed",
                Proof.ABSENT: "no container has this name",
                Proof.EXPIRED: "it is stopped, and its hold is over",
                Proof.RENAMED: f"its container is called {said.renamed_to} now",
            }[said.proof]
            if said.due == NOT_KNOWN:
                return f"free: {why}; when that is proven is known to ds01d only"
            wait = f"; proven in {format_span(said.due - now.boot)}" if said.due > now.boot else ""
            but = f"; not released: {said.blocked}" if said.blocked is not None else ""
            return f"free: {why}{wait}{but}"
        case Undecided():
            return f"undecided, the books keep what they say: {said.needs}: {said.reason}"


def _describe_hold(said: Holds) -> str:
    """Where a stopped container's hold stands: by what it holds and until when."""
    if not said.slots:
        return "it is stopped, and nothing is booked for it"
    return "it is stopped, and its hold " + ("does not end" if said.until is None else "lasts")


def verdict_section(said: Verdict, now: Now) -> Section:
    """A verdict, whole."""
    until = said.until if isinstance(said, Holds) else None
    due = said.due if isinstance(said, Free) else None
    return {
        "says": type(said).__name__.lower(),
        "words": describe_verdict(said, now),
        "slots": sorted(said.slots) if isinstance(said, Holds) else [],
        "why": "unknown" if isinstance(said, Undecided) else said.why.value,
        "until": DisplayTime.of(until, now) if until is not None else None,
        "due": DisplayTime.of(due, now) if due is not None and due != NOT_KNOWN else None,
        "evidence": said.evidence,
    }


def container_section(there: Container) -> Section:
    """What Docker says of a container. Of its labels only ours."""
    request = there.request
    ours = sorted(label for label in there.labels.items() if label[0].startswith(_OUR_LABELS))
    return {
        "id": there.id,
        "state": there.state.value,
        "asks_for": f"unknown: {request.reason}"
        if isinstance(request, Unknown)
        else request.describe(),
        "privileged": there.privileged,
        "pinned": there.pinned,
        "created": display_time(there.created),
        "started": display_time(there.started),
        "finished": display_time(there.finished),
        "labels": [f"{key}={value}" for key, value in ours],
    }


def record_section(there: Record | BadRecord | None) -> Section | None:
    """A metadata record, as it is written."""
    match there:
        case None:
            return None
        case BadRecord():
            return {"unreadable": there.reason, "replaceable": there.replaceable}
        case Record():
            return {
                "user": there.user,
                "gpu_id": there.gpu_id,
                "priority": there.priority,
                "allocated_at": there.allocated_text,
                "stopped_at": there.stopped_text,
            }


def process_rows(found: Iterable[GpuProcess], view: BooksIndex) -> list[Document]:
    """Processes on devices, each with whose it is."""
    engine = view.engine
    lines: list[Document] = []
    for one in found:
        if one.container is None:
            whose = "the host"
        elif isinstance(one.container, Unknown):
            whose = f"unknown: {one.container.reason}"
        else:
            known = engine.containers.get(one.container) if engine is not None else None
            whose = known.name if known is not None else f"{one.container[:12]}, not listed"
        slot = view.table.slot_of.get(one.device)
        lines.append(
            {
                "pid": one.pid,
                "slot": slot,
                "of": whose,
                "user": one.user,
                "command": one.command,
                "memory_mib": None if one.memory is None else one.memory // 2**20,
            }
        )
    return lines


def limits_section(name: ContainerName, view: BooksIndex) -> Section:
    """The hold and the priority of a container's user."""
    if isinstance(view.limits, Unknown):
        return {"unknown": view.limits.reason}
    user = view.find_user(name)
    rule = view.limits.hold(user)
    return {
        "user": user,
        "hold_after_stop": "for ever" if rule.seconds is None else format_span(rule.seconds),
        "from": rule.source,
        "problem": rule.problem,
        "priority": view.limits.priority(user),
    }


def attempt_section(
    name: ContainerName, operations: Mapping[ContainerName, Attempt] | Unknown
) -> Section | None:
    """What the operations log says of a creation."""
    if isinstance(operations, Unknown):
        return {"unknown": operations.reason}
    found = operations.get(name)
    if found is None:
        return None
    return {
        "create_pending_since": display_time(found.started),
        "create_failed": display_time(found.failed),
    }


def display_time(at: Wall | None) -> DisplayTime | None:
    """A moment, if there is one."""
    return DisplayTime(at) if at is not None else None
