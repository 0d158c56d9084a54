"""What `ds01ctl explain` shows of one name: a slot, a container, or both."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

import msgspec

from ds01d.config import Config
from ds01d.decide.booking_record import find_booking
from ds01d.decide.short_names import find_by_name
from ds01d.documents.history import HistoryRow
from ds01d.documents.subjects import SubjectIndex
from ds01d.documents.values import DisplayTime, Document, DocumentPart, Section
from ds01d.errors import Refused
from ds01d.model.primitives import ContainerName, SlotId
from ds01d.model.reservation import parse_booking_id
from ds01d.reconcile.report import Report
from ds01d.reporting.fleet_status import FleetStatus
from ds01d.reporting.status import Status

_MOST_COMPARED = 1000  # names that one that was mistyped is compared with: it takes 50 ms
_MOST_SIMILAR = 3


class Explanation(DocumentPart, frozen=True):
    """One document for a slot or a container of that name, two for a name that is both."""

    at: DisplayTime
    troubles: tuple[str, ...]
    documents: tuple[dict[str, Document], ...]


def explain_subject(
    name: str,
    report: Report,
    config: Config,
    history: tuple[HistoryRow, ...] | str,
    uid: int | None = None,
) -> Explanation:
    """Everything about a container or a slot. Raises `Refused` where there is no such one, or more.

    `name` may also be a short name (of several that of `uid`), a container ID, or at least its
    first 12 characters, or the ID of a booking.
    """
    index = SubjectIndex(report=report, config=config, history=history)
    documents = tuple(_find_documents(name, index, uid))
    if not documents:
        raise Refused(_describe_missing(name, index))
    return Explanation(
        at=DisplayTime(report.decision.snapshot.now.wall),
        troubles=report.warnings,
        documents=documents,
    )


def _find_documents(name: str, index: SubjectIndex, uid: int | None) -> Iterator[Section]:
    if name in index.slot_ids() and index.index is not None:
        yield index.slot_document(SlotId(name), index.index)
    # An ID is looked up in the records: its container may have another name since a claim.
    booking = parse_booking_id(name)
    if booking is not None and index.index is not None:
        name = find_booking(booking, index.index.records) or name
    # Not `elif`: a container may be called like a slot, and both are then shown.
    names = index.container_names()
    is_slot = name in index.slot_ids()
    # A slot is meant by its ID, whatever containers are called beside it.
    full_name = ContainerName(name) if is_slot else find_by_name(name, names, uid)
    if full_name is not None and full_name in names:
        yield index.container_document(full_name)
    # Docker's short IDs have 12 characters; shorter prefixes would match names by accident.
    elif len(name) >= 12 and index.engine is not None:
        for container in index.engine.containers.values():
            if container.id.startswith(name):
                yield index.container_document(container.name)


def _describe_missing(name: str, index: SubjectIndex) -> str:
    """Why there is nothing to explain: sources that failed, and names that may be meant."""
    failed = [f"{s} ({why})" for s, why in index.report.sources.items() if why != "ok"]
    unread = f"; not read: {', '.join(failed)}" if failed else ""
    similar = _similar_names(name, (*index.container_names(), *index.slot_ids()))
    hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
    return f'no slot or container "{name}"{unread}{hint}'


def _similar_names(name: str, names: Iterable[str]) -> list[str]:
    """Names close to this one; `train` is close to `train._.1001`."""
    names = sorted(names)
    short = [full.partition("._.")[0] for full in names]
    candidates = sorted({*names, *short})[:_MOST_COMPARED]
    close = {name, *difflib.get_close_matches(name, candidates, n=_MOST_SIMILAR)}
    return [
        full for full, short_name in zip(names, short, strict=True) if {full, short_name} & close
    ][:_MOST_SIMILAR]


def add_fleet(explanation: Explanation, published: Status | None) -> Explanation:
    """The explanation with what is wrong in the store, as ds01d has published it."""
    fleet = None if published is None else published.fleet
    if fleet is None:
        return explanation
    subjects = {str(document["subject"]) for document in explanation.documents}
    lines = _describe_problems(fleet, subjects)
    return msgspec.structs.replace(explanation, troubles=(*explanation.troubles, *lines))


def _describe_problems(fleet: FleetStatus, subjects: set[str]) -> Iterator[str]:
    if fleet.state != "member":
        yield f"fleet: this host is {fleet.state}: {fleet.reason or 'not asked yet'}"
    for drift in fleet.drifts:
        if drift.container in subjects:
            waits = f"; {drift.outcome}: {drift.reason}" if drift.reason else f"; {drift.outcome}"
            yield f"fleet: {drift.kind}: {drift.difference}{waits}"
    # By a user or a host they are about more than this container.
    for finding in fleet.findings:
        if finding.subject in subjects:
            yield f"fleet: {finding.kind}: {finding.reason}"
