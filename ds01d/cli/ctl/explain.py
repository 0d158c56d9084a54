"""`ds01ctl explain`: everything about a container or a slot, the verdict first."""

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
from ds01d.errors import Ds01Error
from ds01d.model.primitives import ContainerName, SlotId
from ds01d.text import make_printable


@click.command()
@click.argument("name", metavar="NAME|SLOT", shell_complete=completion.subjects)
@json_option
@config_option
@click.pass_obj
def explain(invocation: Invocation, *, name: str, as_json: bool) -> int:
    """Explain a container or a slot: the verdict with its reasons, then the facts behind it.

    NAME may also be a container ID, or at least its first 12 characters.
    """
    config = invocation.config()
    report = plan_pass(invocation, config)
    history: tuple[HistoryRow, ...] | str
    try:
        history = tuple(read_rows(invocation.environment.read_history(config)))
    except Ds01Error as error:
        history = str(error)
    index = SubjectIndex(report=report, config=config, history=history)
    documents = list(_find_documents(name, index))
    if not documents:
        raise click.ClickException(_describe_missing(name, index))
    if as_json:
        show_json(documents[0] if len(documents) == 1 else {"both": documents})
    else:
        show_blocks(reports.warning_sentences(report), reports.report_time(report))
        for document in documents:
            show_blocks(_document_blocks(document, index), reports.report_time(report))
    return CONSISTENT


def _find_documents(name: str, index: SubjectIndex) -> Iterator[dict[str, Document]]:
    """The documents of that name: a slot, a container, or (for an odd name) both."""
    if name in index.slot_ids() and index.index is not None:
        yield index.slot_document(SlotId(name), index.index)
    # Not `elif`: a container may be called like a slot, and both are then shown.
    if name in index.container_names():
        yield index.container_document(ContainerName(name))
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
    close = {name, *difflib.get_close_matches(name, {*names, *short}, n=3)}
    return [
        full for full, short_name in zip(names, short, strict=True) if {full, short_name} & close
    ][:3]


_HEADINGS = {"memory": "checkpoint"}  # the keys of the JSON document stay as they were


def _document_blocks(document: Mapping[str, Document], index: SubjectIndex) -> Iterator[Block]:
    subject, now = str(document["subject"]), index.snapshot.now
    yield Sentence(f"{document['type']} {make_printable(subject)}", Tone.STRONG)
    for name, section in document.items():
        if name in {"subject", "type", "troubles"} or section == []:
            continue
        yield Title(_HEADINGS.get(name, name))
        match name:
            case "drifts":
                yield reports.drift_table(index.drifts_about((subject,)), now, verbose=True)
            case "findings":
                yield reports.finding_table(index.findings_about((subject,)))
            case "history" if isinstance(index.history, tuple):
                yield history_table(index.last_entries((subject,)))
            case "verdict" if isinstance(section, Mapping):
                yield Sentence(str(section["words"]), Tone.STRONG)
                rest = ("until", "due", "evidence")
                yield from _section_blocks({key: section.get(key) for key in rest})
            case _:
                yield from _section_blocks(section)


def _section_blocks(section: Document) -> Iterator[Block]:
    """A section: facts by name, then tables."""
    if not isinstance(section, Mapping):
        rows = _mapping_rows(section)
        yield _rows_table(rows) if rows else Sentence("none", Tone.FAINT)
        return
    facts = [
        (k, v) for k, v in section.items() if not _mapping_rows(v) and v not in (None, "", [], ())
    ]
    if facts:
        yield Facts([(name.replace("_", " "), value) for name, value in facts])
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
