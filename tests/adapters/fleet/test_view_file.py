"""The view of all hosts in a file: as it was written, or an error; no host hides another."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ds01d.adapters.fleet.view_file import MAX_HOST_BYTES, MAX_VIEW_BYTES, read_view, write_view
from ds01d.errors import Ds01Error, WriteFailed
from ds01d.model.fleet import FleetHolder, FleetHost, FleetView, HostName, HostState
from ds01d.model.primitives import ContainerName, Wall
from tests.decide.test_fleet_hosts import make_status, make_view


def make_large_host(number: int, size: int) -> FleetHost:
    status = make_status()
    holder = FleetHolder(container=ContainerName("x" * size), user=None, state="running")
    slot = replace(status.slots[0], holders=(holder,))
    return FleetHost(
        name=HostName(f"gpu{number}"),
        state=HostState.OK,
        status=replace(status, slots=(slot,)),
        age_s=1.0,
        answered_at=Wall(1000),
    )


def test_a_view_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    write_view(file, make_view(at=1.0))
    write_view(file, make_view())
    assert read_view(file) == make_view()
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["hosts.json"]


def test_a_host_that_takes_too_much_is_unknown_and_hides_no_other(tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    large = make_large_host(7, MAX_HOST_BYTES)
    write_view(file, replace(make_view(), hosts=(large, *make_view().hosts)))
    shown = read_view(file).hosts
    assert (shown[0].state, shown[0].status) == (HostState.UNKNOWN, None)
    assert shown[0].reason == "its status takes more than 512 KiB"
    assert shown[1:] == make_view().hosts


def test_all_hosts_together_are_bounded(tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    hosts = tuple(make_large_host(number, MAX_HOST_BYTES - 2048) for number in range(30))
    write_view(file, replace(make_view(), hosts=hosts))
    assert file.stat().st_size <= MAX_VIEW_BYTES
    shown = read_view(file).hosts
    assert [host.name for host in shown] == [host.name for host in hosts]
    states = [host.state for host in shown]
    assert states.count(HostState.OK) == 8


@pytest.mark.parametrize("damage", ["none", "text", "fifo", "link", "version", "large"])
def test_what_is_no_view_is_an_error_with_its_path(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "hosts.json"
    write_view(file, make_view())
    data = file.read_bytes()
    file.unlink()
    match damage:
        case "text":
            file.write_bytes(data[:-5])
        case "fifo":
            os.mkfifo(file)
        case "link":
            (tmp_path / "elsewhere").write_bytes(data)
            file.symlink_to(tmp_path / "elsewhere")
        case "version":
            file.write_bytes(data.replace(b'"v":"1"', b'"v":"2"'))
        case "large":
            file.write_bytes(data + b" " * MAX_VIEW_BYTES)
        case _:
            pass
    with pytest.raises(Ds01Error, match=str(file)):
        read_view(file)


@pytest.mark.parametrize(
    ("part", "damaged", "reason"),
    [
        (b'"unknown_since":500.0', b'"unknown_since":-1e300', "a time is out of range"),
        # The clock of that host was in the year 33658.
        (b'"age_s":1.0', b'"age_s":998224013099.0', "a time is out of range"),
        (b'"state":"unknown"', b'"state":"gone"', "Invalid enum value 'gone'"),
    ],
)
def test_a_host_whose_part_is_invalid_is_unknown_and_hides_no_other(
    tmp_path: Path, part: bytes, damaged: bytes, reason: str
) -> None:
    file = tmp_path / "hosts.json"
    odd, good = replace(make_large_host(7, 1), unknown_since=Wall(500.0)), make_large_host(8, 1)
    odd = replace(odd, state=HostState.UNKNOWN)
    write_view(file, replace(make_view(), hosts=(odd, good)))
    file.write_bytes(file.read_bytes().replace(part, damaged, 1))
    first, second = read_view(file).hosts
    assert (first.name, first.state, first.status) == (odd.name, HostState.UNKNOWN, None)
    assert reason in first.reason
    assert second == good


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed, match=r"hosts\.json was not written"):
        write_view(tmp_path / "file" / "hosts.json", make_view())


def test_a_view_of_many_hosts_is_far_below_the_bound(tmp_path: Path) -> None:
    """Thirty hosts of eight GPUs with seven slots each, all of them held."""
    slot = make_status().slots[0]
    status = replace(make_status(), slots=(slot,) * 56)
    host = replace(make_large_host(1, 1), status=status)
    hosts = tuple(replace(host, name=HostName(f"gpu{number:02}")) for number in range(30))
    write_view(tmp_path / "hosts.json", FleetView(viewed_at=Wall(1), every_s=30.0, hosts=hosts))
    assert (tmp_path / "hosts.json").stat().st_size < MAX_VIEW_BYTES / 4
