"""The spool: bounded, read while it is written, and nobody has to read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ds01d.adapters.files import safe_read
from ds01d.adapters.notices import spool
from ds01d.adapters.notices.spool import (
    FILE,
    FORMER,
    NoticeSpool,
    SpoolReader,
    read_spool,
    read_user_notices,
)
from ds01d.errors import Malformed, WriteFailed
from ds01d.model.notice import GivenNotice, Notice, NoticeKind, WrittenNotice
from ds01d.model.primitives import SlotId, UserName, Wall
from tests.support.notices import AT, HOSTILE

ALICE = UserName("alice")
ENDING = Notice(
    kind=NoticeKind.HOLD_ENDING,
    user=ALICE,
    subject="train._.1001",
    slots=frozenset({SlotId("1.0"), SlotId("0")}),
    until=Wall(AT + 300),
    stage=300.0,
)


def written(message: str = "it ends") -> WrittenNotice:
    return WrittenNotice(ENDING, message)


def test_what_is_written_is_read_with_ids_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "notices"
    NoticeSpool(folder).add(ALICE, [written("one"), written("two")], Wall(AT))
    first, second = read_spool(folder)
    assert (first.message, second.message) == ("one", "two")
    assert first.id != second.id
    assert (first.kind, first.user, first.container) == ("gpu_hold_ending", "alice", "train._.1001")
    assert (first.at, first.until, first.stage) == (AT, AT + 300, 300.0)
    assert first.slots == ("0", "1.0")
    assert folder.stat().st_mode & 0o777 == 0o750
    assert (folder / FILE).stat().st_mode & 0o777 == 0o640
    assert (folder / FILE).stat().st_gid == folder.stat().st_gid


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_one_line_each(tmp_path: Path, text: str) -> None:
    text = text.encode("utf-8", "backslashreplace").decode()
    NoticeSpool(tmp_path / "notices").add(UserName(text), [written(text)], Wall(AT))
    (read,) = read_spool(tmp_path / "notices")
    assert (read.user, read.message) == (text, text)


def test_after_a_restart_it_knows_what_was_given(tmp_path: Path) -> None:
    NoticeSpool(tmp_path / "notices").add(ALICE, [written()], Wall(AT))
    assert NoticeSpool(tmp_path / "notices").list_given() == [
        GivenNotice(ENDING.key, Wall(AT), Wall(AT + 300))
    ]


def test_it_stays_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    folder = tmp_path / "notices"
    writer = NoticeSpool(folder)
    for number in range(60):
        writer.add(ALICE, [written(f"{number} {'x' * 20_000}")], Wall(AT + number))
    assert {path.name for path in folder.iterdir()} == {FILE, FORMER}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 700_000
    numbers = [int(one.message.split()[0]) for one in read_spool(folder)]
    assert numbers == [*range(numbers[0], 60)]
    assert len(numbers) > 12


def test_lines_that_are_no_notice_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "notices"
    writer = NoticeSpool(folder)
    writer.add(ALICE, [written("one")], Wall(AT))
    with (folder / FILE).open("ab") as opened:
        opened.write(b'\xff\n[]\n{"id": 7}\n' + b"[" * 100_000 + b'\n{"id":"x","at":1,"ki')
    writer.add(ALICE, [written("two")], Wall(AT))
    newer = {**json.loads((folder / FILE).read_bytes().splitlines()[0]), "id": "n", "more": 1}
    with (folder / FILE).open("ab") as opened:
        opened.write(json.dumps({**newer, "kind": "gpu_of_tomorrow"}).encode() + b"\n")
    assert [one.message for one in read_spool(folder)] == ["one", "two", "one"]
    assert len(NoticeSpool(folder).list_given()) == 2


def test_a_reader_reads_only_what_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "notices"
    reader = SpoolReader(folder)
    assert reader.read_if_changed() is None
    NoticeSpool(folder).add(ALICE, [written()], Wall(AT))
    assert [one.message for one in reader.read_if_changed() or ()] == ["it ends"]
    assert reader.read_if_changed() is None


def test_a_change_of_files_between_two_reads_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "notices"
    NoticeSpool(folder).add(ALICE, [written()], Wall(AT))
    real = safe_read.read_bytes

    def rotate_after(path: Path, limit: int) -> object:
        data = real(path, limit)
        if path.name == FILE:
            path.rename(folder / FORMER)
        return data

    monkeypatch.setattr(spool, "read_bytes", rotate_after)
    assert [one.message for one in read_spool(folder)] == ["it ends"]


def test_what_cannot_be_written_or_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="notices"):
        NoticeSpool(tmp_path / "no" / "notices").add(ALICE, [written()], Wall(AT))
    folder = tmp_path / "notices"
    folder.mkdir()
    (folder / FILE).symlink_to("/proc/version")
    with pytest.raises(WriteFailed, match="symbolic link"):
        NoticeSpool(folder).add(ALICE, [written()], Wall(AT))
    with pytest.raises(Malformed):
        SpoolReader(folder).read_if_changed()


def test_a_user_reads_the_newest_of_their_own_and_no_line_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "notices"
    assert read_user_notices(folder, "alice") == []
    sender = NoticeSpool(folder)
    # What others have in their texts makes no notice somebody else's.
    sender.add(UserName("bob"), [written('"user":"alice"')], Wall(AT))
    sender.add(UserName("alice2"), [written("of alice2")], Wall(AT))
    for number in range(30):
        sender.add(ALICE, [written(f"notice {number}")], Wall(AT + number))
        if number == 15:
            (folder / FILE).rename(folder / FORMER)
    messages = [notice.message for notice in read_user_notices(folder, "alice")]
    assert messages == [f"notice {number}" for number in range(10, 30)]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_login_reads_its_own(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "notices"
    NoticeSpool(folder).add(ALICE, [written()], Wall(AT))
    assert read_user_notices(folder, text) == []
    login = text.encode("utf-8", "backslashreplace").decode()
    NoticeSpool(folder).add(UserName(login), [written(login)], Wall(AT))
    assert [notice.user for notice in read_user_notices(folder, login)] == [login]


def test_a_spool_that_cannot_be_read_is_named_to_the_user(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(Malformed, match=FILE):
        read_user_notices(tmp_path, "alice")
