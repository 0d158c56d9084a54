"""events.jsonl as a witness: what is shown of it is short, about the name, and a claim."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.adapters.books.claimed_events import read_claims

NAME = "train._.1001"
CLAIM = {
    "timestamp": "2026-07-22T08:20:00.000001Z",
    "event_type": "maintenance.idle_kill",
    "schema_version": "1",
    "user": "root",
    "details": {"container": NAME, "idle": 3},
}


def write(path: Path, *events: object) -> None:
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def test_the_newest_lines_about_a_container(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    others = [{**CLAIM, "details": {"container": f"c{number}"}} for number in range(100)]
    mine = [{**CLAIM, "timestamp": str(number)} for number in range(9)]
    write(path, *others, *mine)
    claims = read_claims(path, NAME, 5)
    assert not isinstance(claims, str)
    assert [claim.at for claim in claims] == ["4", "5", "6", "7", "8"]
    assert (claims[0].type, claims[0].user, claims[0].details) == (
        "maintenance.idle_kill",
        "root",
        "idle=3",
    )


@pytest.mark.parametrize(
    "event",
    [
        {**CLAIM, "source": "ds01d"},
        {**CLAIM, "details": {"container": f"{NAME}2"}},
        {**CLAIM, "details": {"container": "x", "text": f"about {NAME}"}},
        {**CLAIM, "details": [NAME]},
        {**CLAIM, "timestamp": 5},
        {**CLAIM, "details": {"container": NAME, "long": "x" * 5000}},
        NAME,
    ],
    ids=["ours", "longer name", "in a text", "a list", "a number", "too long", "a text"],
)
def test_other_lines_say_nothing(tmp_path: Path, event: object) -> None:
    path = tmp_path / "events.jsonl"
    write(path, event)
    assert read_claims(path, NAME, 5) == []


def test_a_huge_file_is_read_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(0, 2)
        file.write(b"\n" + json.dumps(CLAIM).encode() + b"\n")
    claims = read_claims(path, NAME, 5)
    assert [claim.type for claim in claims if not isinstance(claim, str)] == [
        "maintenance.idle_kill"
    ]


@settings(max_examples=100)
@given(st.binary(max_size=300), st.recursive(st.text() | st.integers(), st.lists, max_leaves=8))
def test_whatever_stands_there_nothing_breaks(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, value: object
) -> None:
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    event = {**CLAIM, "details": {"container": NAME, "value": value}}
    path.write_bytes(noise + b"\n" + json.dumps(event).encode() + b"\n" + noise)
    claims = read_claims(path, NAME, 5)
    assert not isinstance(claims, str)
    assert len(claims) <= 1
    assert all(len(claim.details) <= 200 for claim in claims)
