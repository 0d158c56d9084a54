"""`ds01ctl explain`: everything about a container or a slot, the verdict first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, TypeVar

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.ctl.history_view import history_table
from ds01d.cli.ctl.operations import open_operations
from ds01d.cli.ctl.report import drift_table, finding_table, warning_sentences
from ds01d.cli.output.blocks import Block, Facts, Sentence, Table, Title, Tone
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.documents.history import EntryDocument
from ds01d.documents.passes import DriftDocument
from ds01d.documents.values import Document
from ds01d.model.drift import Finding
from ds01d.text import make_printable

_Row = TypeVar("_Row")


@click.command()
@click.argument("name", metavar="NAME|SLOT", shell_complete=completion.subjects)
@json_option
@config_option
@click.pass_obj
def explain(invocation: Invocation, *, name: str, as_json: bool) -> int:
    """Explain a container or a slot: the verdict with its reasons, then the facts behind it.

    NAME may also be a short name ("train" for train._.1001), a container ID, or at least its first
    12 characters, or the ID of a booking.
    """
    config = invocation.config()
    with open_operations(invocation, config) as operations:
        explanation = operations.explain_subject(name)
    documents, now = explanation.documents, explanation.at.at
    if config.logs.events_path is not None:
        documents = tuple(_add_claims(document, config.logs.events_path) for document in documents)
    if as_json:
        show_json("explain", documents[0] if len(documents) == 1 else {"both": documents})
    else:
        show_blocks(warning_sentences(explanation.troubles), now)
        for document in documents:
            show_blocks(_document_blocks(document), now)
    return CONSISTENT


def _add_claims(document: dict[str, Document], events: Path) -> dict[str, Document]:
    """The document of a container, with what events.jsonl claims of it."""
    from ds01d.adapters.books.claimed_events import read_claims  # noqa: PLC0415 - only here

    if document["type"] != "container":
        return document
    # Decision 236: only here, with the caller's rights; the daemon does not read that file.
    claims = read_claims(events, str(document["subject"]), _MOST_CLAIMS)
    if isinstance(claims, str):
        return {**document, "claims": {"unknown": claims}}
    return {**document, "claims": [asdict(claim) for claim in claims]}


_MOST_CLAIMS: Final = 5
_HEADINGS = {"memory": "checkpoint"}  # the keys of the JSON document stay as they were


def _document_blocks(document: Mapping[str, Document]) -> Iterator[Block]:
    subject = str(document["subject"])
    yield Sentence(f"{document['type']} {make_printable(subject)}", Tone.STRONG)
    for name, section in document.items():
        if name in {"subject", "type", "troubles"} or section in ([], ()):
            continue
        yield Title(_HEADINGS.get(name, name))
        match name:
            case "drifts":
                yield drift_table(_rows_of(section, DriftDocument), verbose=True)
            case "findings":
                yield finding_table(_rows_of(section, Finding))
            case "history" if not isinstance(section, Mapping):
                yield history_table(_rows_of(section, EntryDocument))
            case "verdict" if isinstance(section, Mapping):
                yield Sentence(str(section["words"]), Tone.STRONG)
                rest = ("until", "due", "evidence")
                yield from _section_blocks({key: section.get(key) for key in rest})
            case _:
                yield from _section_blocks(section)


def _rows_of(section: Document, kind: type[_Row]) -> list[_Row]:
    """The rows of a section that is a table."""
    rows = section if isinstance(section, Sequence) else ()
    return [row for row in rows if isinstance(row, kind)]


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
