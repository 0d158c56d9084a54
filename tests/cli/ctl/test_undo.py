"""`undo` takes back what `history` lists, says what it does, and refuses with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_on_files import GONE as FILED
from tests.cli.test_on_files import Installed, installed  # noqa: F401 - a fixture
from tests.support.commands import Desk, by_sudo
from tests.support.sample_host import GONE


@pytest.fixture
def entry(desk: Desk) -> str:
    """The one release that was made."""
    desk.call("reconcile", "--wait")
    (one,) = desk.json("history")["entries"]
    return str(one["id"])


def test_it_says_what_comes_back_and_that_it_is_held(
    desk: Desk, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_sudo(monkeypatch)
    planned = desk.call("undo", entry, "--dry-run")
    assert planned.exit_code == 0
    assert planned.stdout.splitlines() == [
        f"Would undo {entry}",
        f"  {GONE} is booked in slot 1.1 again",
        f"  the metadata of {GONE} is as it was",
    ]
    assert (GONE, "1.1") not in desk.host.bookings()
    done = desk.call("undo", entry)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"Undone: {entry}, by entry ")
    assert (GONE, "1.1") in desk.host.bookings()
    held = desk.call("reconcile")
    assert held.exit_code == 2
    assert "undone by root (sudo ada)" in held.stdout
    assert f"ds01ctl thaw {GONE}" in held.stdout
    assert any(f"|undo|root (sudo ada)|{GONE}|1.1|" in _told(line) for line in desk.host.operations)
    assert [a.split("|")[0] for a in desk.host.allocations] == ["RELEASED", "ALLOCATED"]


def _told(line: object) -> str:
    fields = ("operation", "user", "container", "gpu", "status")
    return "|" + "|".join(str(getattr(line, field)) for field in fields) + "|"


def test_the_history_tells_both(desk: Desk, entry: str) -> None:
    undo = desk.json("undo", entry)["id"]
    first, second = desk.json("history", GONE)["entries"]
    assert (first["outcome"], first["undone_by"], first["by"]) == ("undone", undo, "ds01d")
    assert (second["action"], second["undoes"], second["outcome"]) == ("undo", [entry], "done")
    assert second["before"] == first["after"]
    assert second["after"] == first["before"]
    assert [e["id"] for e in desk.json("history", undo)["entries"]] == [undo]


def test_twice_is_refused_and_an_undo_is_undone(desk: Desk, entry: str) -> None:
    undo = desk.json("undo", entry)["id"]
    again = desk.call("undo", entry)
    assert again.exit_code == 1
    assert again.stderr == (
        f"ds01ctl: {entry} is not undone: {entry} is already undone by {undo};"
        f" to do it again: ds01ctl undo {undo}\n"
    )
    assert desk.json("undo", entry)["refused"]["why"] == "already-undone"
    assert desk.call("undo", undo).exit_code == 0
    assert (GONE, "1.1") not in desk.host.bookings()
    assert desk.call("reconcile").exit_code == 0


def test_an_unknown_entry_is_refused(desk: Desk) -> None:
    result = desk.call("undo", "nonsense")
    assert result.exit_code == 1
    assert "the history has no entry nonsense" in result.stderr


@pytest.mark.parametrize("subject", [GONE, "1.1", "the undo"])
def test_a_thaw_lets_it_be_done_again(desk: Desk, entry: str, subject: str) -> None:
    undo = desk.json("undo", entry)["id"]
    assert desk.json("status")["undone"][0]["id"] == undo
    thawed = desk.call("thaw", undo if subject == "the undo" else subject)
    assert thawed.stdout == f"Thawed: what {undo} took back may be repaired again\n"
    assert desk.json("status")["undone"] == []
    assert desk.call("reconcile", "--wait").exit_code == 0
    assert (GONE, "1.1") not in desk.host.bookings()


def test_a_slot_that_is_booked_by_now_is_refused(desk: Desk, entry: str) -> None:
    desk.call("allocate", "dora", "new._.1004", "--slot", "1.1")
    result = desk.call("undo", entry)
    assert result.exit_code == 1
    assert "slot 1.1 is held by new._.1004 now" in result.stderr


def test_on_files_every_byte_comes_back(installed: Installed) -> None:  # noqa: F811
    """The real parts: each their own process, as far as caches go."""
    state = installed.root / "lib/gpu-state.json"
    document = json.loads(state.read_text())
    document["gpus"]["0.1"]["note"] = {"kept": [1, 2.5, None]}
    state.write_text(json.dumps(document, indent=2))
    metadata = installed.root / f"lib/metadata/{FILED}.json"
    before = state.read_bytes(), metadata.read_bytes()
    assert installed.call("reconcile", "--wait", "--timeout", "1m").exit_code == 0
    assert not metadata.exists()
    after = state.read_bytes()
    (entry,) = json.loads(installed.call("history", "--json").stdout)["entries"]
    undone = installed.call("undo", entry["id"], "--json")
    assert undone.exit_code == 0, undone.output
    assert (state.read_bytes(), metadata.read_bytes()) == before
    again = installed.call("reconcile", "--wait", "--timeout", "1s")
    assert (state.read_bytes(), metadata.read_bytes()) == before
    assert again.exit_code == 2
    redone = installed.call("undo", json.loads(undone.stdout)["id"])
    assert redone.exit_code == 0, redone.output
    assert state.read_bytes() == after
    assert not metadata.exists()
    assert not _temporary(installed.root)


def _temporary(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if ".ds01d-tmp-" in path.name]
