"""The history as files: durable, bounded, whole after a crash, readable by anybody."""

from __future__ import annotations

import json
import os
import resource
import stat
import time
from pathlib import Path

import pytest

from ds01d.adapters import state_dir
from ds01d.adapters.state_dir import StateDirectory
from ds01d.errors import HistoryFailed
from ds01d.reporting import status_file
from tests.support.status import published


def line(number: int, size: int = 0) -> bytes:
    return json.dumps({"id": number, "filler": "x" * size}).encode()


def ids(own: StateDirectory) -> list[int]:
    return [json.loads(one)["id"] for one in own.read_history()]


def test_it_is_bounded_and_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_dir, "_HISTORY_SIZE", 1000)
    own = StateDirectory(tmp_path, 1.0)
    for number in range(100):
        own.append_history([line(number, 400)])
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == 11
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    there = ids(own)
    assert there == list(range(there[0], 100))
    assert len(there) >= 20


def test_it_is_bounded_within_a_batch_too_and_what_was_left_open_is_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_dir, "_HISTORY_SIZE", 1000)
    own, next_one = StateDirectory(tmp_path, 1.0), StateDirectory(tmp_path, 1.0)
    own.append_history([line(0)])
    own.mark_history_read()
    next_one.mark_history_read()
    own.append_history([line(number, 400) for number in range(1, 8)])
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
    assert ids(own) == list(range(8))
    assert [json.loads(one)["id"] for one in next_one.read_new_history()] == list(range(8))
    assert list(own.read_new_history()) == []


def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path: Path) -> None:
    own = StateDirectory(tmp_path, 1.0)
    own.append_history([line(1)])
    with (tmp_path / "history.jsonl").open("ab") as file:
        file.write(b'{"id": 2, "fil')
    own.append_history([line(3)])
    whole = [one for one in own.read_history() if one.endswith(b"}\n")]
    assert [json.loads(one)["id"] for one in whole] == [1, 3]


def test_what_others_add_is_news_and_what_is_ours_is_not(tmp_path: Path) -> None:
    own, other = StateDirectory(tmp_path, 1.0), StateDirectory(tmp_path, 1.0)
    other.append_history([line(1)])
    assert len(list(own.read_new_history())) == 1
    own.mark_history_read()
    assert list(own.read_new_history()) == []
    own.append_history([line(2)])
    assert list(own.read_new_history()) == []
    other.append_history([line(3)])
    assert len(list(own.read_new_history())) == 3
    own.append_history([line(4)])
    assert len(list(own.read_new_history())) == 4, "it has not read what the other added"


def test_what_a_rotation_took_away_is_still_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = StateDirectory(tmp_path, 1.0), StateDirectory(tmp_path, 1.0)
    other.append_history([line(1, 400)])
    monkeypatch.setattr(state_dir, "_HISTORY_SIZE", 100)
    other.append_history([line(2)])
    assert [json.loads(one)["id"] for one in own.read_new_history()] == [1, 2]


def test_it_is_read_from_a_place_on_through_rotations_and_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = StateDirectory(tmp_path, 1.0)
    assert list(own.read_history_from(None)) == []
    own.append_history([line(1), line(2)])
    ((first, _), (second, _)) = own.read_history_from(None)
    assert [json.loads(one)["id"] for _, one in own.read_history_from(first)] == [2]
    assert list(own.read_history_from(second)) == []
    monkeypatch.setattr(state_dir, "_HISTORY_SIZE", 60)
    own.append_history([line(number) for number in range(3, 8)])
    assert (tmp_path / "history.jsonl.2").exists()
    other = StateDirectory(tmp_path, 1.0)
    assert [json.loads(one)["id"] for _, one in other.read_history_from(first)] == [*range(2, 8)]
    gone = (second[0] + 10_000_000, 3)
    assert [json.loads(one)["id"] for _, one in other.read_history_from(gone)] == [*range(1, 8)]


def test_half_a_line_is_no_news_yet(tmp_path: Path) -> None:
    own = StateDirectory(tmp_path, 1.0)
    own.append_history([line(1)])
    ((first, _),) = own.read_history_from(None)
    with own.history.open("ab") as file:
        file.write(b'{"id": 2')
    assert list(own.read_history_from(first)) == []
    with own.history.open("ab") as file:
        file.write(b"}\n")
    assert [json.loads(one)["id"] for _, one in own.read_history_from(first)] == [2]


def test_one_that_cannot_be_written_is_looked_at_again(tmp_path: Path) -> None:
    own = StateDirectory(tmp_path, 1.0)
    own.append_history([line(1)])
    own.mark_history_read()
    own.history.unlink()
    own.history.mkdir()
    with pytest.raises(HistoryFailed):
        own.append_history([line(2)])
    own.history.rmdir()
    own.append_history([line(3)])
    assert len(list(own.read_new_history())) == 1


