"""`ds01ctl report`: who had which slot for how long, and what became of the time."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import parse_since
from ds01d.cli.output.blocks import Block, Cell, Sentence, Table, Tone
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.documents.usage_report import BookingLine, Hours, UsageLine, UsageReport, UsageTimes
from ds01d.documents.values import DisplayTime
from ds01d.errors import Refused
from ds01d.model.accounting import ReportQuery, ReportSubject
from ds01d.model.primitives import SlotId, UserName, Wall
from ds01d.text import format_count, make_printable

_DEFAULT_S = 30 * 86400.0
_SHOWN = 50
_PARTS = ("booked", "used", "idle", "retained", "unknown")
# With these a spreadsheet takes a cell for a formula (OWASP, CSV Injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@click.command()
@click.option(
    "--since",
    callback=parse_since,
    metavar="2d|TIME",
    help="The begin of the period; 30 days ago by default.",
)
@click.option("--until", callback=parse_since, metavar="2d|TIME", help="Its end; now by default.")
@click.option(
    "--by",
    type=click.Choice([subject.value for subject in ReportSubject]),
    default=ReportSubject.USER.value,
    show_default=True,
    help="What a line is about.",
)
@click.option(
    "--user", metavar="USER", shell_complete=completion.users, help="Only this user's bookings."
)
@click.option("--group", metavar="GROUP", help="Only those of a group of the limits.")
@click.option(
    "--slot", metavar="SLOT", shell_complete=completion.slots, help="Only those of this slot."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"With --by booking: the newest so many, 0 for all; by default {_SHOWN} in a table.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="How it is printed.",
)
@json_option
@config_option
@click.pass_obj
def report(
    invocation: Invocation,
    *,
    since: Wall | None,
    until: Wall | None,
    by: str,
    user: str | None,
    group: str | None,
    slot: str | None,
    limit: int | None,
    form: str,
    as_json: bool,
) -> int:
    """Show GPU hours: booked, and of these used, idle, and retained after a stop.

    A MIG device counts as its part of a GPU; users see their own bookings, operators all.
    """
    now = Wall(time.time())
    query = ReportQuery(
        since=Wall(now - _DEFAULT_S) if since is None else since,
        until=now if until is None else until,
        by=ReportSubject(by),
        user=None if user is None else UserName(user),
        group=group,
        slot=None if slot is None else SlotId(slot),
        most=_choose_limit(limit, by, "json" if as_json else form),
    )
    if query.until < query.since:
        raise Refused("the period ends before it begins: --until has to be later than --since")
    config, environment = invocation.config(), invocation.environment
    # Decision 249: the daemon knows who asks, and shows users their own bookings alone.
    remote = environment.find_operations(config)
    usage = environment.read_usage(config, query) if remote is None else remote.read_usage(query)
    if as_json or form == "json":
        show_json("report", usage)
    elif form == "csv":
        click.echo(format_csv(usage), nl=False)
    else:
        show_blocks(usage_blocks(usage), now)
    return CONSISTENT


def _choose_limit(limit: int | None, by: str, form: str) -> int | None:
    # A sum without some of its lines would look like a whole one.
    if by != ReportSubject.BOOKING.value:
        return None
    if limit is None:
        return _SHOWN if form == "table" else None
    return limit or None


def usage_blocks(usage: UsageReport) -> Iterator[Block]:
    """The report for people."""
    if usage.by == ReportSubject.BOOKING.value:
        rows = [_booking_row(booking) for booking in usage.bookings]
        columns = ("container", "user", "slot", "begin", "end", "ended by", *_hour_columns())
    else:
        rows = [_sum_row(line) for line in usage.lines]
        if usage.total is not None and len(rows) > 1:
            rows.append(("total", *_time_cells(usage.total)))
        columns = (usage.by, "bookings", "slot hours", *_hour_columns())
    if rows:
        yield Table(columns, rows)
    period = f"{usage.since.to_local()} to {usage.until.to_local()}"
    yield Sentence(f"{period}{'' if rows else ': no bookings'}")
    if usage.older_than is not None:
        shown = format_count(len(usage.bookings), "booking")
        yield Sentence(f"the newest {shown}: --limit 0 shows all")
    yield from _completeness_sentences(usage)


def _completeness_sentences(usage: UsageReport) -> Iterator[Sentence]:
    """From when on it is complete, where that is within the period."""
    # Hours that nobody recorded would else read as hours that nobody had.
    complete, sampled = usage.complete_since, usage.sampled_since
    if complete is not None and complete.at > usage.since.at:
        text = f"complete since {complete.to_local()}; earlier bookings may be missing"
        yield Sentence(text, Tone.WARN)
    if sampled is not None and sampled.at > usage.since.at:
        text = f"use is known since {sampled.to_local()}; earlier time is unknown"
        yield Sentence(text, Tone.WARN)
    if usage.as_of is not None and usage.as_of.at < usage.until.at:
        yield Sentence(f"as of {usage.as_of.to_local()}", Tone.FAINT)
    if usage.total is not None and usage.total.unweighed_slot_hours:
        hours = f"{usage.total.unweighed_slot_hours:.2f}"
        text = f"{hours} slot hours of MIG devices of unknown size are in no GPU hours"
        yield Sentence(text, Tone.WARN)


def _hour_columns() -> tuple[str, ...]:
    return ("gpu hours", *_PARTS[1:])


def _sum_row(line: UsageLine) -> tuple[Cell, ...]:
    return (line.subject, *_time_cells(line.times))


def _time_cells(times: UsageTimes) -> tuple[Cell, ...]:
    return (times.bookings, f"{times.slot_hours.booked:.2f}", *_hour_cells(times.gpu_hours))


def _hour_cells(hours: Hours) -> tuple[Cell, ...]:
    parts = (getattr(hours, part) for part in _PARTS[1:])
    return (f"{hours.booked:.2f}", *(_show_part(part, hours.booked) for part in parts))


def _show_part(hours: float, whole: float) -> str:
    return f"{hours:.2f} ({hours / whole:.0%})" if whole else f"{hours:.2f}"


def _booking_row(booking: BookingLine) -> tuple[Cell, ...]:
    return (
        booking.container,
        booking.user,
        booking.slot,
        booking.begin.to_local(),
        None if booking.end is None else booking.end.to_local(),
        booking.reason or None,
        *_hour_cells(booking.times.gpu_hours),
    )


def format_csv(usage: UsageReport) -> str:
    """The report for spreadsheets and scripts: a line for each row, without a total."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    hours = [f"{unit}_hours_{part}" for unit in ("slot", "gpu") for part in _PARTS]
    if usage.by == ReportSubject.BOOKING.value:
        names = ("id", "container", "user", "slot", "profile", "gpus", "begin", "end", "reason")
        writer.writerow((*names, *hours))
        for booking in usage.bookings:
            cells = (_format_value(getattr(booking, name)) for name in names)
            writer.writerow((*cells, *_list_hours(booking.times)))
    else:
        writer.writerow((usage.by, "bookings", *hours, "unweighed_slot_hours"))
        for line in usage.lines:
            times = line.times
            subject = _format_value(line.subject)
            writer.writerow(
                (subject, times.bookings, *_list_hours(times), times.unweighed_slot_hours)
            )
    return text.getvalue()


def _list_hours(times: UsageTimes) -> Iterator[float]:
    for hours in (times.slot_hours, times.gpu_hours):
        yield from (getattr(hours, part) for part in _PARTS)


def _format_value(value: object) -> object:
    if isinstance(value, DisplayTime):
        return value.to_utc()
    if not isinstance(value, str):
        return value
    # Names are written by users, and a spreadsheet computes what looks like a formula.
    text = make_printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
