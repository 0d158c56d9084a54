"""`ds01ctl explain`: everything known of a container or a slot, the verdict first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.ctl import report as reports
from ds01d.cli.ctl.explain_subjects import SubjectIndex
from ds01d.cli.ctl.history_view import HistoryRow, history_table, read_rows
from ds01d.cli.ctl.plan import plan_pass
from ds01d.cli.output.blocks import Block, Document, Facts, Sentence, Table, Title, Tone
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.cli.output.text import format_count, make_printable
from ds01d.errors import Ds01Error
from ds01d.model.primitives import ContainerName, SlotId, Unknown


@click.command()
@click.argument("name", metavar="NAME|SLOT", shell_complete=completion.subjects)
@json_option
@config_option
@click.pass_obj
def explain(invocation: Invocation, *, name: str, as_json: bool) -> int:
    """Tell all that is known of a container or a slot, the verdict with its reasons first.

    NAME may also be a container's id, or the first twelve signs of it or more.
    """
    config = invocation.config()
    report = plan_pass(invocation, config)
    found: tuple[HistoryRow, ...] | str
    try:
        found = tuple(read_rows(invocation.environment.history(config)))
    except Ds01Error as error:
        found = str(error)
    known = SubjectIndex(report=report, config=config, deeds=found)
    documents = list(_find_documents(name, known))
    if not documents:
        raise click.ClickException(_describe_missing(name, known))
    if as_json:
        show_json(documents[0] if len(documents) == 1 else {"both": documents})
    else:
        show_blocks(reports.warning_sentences(report), reports.report_time(report))
        for document in documents:
            show_blocks(_document_blocks(document, known), reports.report_time(report))
    return CONSISTENT


def _find_documents(name: str, known: SubjectIndex) -> Iterator[dict[str, Document]]:
    """What there is of that name: a slot, a container, or (an odd name) both."""
    if name in known.slots() and known.view is not None:
        yield known.slot(SlotId(name), known.view)
    if name in known.names():
        yield known.container(ContainerName(name))
    elif len(name) >= 12 and known.engine is not None:
        for container in known.engine.containers.values():
            if container.id.startswith(name):
                yield known.container(container.name)


def _describe_missing(name: str, known: SubjectIndex) -> str:
    """Why there is nothing to tell: what was looked at, and what may have been meant."""
    looked = []
    if known.view is not None:
        looked.append(format_count(len(known.slots()), "slot"))
        looked.append(format_count(len(known.view.booked_slots), "booked container"))
    if not isinstance(known.seen.metadata, Unknown):
        looked.append(format_count(len(known.records), "metadata record"))
    if known.engine is not None:
        looked.append(f"{format_count(len(known.engine.containers), 'container')} of Docker")
    among = f"is not among {', '.join(looked)}" if looked else "is not known"
    silent = [f"{s} ({why})" for s, why in known.report.sources.items() if why != "ok"]
    unasked = f"; no answer from {', '.join(silent)}" if silent else ""
    near = _similar_names(name, (*known.names(), *known.slots()))
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{name} {among}{unasked}{meant}"


def _similar_names(name: str, known: Iterable[str]) -> list[str]:
    """Names that were probably meant; `train` means `train._.1001` too."""
    known = sorted(known)
    short = [one.partition("._.")[0] for one in known]
    close = {name, *difflib.get_close_matches(name, {*known, *short}, n=3)}
    return [one for one, brief in zip(known, short, strict=True) if {one, brief} & close][:3]


def _document_blocks(document: Mapping[str, Document], known: SubjectIndex) -> Iterator[Block]:
    subject, now = str(document["subject"]), known.seen.now
    yield Sentence(f"{document['type']} {make_printable(subject)}", Tone.STRONG)
    for name, section in document.items():
        if name in {"subject", "type", "troubles"} or section == []:
            continue
        yield Title(name)
        match name:
            case "drifts":
                yield reports.drift_table(known.drifts((subject,)), now, verbose=True)
            case "findings":
                yield reports.finding_table(known.findings((subject,)))
            case "history" if isinstance(known.deeds, tuple):
                yield history_table(known.last_deeds((subject,)))
            case "verdict" if isinstance(section, Mapping):
                yield Sentence(str(section["words"]), Tone.STRONG)
                rest = ("until", "due", "evidence")
                yield from _section_blocks({key: section.get(key) for key in rest})
            case _:
                yield from _section_blocks(section)


def _section_blocks(section: Document) -> Iterator[Block]:
    """A section: facts by name, then rows of one form."""
    if not isinstance(section, Mapping):
        rows = _mapping_rows(section)
        yield _rows_table(rows) if rows else Sentence("none", Tone.FAINT)
        return
    told = [
        (k, v) for k, v in section.items() if not _mapping_rows(v) and v not in (None, "", [], ())
    ]
    if told:
        yield Facts([(name.replace("_", " "), value) for name, value in told])
    for name, value in section.items():
        if rows := _mapping_rows(value):
            yield Sentence(f"{name.replace('_', ' ')}:")
            yield _rows_table(rows)


def _mapping_rows(value: Document) -> list[Mapping[str, Document]]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return []
    return [row for row in value if isinstance(row, Mapping)]


def _rows_table(rows: Sequence[Mapping[str, Document]]) -> Table:
    columns = [name.replace("_", " ") for name in rows[0]]
    return Table(columns, [list(row.values()) for row in rows])
