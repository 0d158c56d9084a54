"""The message catalog, the tables of docs/journal.md and the code say the same, both ways.

The code has the ids and priorities, the catalog the explanations; the tables are for readers. An id
is a promise: whoever changes one has to change it in all three.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ds01d.reporting import log_writers
from ds01d.reporting.message_ids import MESSAGES, VARIANT_KEYS, Event
from ds01d.reporting.message_templates import TEMPLATES

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "journal.md").read_text(encoding="utf-8")
_HEADER = re.compile(r"([A-Z][A-Za-z-]+): (.+)")


@dataclass(frozen=True, slots=True)
class Entry:
    headers: Mapping[str, str]
    body: str

    @property
    def fields(self) -> frozenset[str]:
        """What journalctl substitutes: names of letters and underscores."""
        return frozenset(re.findall(r"@([A-Z_]+)@", "\n".join([*self.headers.values(), self.body])))


def catalog() -> list[tuple[str, Entry]]:
    """The entries in their order, read as systemd reads them: id, headers, blank line, body."""
    text = (ROOT / "systemd" / "ds01d.catalog").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found: list[tuple[str, Entry]] = []
    for part in re.split(r"^-- ", "\n".join(lines), flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n\n")
        ident, *headers = head.splitlines()
        matches = [match for line in headers if (match := _HEADER.fullmatch(line))]
        assert len(matches) == len(headers), headers
        found.append((ident, Entry({m[1]: m[2] for m in matches}, body.strip())))
    return found


ENTRIES = catalog()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of the document."""
    section = DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def documented_fields() -> Mapping[str, tuple[str, ...]]:
    """Field → patterns of the events that have it."""
    return {
        field.strip("`"): tuple(re.findall(r"`([^`]+)`", where))
        for field, where, _ in rows("Fields")
    }


def test_the_catalog_has_every_message_of_the_code_and_no_other() -> None:
    assert [ident for ident, _ in ENTRIES] == [message.id for message in MESSAGES.values()]


def test_every_event_has_messages_and_a_sentence() -> None:
    assert {event for event, _ in MESSAGES} == set(Event) == set(TEMPLATES)
    assert {event for event, word in MESSAGES if word} == set(VARIANT_KEYS)
    ids = [message.id for message in MESSAGES.values()]
    assert not [ident for ident, count in Counter(ids).items() if count > 1]
    assert all(re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{19}", one) for one in ids)


@pytest.mark.parametrize(
    ("ident", "entry"), ENTRIES, ids=[e.headers["Subject"] for _, e in ENTRIES]
)
def test_an_entry_is_whole(ident: str, entry: Entry) -> None:
    assert list(entry.headers) == ["Subject", "Defined-By", "Support", "Documentation"], ident
    assert entry.headers["Defined-By"] == "ds01d"
    page = entry.headers["Support"].removeprefix("file:///usr/share/doc/ds01d/")
    assert (ROOT / "docs" / page).is_file()
    assert len(entry.body) > 80
    assert max(map(len, entry.body.splitlines())) <= 80
    assert all(len(line) < 80 for line in entry.headers.values())


def test_subjects_tell_messages_apart() -> None:
    subjects = Counter(entry.headers["Subject"] for _, entry in ENTRIES)
    assert max(subjects.values()) == 1


def test_the_document_lists_the_messages() -> None:
    expected = [
        [
            f"`{event}`",
            f"`{word}`" if word else "",
            "as the library's" if message.priority is None else message.priority.name.lower(),
            f"`{message.id}`",
        ]
        for (event, word), message in MESSAGES.items()
    ]
    assert rows("Messages") == expected


def test_sentences_and_explanations_use_documented_fields() -> None:
    fields = documented_fields()
    keys = {key for text in TEMPLATES.values() for key in re.findall(r"\{(\w+)\}", text)}
    used = {log_writers.journal_field(key) for key in keys - {"lasted", "done"}}
    assert used <= fields.keys()
    copied = {field for _, entry in ENTRIES for field in entry.fields}
    assert copied == {f"DS_{key.upper()}" for key in log_writers.CATALOG_KEYS}
    assert {field.replace("DS_", "DS01_") for field in copied} <= fields.keys()
    assert all(f"`{field}`" in DOCUMENT for field in copied)
