"""alerts/USER.json: notices are added, others' elements kept, and nothing hostile is followed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.adapters import alerts_folder
from ds01d.adapters.alerts_folder import AlertsFolder
from ds01d.adapters.files import atomic_write
from ds01d.errors import WriteFailed
from ds01d.model.notice import Notice, NoticeKind, WrittenNotice
from ds01d.model.primitives import UserName, Wall

ALICE = UserName("alice")
AT = Wall(1_784_000_000.25)
ENDING = WrittenNotice(Notice(kind=NoticeKind.HOLD_ENDING, user=ALICE), "container x is stopped")
ELEMENT = {
    "type": "gpu_hold_ending",
    "message": "container x is stopped",
    "created_at": "2026-07-14T03:33:20Z",
    "updated_at": "2026-07-14T03:33:20Z",
}


def test_a_notice_has_the_format_of_the_lab_and_is_there_once(tmp_path: Path) -> None:
    folder, path = AlertsFolder(tmp_path), tmp_path / "alice.json"
    folder.add(ALICE, [ENDING, ENDING], AT)
    assert json.loads(path.read_text()) == [ELEMENT]
    before = path.stat()
    folder.add(ALICE, [ENDING], Wall(AT + 60))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert [entry.name for entry in tmp_path.iterdir()] == ["alice.json"]


OTHERS = """[
  {"type": "gpu", "message": "80 %", "created_at": "x", "updated_at": "y", "last_notified_at": "z"},
  {"n": 123456789012345678901234567890, "f": 1.10, "deep": [[{}]]},
  "text", null
]"""


def test_elements_of_others_are_kept_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "alice.json"
    path.write_text(OTHERS)
    path.chmod(0o664)
    AlertsFolder(tmp_path).add(ALICE, [ENDING], AT)
    text = path.read_text()
    assert json.loads(text) == [*json.loads(OTHERS), ELEMENT]
    assert '{"n": 123456789012345678901234567890, "f": 1.10, "deep": [[{}]]}' in text
    assert path.stat().st_mode & 0o777 == 0o664


@pytest.mark.parametrize(
    "content",
    ["{}", "[1,", "no JSON", '{"alerts": []}', "[" * 100_000, b"\xff\xfe".decode("latin-1")],
    ids=["object", "cut", "text", "another", "deep", "bytes"],
)
def test_a_file_that_is_no_list_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "alice.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(WriteFailed, match=r"alice\.json"):
        AlertsFolder(tmp_path).add(ALICE, [ENDING], AT)
    assert path.read_text(encoding="latin-1") == content


def test_an_empty_file_is_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "alice.json").touch()
    AlertsFolder(tmp_path).add(ALICE, [ENDING], AT)
    assert json.loads((tmp_path / "alice.json").read_text()) == [ELEMENT]


@pytest.mark.parametrize(
    "element",
    [
        b'{"type":"\xff","message":"a"}',
        b'{"type":"a","message":"\xed\xa0\x80"}',
        b'{"type":1,"message":[]}',
        b'"\xff"',
    ],
)
def test_an_element_of_any_bytes_is_kept_and_stops_no_notice(
    tmp_path: Path, element: bytes
) -> None:
    path = tmp_path / "alice.json"
    path.write_bytes(b"[" + element + b"]")
    AlertsFolder(tmp_path).add(ALICE, [ENDING], AT)
    assert path.read_bytes().startswith(b"[\n  " + element + b",\n")


@pytest.mark.parametrize("what", ["link", "fifo", "folder", "huge", "sparse", "many"])
def test_what_users_put_there_is_neither_followed_nor_destroyed(tmp_path: Path, what: str) -> None:
    folder, victim = tmp_path / "alerts", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("[]")
    path = folder / "alice.json"
    match what:
        case "link":
            path.symlink_to(victim)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "huge":
            path.write_text(f"[{' ' * (2 << 20)}]")
        case "sparse":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case _:
            path.write_text(json.dumps(list(range(1000))))
    before = path.lstat()
    with pytest.raises(WriteFailed):
        AlertsFolder(folder).add(ALICE, [ENDING], AT)
    after = path.lstat()
    assert (after.st_ino, after.st_size, after.st_mode) == (
        before.st_ino,
        before.st_size,
        before.st_mode,
    )
    assert victim.read_text() == "[]"
    assert [entry.name for entry in folder.iterdir()] == ["alice.json"]


def test_half_a_million_elements_are_not_looked_at_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alice.json").write_text(f"[{'0,' * 500_000}0]")
    monkeypatch.setattr(alerts_folder, "_parse_alert", lambda _: pytest.fail("one was"))
    with pytest.raises(WriteFailed, match="has 500001 of them; move it away"):
        AlertsFolder(tmp_path).add(ALICE, [ENDING], AT)


def test_a_hard_link_of_a_file_of_somebody_else_is_replaced_and_not_written(tmp_path: Path) -> None:
    folder, victim = tmp_path / "alerts", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("[]")
    os.link(victim, folder / "alice.json")
    AlertsFolder(folder).add(ALICE, [ENDING], AT)
    assert victim.read_text() == "[]"
    assert json.loads((folder / "alice.json").read_text()) == [ELEMENT]


def test_a_folder_of_a_user_in_its_place_is_not_used(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    parent = tmp_path / "lib"
    parent.mkdir()
    parent.chmod(0o775)  # as root:docker on the lab's server: its members can swap what is in it
    (parent / "alerts").mkdir()
    AlertsFolder(parent / "alerts").add(ALICE, [ENDING], AT)
    (parent / "alerts").rename(parent / "away")
    (parent / "alerts").mkdir()
    os.chown(parent / "alerts", 4242, 4242)
    with pytest.raises(WriteFailed, match="4242"):
        AlertsFolder(parent / "alerts").add(ALICE, [ENDING], AT)
    (parent / "alerts").rmdir()
    (parent / "alerts").symlink_to(parent / "away")
    os.chown(parent / "alerts", 4242, 4242, follow_symlinks=False)
    with pytest.raises(WriteFailed, match="symbolic link"):
        AlertsFolder(parent / "alerts").add(ALICE, [ENDING], AT)


@pytest.mark.parametrize(
    "user", ["", ".", "..", "../x", "a/b", ".hidden", "a\0b", "a\nb", "x" * 300]
)
def test_a_login_that_is_no_name_of_a_file_gets_none(tmp_path: Path, user: str) -> None:
    with pytest.raises(WriteFailed, match="no notice for" if user else r"\.json|no notice"):
        AlertsFolder(tmp_path / "no").add(UserName(user), [ENDING], AT)
    assert list(tmp_path.iterdir()) == []


def test_a_login_of_a_directory_service_is_a_name(tmp_path: Path) -> None:
    AlertsFolder(tmp_path).add(UserName("c.demo@campus.example"), [ENDING], AT)
    assert (tmp_path / "c.demo@campus.example.json").exists()


def test_what_another_writer_adds_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "alice.json"
    path.write_text("[]")
    replace, others = atomic_write.replace_file, iter(["1", "2"])

    def replaced(*args: object, before: object, **rest: object) -> None:
        number = next(others, None)
        if number is not None:
            path.write_text(f"[{number}]")
        replace(*args, before=before, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(alerts_folder, "replace_file", replaced)
    AlertsFolder(tmp_path).add(ALICE, [ENDING], AT)
    assert json.loads(path.read_text()) == [2, ELEMENT]
    others = iter("123456")
    with pytest.raises(WriteFailed, match="others write it all the time"):
        AlertsFolder(tmp_path).add(ALICE, [WrittenNotice(ENDING.notice, "b")], AT)
    assert [entry.name for entry in tmp_path.iterdir()] == ["alice.json"]


@contextmanager
def written(path: Path, data: bytes) -> Iterator[None]:
    path.write_bytes(data)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_whatever_stands_there_it_is_added_or_left(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("alerts")
    path = folder / "alice.json"
    with written(path, data):
        try:
            AlertsFolder(folder).add(ALICE, [ENDING], AT)
        except WriteFailed:
            assert path.read_bytes() == data
        else:
            assert json.loads(path.read_bytes())[-1] == ELEMENT
