"""The file of a login greeting: the newest of each container, as long as it is true."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ds01d.adapters.notices import greetings as module
from ds01d.adapters.notices.greetings import Greetings, format_greeting
from ds01d.errors import DeliveryFailed
from tests.support.notices import AT, HOSTILE, LOGIN, notice


def test_a_file_has_the_newest_of_each_container(tmp_path: Path) -> None:
    folder = tmp_path / "greetings"
    one = Greetings(folder)
    one.send(notice(id="1", message="30 minutes"))
    one.send(notice(id="2", container="other", message="other"))
    one.send(notice(id="3", at=AT + 60, message="5 minutes"))
    one.send(notice(id="3", at=AT + 60, message="5 minutes"))
    head, *lines = (folder / LOGIN).read_text().splitlines()
    assert head == "GPU notices:"
    assert [line[18:] for line in lines] == ["other", "5 minutes"]
    assert (folder / LOGIN).stat().st_mode & 0o777 == 0o644
    assert folder.stat().st_mode & 0o755 == 0o755


def test_what_is_over_goes_and_a_restart_leaves_nothing_behind(tmp_path: Path) -> None:
    ending = notice(until=AT + 300)
    Greetings(tmp_path).send(ending)
    Greetings(tmp_path).refresh([ending], AT + 299)
    assert (tmp_path / LOGIN).exists()
    Greetings(tmp_path).refresh([ending], AT + 301)
    assert not (tmp_path / LOGIN).exists()
    old = notice(message="released")
    one = Greetings(tmp_path)
    one.send(old)
    one.refresh([old], AT + 71 * 3600)
    assert (tmp_path / LOGIN).exists()
    one.refresh([old], AT + 73 * 3600)
    assert not (tmp_path / LOGIN).exists()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_one_printable_line(text: str) -> None:
    lines = format_greeting([notice(message=text)]).splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


# Nothing of this host that a broken program could write: /proc/version is nobody's to change.
@pytest.mark.parametrize("login", [*HOSTILE, "..", ".x", "a/b", "/proc/version", ""])
def test_a_login_is_no_path(tmp_path: Path, login: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeliveryFailed, match="no user"):
        Greetings(tmp_path / "greetings").send(notice(user=login))
    monkeypatch.setattr(module, "find_uid", lambda _: os.getuid())
    before = sorted(tmp_path.rglob("*"))
    try:
        Greetings(tmp_path / "greetings").send(notice(user=login))
    except (DeliveryFailed, ValueError):
        assert set(tmp_path.rglob("*")) - set(before) <= {tmp_path / "greetings"}
    else:
        assert [path.parent.name for path in tmp_path.rglob("*") if path.is_file()] == ["greetings"]


@pytest.mark.parametrize("login", ["../x", "/proc/version", "..", "", "x" * 256, "a\0b", "\ud800"])
def test_a_login_that_is_no_file_keeps_back_no_other(tmp_path: Path, login: str) -> None:
    folder = tmp_path / "greetings"
    folder.mkdir()
    # Its own delivery was given up; and one file cannot be replaced.
    (folder / "blocked" / "file").mkdir(parents=True)
    given = [notice(id="1", user=login), notice(id="2", user="blocked"), notice(id="3")]
    with pytest.raises(DeliveryFailed, match="blocked"):
        Greetings(folder).refresh(given, AT + 1)
    assert {path.name for path in tmp_path.rglob("*")} == {"greetings", "blocked", "file", LOGIN}


def test_a_damaged_time_is_shown_as_unknown() -> None:
    assert "unknown time" in format_greeting([notice(at=9e300)])
