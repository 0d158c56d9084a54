"""Single facts and verdicts, each as a document, for `explain`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from ds01d.decide.index import BooksIndex
from ds01d.documents.values import Document, Section, display_boot, display_time
from ds01d.model.books import Attempt, BadRecord, Record
from ds01d.model.containers import Container
from ds01d.model.devices import GpuProcess
from ds01d.model.holding import Free, Holds, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.ownership import Owner
from ds01d.model.primitives import Boot, ContainerName, Now, Unknown
from ds01d.model.reservation import describe_processes
from ds01d.text import format_span

NOT_KNOWN = Boot(inf)
"""A time that only the daemon knows."""
_OUR_LABELS = ("aime.mlc", "ds01.")


_HOLDS = {
    VerdictReason.PINNED: "it is pinned, so its bookings stay",
    VerdictReason.CREATING: "it is being created",
    VerdictReason.RUNNING: "it is running with these devices",
    VerdictReason.LOST: "it lost its booking, which is still valid",
    VerdictReason.OVERDUE: "it is stopped, and its hold is over (policy.expired_holds)",
}


def describe_verdict(verdict: Verdict, now: Now) -> str:
    """A verdict in words."""
    match verdict:
        case Holds():
            slots = ", ".join(sorted(verdict.slots)) or "nothing"
            reason = (
                _describe_hold(verdict)
                if verdict.why is VerdictReason.HOLD
                else _HOLDS.get(verdict.why, verdict.why.value)
            )
            return f"holds {slots} as {verdict.user or 'an unknown user'}: {reason}"
        case Free():
            reason = {
                Proof.DESTROYED: "Docker reported it destroyed",
                Proof.ABSENT: "no container has this name",
                Proof.PROCESS_ENDED: "the process for which it was reserved has ended",
                Proof.EXPIRED: "it is stopped, and its hold is over",
                Proof.RENAMED: f"its container was renamed to {verdict.renamed_to}",
            }[verdict.proof]
            if verdict.due == NOT_KNOWN:
                return f"free: {reason}; when that is proven is known only to ds01d"
            wait = (
                f"; proven in {format_span(verdict.due - now.boot)}"
                if verdict.due > now.boot
                else ""
            )
            blocked = f"; not released: {verdict.blocked}" if verdict.blocked is not None else ""
            return f"free: {reason}{wait}{blocked}"
        case Undecided():
            return f"undecided, its bookings stay: {verdict.needs}: {verdict.reason}"


def _describe_hold(verdict: Holds) -> str:
    """The hold of a stopped container: without end, running, or without a booking."""
    if not verdict.slots:
        return "it is stopped, and nothing is booked for it"
    return "it is stopped, and its hold " + ("does not end" if verdict.until is None else "lasts")


def verdict_section(verdict: Verdict, now: Now) -> Section:
    """A verdict with its times and evidence."""
    until = verdict.until if isinstance(verdict, Holds) else None
    due = verdict.due if isinstance(verdict, Free) else None
    return {
        "says": type(verdict).__name__.lower(),
        "words": describe_verdict(verdict, now),
        "slots": sorted(verdict.slots) if isinstance(verdict, Holds) else [],
        "why": "unknown" if isinstance(verdict, Undecided) else verdict.why.value,
        "until": display_boot(until, now),
        "due": display_boot(None if due == NOT_KNOWN else due, now),
        "evidence": verdict.evidence,
    }


def container_section(container: Container) -> Section:
    """A container as Docker lists it, with the DS01 labels alone."""
    request = container.request
    labels = sorted(label for label in container.labels.items() if label[0].startswith(_OUR_LABELS))
    return {
        "id": container.id,
        "state": container.state.value,
        "asks_for": f"unknown: {request.reason}"
        if isinstance(request, Unknown)
        else request.describe(),
        "privileged": container.privileged,
        "pinned": container.pinned,
        "created": display_time(container.created),
        "started": display_time(container.started),
        "finished": display_time(container.finished),
        "labels": [f"{key}={value}" for key, value in labels],
    }


def record_section(record: Record | BadRecord | None) -> Section | None:
    """A metadata record, as written."""
    match record:
        case None:
            return None
        case BadRecord():
            return {"unreadable": record.reason, "replaceable": record.replaceable}
        case Record():
            return {
                "user": record.user,
                "gpu_id": record.gpu_id,
                "priority": record.priority,
                "allocated_at": record.allocated_text,
                "stopped_at": record.stopped_text,
                "booking": record.booking,
                "process": describe_processes(record.processes) or None,
            }


def owner_facts(owner: Owner | None) -> Section:
    """The owner of a container, the source, and whether that is a guess."""
    if owner is None:
        return {"user": None, "user_by": None, "user_is_guess": False}
    return {"user": owner.user, "user_by": owner.source.value, "user_is_guess": owner.is_guess}


def process_rows(processes: Iterable[GpuProcess], index: BooksIndex) -> list[Document]:
    """Processes on devices, each with its container."""
    engine = index.engine
    rows: list[Document] = []
    for process in processes:
        if process.container is None:
            owner = "the host"
        elif isinstance(process.container, Unknown):
            owner = f"unknown: {process.container.reason}"
        else:
            container = engine.containers.get(process.container) if engine is not None else None
            owner = (
                container.name if container is not None else f"{process.container[:12]}, not listed"
            )
        slot = index.table.slot_of.get(process.device)
        rows.append(
            {
                "pid": process.pid,
                "slot": slot,
                "of": owner,
                "user": process.user,
                "command": process.command,
                "memory_mib": None if process.memory is None else process.memory // 2**20,
            }
        )
    return rows


def attempt_section(
    name: ContainerName, operations: Mapping[ContainerName, Attempt] | Unknown
) -> Section | None:
    """The creation in the operations log."""
    if isinstance(operations, Unknown):
        return {"unknown": operations.reason}
    attempt = operations.get(name)
    if attempt is None:
        return None
    return {
        "create_pending_since": display_time(attempt.started),
        "create_failed": display_time(attempt.failed),
    }
