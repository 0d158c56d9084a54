"""What `ds01ctl fleet` prints: blocks for people, documents for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ds01d.cli.output.blocks import Block, Cell, Sentence, Table, Tone, Toned
from ds01d.documents.values import DisplayTime, Document, display_time
from ds01d.model.fleet import FleetHost, FleetSlot, HostState, Occurrence
from ds01d.model.primitives import Wall
from ds01d.text import format_count, format_span

_MOST_USERS = 8


def host_blocks(hosts: Sequence[FleetHost], now: Wall) -> Iterator[Block]:
    """A row for each host; below an unknown one why, since when, and its last known status."""
    columns = ("host", "state", "age", "slots", "free", "held", "foreign")
    rows = [_make_row(host) for host in hosts]
    yield Table(columns, rows, [list(_describe_unknown(host, now)) for host in hosts])
    yield count_sentence(hosts)


def slot_blocks(hosts: Sequence[FleetHost], profile: str | None, now: Wall) -> Iterator[Block]:
    """A row for each slot that is known to be free."""
    rows: list[Sequence[Cell]] = [
        [host.name, slot.id, slot.kind, _format_age(host)]
        for host in hosts
        for slot in list_free(host, profile)
    ]
    if rows:
        yield Table(("host", "slot", "type", "age"), rows)
    yield count_sentence(hosts, profile)
    yield from _unknown_sentences(hosts, now)


def occurrence_blocks(
    hosts: Sequence[FleetHost], occurrences: Sequence[Occurrence], subject: str, now: Wall
) -> Iterator[Block]:
    """A row for each place where the subject is, or was by the last known status of its host."""
    columns = ("host", "state", "age", "slot", "container", "user", "is")
    rows: list[Sequence[Cell]] = []
    for place in occurrences:
        holder = place.holder
        rows.append(
            [
                place.host.name,
                _state_cell(place.host),
                _format_age(place.host) or _format_last(place.host, now),
                place.slot.id,
                place.container,
                holder.user if holder is not None else None,
                holder.state if holder is not None else "not booked" if place.foreign else "free",
            ]
        )
    if rows:
        yield Table(columns, rows)
    else:
        # Counted, because it may be on one that did not answer.
        answered = sum(host.state is HostState.OK for host in hosts)
        yield Sentence(f'no "{subject}" on {format_count(answered, "known host")}')
    yield from _unknown_sentences(hosts, now)


def list_free(host: FleetHost, profile: str | None) -> list[FleetSlot]:
    """The free slots of a host of that profile, or of any."""
    return [slot for slot in host.free if profile is None or slot.kind == profile]


def count_sentence(hosts: Sequence[FleetHost], profile: str | None = None) -> Sentence:
    """How many slots are free, and beside it how many hosts that does not count."""
    answered = [host for host in hosts if host.state is HostState.OK]
    # The sum of those that answered; the others are named beside it, or it would say too much.
    free = sum(len(list_free(host, profile)) for host in answered)
    total = sum(profile is None or slot.kind == profile for host in answered for slot in host.slots)
    unknown = len(hosts) - len(answered)
    text = f"{free} of {format_count(total, 'slot')} free on {format_count(len(answered), 'host')}"
    if not unknown:
        return Sentence(text)
    return Sentence(f"{text}; {format_count(unknown, 'host')} unknown", Tone.WARN)


def hosts_document(hosts: Sequence[FleetHost], now: Wall) -> dict[str, Document]:
    """What `fleet status --json` prints. `now`: when ages are as they are in it."""
    return {
        "at": DisplayTime(now),
        **_summarize_hosts(hosts),
        "hosts": [_host_document(host) for host in hosts],
    }


def slots_document(hosts: Sequence[FleetHost], profile: str | None) -> dict[str, Document]:
    """What `fleet free --json` prints."""
    return {
        **_summarize_hosts(hosts),
        "free": [
            {"host": host.name, "slot": slot.id, "type": slot.kind, "uuid": slot.uuid}
            for host in hosts
            for slot in list_free(host, profile)
        ],
    }


def occurrences_document(
    hosts: Sequence[FleetHost], occurrences: Sequence[Occurrence]
) -> dict[str, Document]:
    """What `fleet where --json` prints."""
    return {
        **_summarize_hosts(hosts),
        "found": [
            {
                "host": place.host.name,
                "host_state": place.host.state.value,
                "slot": place.slot.id,
                "uuid": place.slot.uuid,
                "container": place.container,
                "user": None if place.holder is None else place.holder.user,
                "state": None if place.holder is None else place.holder.state,
                "booked": place.holder is not None,
            }
            for place in occurrences
        ],
    }


def _summarize_hosts(hosts: Sequence[FleetHost]) -> dict[str, Document]:
    answered = [host for host in hosts if host.state is HostState.OK]
    return {
        "total": {
            "hosts": len(hosts),
            "unknown": len(hosts) - len(answered),
            "slots": sum(len(host.slots) for host in answered),
            "free": sum(len(host.free) for host in answered),
        },
        "unknown": [_unknown_document(host) for host in hosts if host.state is not HostState.OK],
    }


def _unknown_document(host: FleetHost) -> Document:
    return {
        "host": host.name,
        "reason": host.reason,
        "since": display_time(host.unknown_since),
        "last_answer": display_time(host.answered_at),
    }


def _host_document(host: FleetHost) -> Document:
    is_known = host.state is HostState.OK
    status = host.status
    slots = None if status is None else [_slot_document(slot) for slot in status.slots]
    # Two keys, so that no script counts what an unknown host had once.
    return {
        "host": host.name,
        "state": host.state.value,
        "reason": host.reason,
        "unknown_since": display_time(host.unknown_since),
        "last_answer": display_time(host.answered_at),
        "published_at": None if status is None else display_time(status.published_at),
        "age_s": None if host.age_s is None else round(host.age_s, 1),
        "version": None if status is None else status.version,
        "slots": slots if is_known else None,
        "last_slots": None if is_known else slots,
    }


def _slot_document(slot: FleetSlot) -> Document:
    return {
        "slot": slot.id,
        "type": slot.type,
        "profile": slot.profile,
        "uuid": slot.uuid,
        "free": slot.is_free,
        "holders": [
            {"container": holder.container, "user": holder.user, "state": holder.state}
            for holder in slot.holders
        ],
        "foreign": slot.foreign,
    }


def _make_row(host: FleetHost) -> list[Cell]:
    # Empty cells and no zeros: nothing is known of them now.
    if host.state is not HostState.OK:
        return [host.name, _state_cell(host), _format_age(host), None, None, None, None]
    slots = host.slots
    return [
        host.name,
        _state_cell(host),
        _format_age(host),
        len(slots),
        len(host.free),
        sum(bool(slot.holders) for slot in slots),
        sum(bool(slot.foreign) for slot in slots),
    ]


def _state_cell(host: FleetHost) -> Cell:
    return Toned(host.state.value, Tone.GOOD if host.state is HostState.OK else Tone.BAD)


def _format_age(host: FleetHost) -> str | None:
    return None if host.age_s is None else format_span(host.age_s)


def _format_last(host: FleetHost, now: Wall) -> str | None:
    """How old the last known status is that is kept here."""
    if host.status is None or host.answered_at is None:
        return None
    return f"{format_span(now - host.answered_at)} ago"


def _unknown_sentences(hosts: Sequence[FleetHost], now: Wall) -> Iterator[Sentence]:
    for host in hosts:
        for text in _describe_unknown(host, now):
            yield Sentence(f"{host.name}: {text}", Tone.WARN)


def _describe_unknown(host: FleetHost, now: Wall) -> Iterator[str]:
    if host.state is HostState.OK:
        return
    since = "" if host.unknown_since is None else format_span(now - host.unknown_since)
    yield f"unknown{f' for {since}' if since else ''}: {host.reason}"
    if host.status is None:
        yield "nothing is known of what it had before"
        return
    slots = host.status.slots
    # A dictionary keeps the order of the slots, in which people look for theirs.
    users = {h.user or h.container: None for slot in slots for h in slot.holders}
    shown = ", ".join([*users][:_MOST_USERS]) + (" …" if len(users) > _MOST_USERS else "")
    count = sum(bool(slot.holders) for slot in slots)
    age = _format_age(host)
    moment = f"{age} ago" if age else _format_last(host, now) or "some time ago"
    whose = f" by {shown}" if shown else ""
    total = format_count(len(slots), "slot")
    yield f"last known status, {moment}: {count} of {total} held{whose}"
