"""The owners file: hints by full ID; what is empty or broken changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ds01d.adapters.host import owners_file
from ds01d.adapters.host.owners_file import OwnersFile, parse_owners

ONE, TWO = "a" * 64, "b" * 64


def written(*owners: tuple[str, object]) -> bytes:
    """As the lab's tracker writes it: by short ID, by full ID and by name."""
    containers: dict[str, object] = {}
    for ident, owner in owners:
        entry = {"owner": owner, "owner_uid": 1001, "name": "x", "detection_method": "ds01_label"}
        containers |= {ident[:12]: entry, ident: entry, f"name-{ident[0]}": entry}
    other: dict[str, object] = {"admins": [], "service_users": [], "flagged_gpu_containers": []}
    return json.dumps({"containers": containers, **other}, indent=2).encode()


class Clock:
    at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "container-owners.json"


def put(path: Path, data: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.replace(path)


def test_owners_by_full_id() -> None:
    assert parse_owners(written((ONE, "alice"), (TWO, None))) == {ONE: "alice"}


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b'{"containers": null}', b'{"containers": {"x": 1}}', b"\xff", b"[" * 5000],
    ids=repr,
)
def test_what_is_no_such_file_has_none(data: bytes) -> None:
    assert parse_owners(data) == {}


def test_a_login_that_is_too_long_is_none() -> None:
    assert parse_owners(written((ONE, "a" * 257))) == {}


def test_without_a_file_nothing_is_known(path: Path) -> None:
    assert OwnersFile(path).read() == {}


@pytest.mark.parametrize("data", [written(), b"{", b" " * ((8 << 20) + 1)], ids=["empty", "b", "l"])
def test_who_was_named_once_stays(path: Path, data: bytes) -> None:
    """Its writer empties the file every five seconds while it cannot reach Docker."""
    clock = Clock()
    owners = OwnersFile(path, clock)
    put(path, written((ONE, "alice")))
    assert owners.read() == {ONE: "alice"}
    put(path, data)
    clock.at += 5.0
    assert owners.read() == {ONE: "alice"}
    path.unlink()
    clock.at += 5.0
    assert owners.read() == {ONE: "alice"}
    put(path, written((ONE, "bob"), (TWO, "alice")))
    clock.at += 5.0
    assert owners.read() == {ONE: "bob", TWO: "alice"}


def test_it_is_read_no_more_often_than_it_is_written(path: Path) -> None:
    clock = Clock()
    owners = OwnersFile(path, clock)
    assert owners.read() == {}
    put(path, written((ONE, "alice")))
    clock.at += 4.0
    assert owners.read() == {}


def test_how_many_are_remembered_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners_file, "_MOST", 1)
    clock = Clock()
    owners = OwnersFile(path, clock)
    put(path, written((ONE, "alice")))
    owners.read()
    put(path, written((TWO, "bob")))
    clock.at += 5.0
    assert owners.read() == {TWO: "bob"}


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(written((ONE, "alice")))
    path.symlink_to(other)
    assert OwnersFile(path).read() == {}


def test_who_is_named_no_more_stays(path: Path) -> None:
    clock = Clock()
    owners = OwnersFile(path, clock)
    put(path, written((ONE, "alice")))
    owners.read()
    put(path, written((TWO, "bob")))
    clock.at += 5.0
    assert owners.read() == {ONE: "alice", TWO: "bob"}