def test_a_disk_that_is_full_in_the_midst_of_a_line_spoils_no_other(tmp_path: Path) -> None:
    own = StateDirectory(tmp_path, 1.0)
    own.append_history([line(1)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (own.history.stat().st_size + 40, hard))
    try:
        with pytest.raises(HistoryFailed, match="so nothing is done"):
            own.append_history([line(2), line(3, 100)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    own.append_history([line(4)])
    whole = [one for one in own.read_history() if one.endswith(b"}\n")]
    assert [json.loads(one)["id"] for one in whole] == [1, 2, 4]
    assert len(list(own.read_new_history())) == 4, "what was entered and never done is closed"


# --- what is missing, or in the way


def test_a_directory_that_was_removed_is_made_for_everybody_to_read(tmp_path: Path) -> None:
    own = StateDirectory(tmp_path / "own", 1.0)
    before = os.umask(0o077)
    try:
        own.make()
        assert not own.replaced
        own.path.rename(tmp_path / "other")
        with own.lock():
            assert stat.S_IMODE(own.path.stat().st_mode) == 0o755
        own.path.joinpath("lock").unlink()
        own.path.rmdir()
    finally:
        os.umask(before)


def test_one_that_is_not_ours_any_more_is_noticed(tmp_path: Path) -> None:
    own = StateDirectory(tmp_path / "own", 1.0)
    own.make()
    own.path.rename(tmp_path / "other")
    assert own.replaced


@pytest.mark.parametrize("name", ["checkpoint.json", "history.jsonl", "status.json"])
@pytest.mark.parametrize("what", ["directory", "full directory", "link", "fifo"])
def test_what_stands_in_the_place_of_a_file_is_put_aside_and_kept(
    tmp_path: Path, name: str, what: str
) -> None:
    place, target = tmp_path / "own" / name, tmp_path / "target"
    own = StateDirectory(place.parent, 1.0)
    own.make()
    match what:
        case "link":
            target.write_text("root's")
            place.symlink_to(target)
        case "fifo":
            os.mkfifo(place)
        case _:
            place.mkdir()
            if what == "full directory":
                (place / "something").write_text("kept")
    with own.lock():
        own.save_checkpoint(b"{}")
        own.append_history([line(1)])
        assert status_file.write_status(published(), own.path) is None
    assert (own.load_checkpoint(), ids(own)) == (b"{}", [1])
    (aside,) = own.path.glob(f"{name}.not-a-file-*")
    assert stat.S_IFMT(aside.lstat().st_mode) != stat.S_IFREG
    if what == "full directory":
        assert (aside / "something").read_text() == "kept"
    if what == "link":
        assert target.read_text() == "root's"


def test_the_checkpoint_of_a_version_before_0_1_0_is_read_and_replaced(tmp_path: Path) -> None:
    own = StateDirectory(tmp_path / "own", 1.0)
    own.make()
    former = own.path / "memory.json"
    former.write_bytes(b'{"freezes": 1}')
    assert own.load_checkpoint() == b'{"freezes": 1}'
    assert former.exists(), "removed before anything has replaced it"
    own.save_checkpoint(b"{}")
    assert not former.exists()
    assert StateDirectory(own.path, 1.0).load_checkpoint() == b"{}"


def test_of_two_checkpoints_the_newer_counts_as_after_a_downgrade(tmp_path: Path) -> None:
    own = StateDirectory(tmp_path / "own", 1.0)
    own.make()
    own.save_checkpoint(b"before the downgrade")
    former = own.path / "memory.json"
    former.write_bytes(b"a freeze since")
    for path, age_s in ((own.checkpoint, 60), (former, 30)):
        os.utime(path, (path.stat().st_atime, time.time() - age_s))
    assert StateDirectory(own.path, 1.0).load_checkpoint() == b"a freeze since"
    os.utime(former, (former.stat().st_atime, time.time() - 90))
    assert StateDirectory(own.path, 1.0).load_checkpoint() == b"before the downgrade"


def test_a_former_checkpoint_that_cannot_be_parsed_is_set_aside(tmp_path: Path) -> None:
    own = StateDirectory(tmp_path / "own", 1.0)
    own.make()
    (own.path / "memory.json").write_bytes(b"torn")
    own.set_checkpoint_aside()
    assert own.load_checkpoint() is None
    assert [path.read_bytes() for path in own.path.glob("checkpoint.broken*")] == [b"torn"]
