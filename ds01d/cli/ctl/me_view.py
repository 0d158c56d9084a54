"""`ds01ctl me` for people, as blocks: what is held first, what may be had last."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.cli.ctl.report import finding_table
from ds01d.cli.ctl.status_view import format_idle, format_memory, state_cell
from ds01d.cli.output.blocks import Block, Cell, Sentence, Table, Title, Tone, Toned
from ds01d.cli.output.quota_text import format_amount, format_left, format_other_hosts
from ds01d.documents.notices import OwnNotice, parse_creation
from ds01d.documents.personal import FreeSlots, OwnSlot, PersonalDocument
from ds01d.documents.quota import QuotaDocument
from ds01d.documents.values import DisplayTime
from ds01d.model.primitives import Wall
from ds01d.model.quota import QuotaUnit
from ds01d.text import format_count

_SLOT_COLUMNS = ("slot", "type", "container", "state", "until", "util", "memory", "processes")
_MOST_NOTICES = 10


def personal_blocks(document: PersonalDocument, now: Wall) -> Iterator[Block]:
    """What `ds01ctl me` shows; a part that is empty is left out."""
    for problem in document.problems:
        yield Sentence(problem, Tone.BAD)
    yield Sentence(_summarize(document), Tone.STRONG)
    if document.quota is not None and document.quota.other_hosts is not None:
        yield _describe_other_hosts(document.quota, now)
    if document.slots:
        yield Table((*_SLOT_COLUMNS, "others"), [_slot_row(slot, now) for slot in document.slots])
        if document.readings_at is not None:
            age = document.readings_at.relative_to(now)
            yield Sentence(f"readings of NVML: {age}", Tone.FAINT)
    if document.quota is not None and document.quota.requests:
        yield Title("waiting for slots")
        yield _waiting_table(document.quota)
    if document.drifts:
        yield Title("drifts")
        columns = ("kind", "container", "slot", "verdict", "until", "reason")
        drifts = document.drifts
        yield Table(
            columns, [(d.kind, d.container, d.slot, d.verdict, d.until, d.reason) for d in drifts]
        )
    if document.findings:
        yield Title("findings")
        yield finding_table(document.findings)
    if document.notices:
        yield Title("notices")
        # The newest are at the end, where writers add them.
        newest = document.notices[-_MOST_NOTICES:]
        yield Table(
            ("created", "type", "message"),
            [(_format_creation(notice), notice.type, notice.message) for notice in newest],
        )
    if document.notice_requests:
        yield Title("wanted notices")
        yield Table(
            ("wants", "since", "until"),
            [
                (_format_wish(wish.slot, wish.count, wish.profile), wish.since, wish.until)
                for wish in document.notice_requests
            ],
        )
    yield Title("free slots")
    if document.free:
        yield Table(
            ("type", "free", "by quota", "slots"), [_free_row(part) for part in document.free]
        )
    else:
        yield Sentence("none")


def _summarize(document: PersonalDocument) -> str:
    booked = len({slot.slot for slot in document.slots if slot.is_booked})
    text = f"{document.user} holds {format_count(booked, 'slot')}"
    quota = document.quota
    if quota is None:
        return text
    if quota.limit is None:
        return f"{text}; any number is allowed"
    amount = f"{quota.used + quota.reserved:g} of {format_amount(quota.limit, quota.unit)}"
    left = f"{format_left(quota)} left"
    if quota.unit == QuotaUnit.SLOTS.value:
        return f"{document.user} holds {amount}, {left}"
    return f"{text}: {amount}, {left}"


def _describe_other_hosts(quota: QuotaDocument, now: Wall) -> Sentence:
    elsewhere = quota.other_hosts
    is_sure = elsewhere is not None and not elsewhere.problem
    text = f"on other hosts: {format_other_hosts(quota, now)}"
    return Sentence(text, Tone.PLAIN if is_sure else Tone.WARN)


def _slot_row(slot: OwnSlot, now: Wall) -> list[Cell]:
    since = None if slot.idle_since is None else slot.idle_since.at
    state = state_cell(slot.state, format_idle(since, now))
    if not slot.is_booked:
        state = Toned(f"{slot.state}, not booked", Tone.WARN)
    return [
        slot.slot,
        slot.type,
        slot.container,
        state,
        slot.until,
        None if slot.utilization is None else f"{slot.utilization}%",
        format_memory(slot.memory_used, slot.memory_total),
        slot.processes,
        slot.others,
    ]


def _waiting_table(quota: QuotaDocument) -> Table:
    return Table(
        ("container", "place", "wants", "since", "reason"),
        [
            (
                request.container,
                request.position,
                _format_wish(request.slot, request.count, request.profile),
                request.since,
                request.reason,
            )
            for request in quota.requests
        ],
    )


def _format_wish(slot: str | None, count: int, profile: str | None) -> str:
    return slot or f"{count} {profile or 'of any type'}"


def _format_creation(notice: OwnNotice) -> Cell:
    """The moment as everywhere else; as its writer has it where that is not a whole one."""
    moment = parse_creation(notice)
    if moment is None or moment.tzinfo is None:
        return notice.created_at
    return DisplayTime(Wall(moment.timestamp()))


def _free_row(part: FreeSlots) -> list[Cell]:
    words = {True: Toned("allowed", Tone.GOOD), False: Toned("none left", Tone.WARN)}
    allowed = None if part.allowed is None else words[part.allowed]
    return [part.type, len(part.slots), allowed, part.slots]
