"""Names that no container can have: cleaned up by the ordinary rules, on real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ds01d.model.drift import Kind, Outcome
from ds01d.model.primitives import ContainerName
from ds01d.reconcile.undo import Undoer
from tests.support.build import NAME, Life, config, record
from tests.verification.crash.disk import Disk

ODD = (
    "50%41._.1001",
    "%s%n._.1001",
    "%2e%2e._.1001",
    "line\nbreak._.1001",
    "tab\t._.1001",
    "ü._.1001",
    "two words._.1001",
    "pipe|RELEASED|x._.1001",
    "back\\slash._.1001",
    "x" * 250 + "y",
    "-rf._.1001",
)


def disk_with(tmp_path: Path, *names: str) -> Disk:
    """A container runs on 1.0; `names` are booked on 0.0, with a record where a file can be."""
    life = Life(config(pace_count=100)).book("1.0").run("MIG-1-0").after(60.0)
    for name in names:
        life.list_in("0.0", name=name)
    disk = Disk(tmp_path / "host", life)
    disk.write()
    for name in names:
        if len(name) <= 250:
            document = {"container": name, "user": "alice", "gpu_id": "0.0", "priority": 10}
            (disk.metadata / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
    return disk


def rest(disk: Disk, seconds: float = 1_300.0) -> None:
    for _ in range(int(seconds / 50)):
        report = disk.pass_()
        assert all(one.outcome is not Outcome.FAILED for one in report.drifts), report.drifts
        disk.life.host.pass_time(50.0)


@pytest.mark.parametrize("name", ODD)
def test_a_booking_and_its_record_go_once_its_absence_is_proven(tmp_path: Path, name: str) -> None:
    disk = disk_with(tmp_path, name)
    disk.pass_()
    disk.life.host.pass_time(50.0)
    disk.pass_()
    disk.take_in()
    assert (name, "0.0") in disk.life.host.bookings(), "not before its time"
    rest(disk)
    disk.take_in()
    assert disk.life.host.bookings() == {(NAME, "1.0")}
    assert [path.name for path in disk.metadata.iterdir()] == [f"{NAME}.json"]
    report = disk.plan()
    assert report.drifts == ()
    assert report.is_consistent


def test_a_record_alone_goes_too(tmp_path: Path) -> None:
    disk = disk_with(tmp_path)
    odd = disk.metadata / "50%41._.1001.json"
    odd.write_text('{"container": "50%41._.1001", "user": "alice", "gpu_id": "0.1"}')
    rest(disk)
    assert not odd.exists()
    assert disk.plan().is_consistent


def test_what_was_removed_comes_back_by_undo_under_the_very_same_name(tmp_path: Path) -> None:
    disk = disk_with(tmp_path)
    odd = disk.metadata / "50%41._.1001.json"
    text = '{"container": "50%41._.1001", "user": "alice", "gpu_id": "0.1", "note": "x"}'
    odd.write_text(text)
    rest(disk)
    lines = (disk.own / "history.jsonl").read_text().splitlines()
    (entry,) = [one["id"] for line in lines if (one := json.loads(line)).get("kind")]
    done = Undoer(disk.world(), disk.life.config).undo(entry, "ada")
    assert done.refused is None
    assert odd.read_text() == text


@pytest.mark.parametrize(
    "content", ['{"container": "run._.1001", "gpu_id": "1.1"}', '{"note": "mine"}', "[]", "{torn"]
)
def test_a_file_that_is_no_record_of_that_name_is_reported_and_left(
    tmp_path: Path, content: str
) -> None:
    disk = disk_with(tmp_path)
    odd = disk.metadata / "my notes.json"
    odd.write_text(content)
    rest(disk)
    assert odd.read_text() == content
    (one,) = disk.plan().drifts
    assert one.drift.kind is Kind.UNREADABLE_METADATA


@pytest.mark.parametrize("names", [("A._.1001", "a._.1001")])
def test_names_that_differ_only_by_case_are_two(tmp_path: Path, names: tuple[str, str]) -> None:
    life = Life(config(pace_count=100))
    for name, place in zip(names, ("0.0", "1.0"), strict=True):
        life.book(place, name=name).run(f"MIG-{place.replace('.', '-')}", name=name)
        life.host.records[ContainerName(name)] = record(name, place)
    disk = Disk(tmp_path / "host", life.after(60.0))
    disk.write()
    life.remove(names[0])
    rest(disk, 300.0)
    disk.take_in()
    assert life.host.bookings() == {(names[1], "1.0")}
    assert [path.stem for path in disk.metadata.iterdir()] == [names[1]]
