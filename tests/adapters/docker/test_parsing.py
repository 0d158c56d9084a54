"""What Docker answers, bounded before it is understood."""

from __future__ import annotations

import json

import pytest

from ds01d.adapters.docker.parsing import read_container, read_event, read_rows
from ds01d.model.container_labels import has_ds01_labels

ID = "a" * 64
LONG = {"ds01.user": "x" * 100_000, "aime.mlc": "alice"}


def test_a_label_that_is_too_long_to_mean_anything_names_nobody() -> None:
    row = {"Id": ID, "Names": ["/train._.1001"], "State": "running", "Labels": LONG, "Created": 1}
    assert read_rows(json.dumps([row]).encode())[0].labels == {"aime.mlc": "alice"}
    inspected = {
        "Id": ID,
        "Name": "/train._.1001",
        "State": {"Status": "running"},
        "Config": {"Labels": LONG},
        "HostConfig": {},
        "Created": "2026-01-01T00:00:00Z",
    }
    seen = read_container(json.dumps(inspected).encode(), default_runtime="runc")
    assert seen.labels == {"aime.mlc": "alice"}
    told = {
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": ID, "Attributes": {"name": "train._.1001", **LONG}},
        "time": 1,
    }
    event = read_event(json.dumps(told).encode())
    assert event is not None
    assert event.labels == {"aime.mlc": "alice"}


def test_a_name_that_is_no_use_gives_way_to_the_id() -> None:
    """Docker takes names of nearly a megabyte; ten such bookings make a state nobody reads.

    And it takes the ID of another container, which would be taken for the name of that one.
    """
    long, just = "x" * 900_000 + "._.1003", "x" * 1024
    for name, known in ((long, ID), (just, just), ("b" * 64, ID), ("B" * 64, "B" * 64)):
        row = {"Id": ID, "Names": [f"/{name}"], "State": "running", "Created": 1}
        assert read_rows(json.dumps([row]).encode())[0].name == known
        inspected = {
            "Id": ID,
            "Name": f"/{name}",
            "State": {"Status": "running"},
            "Config": {},
            "HostConfig": {},
        }
        seen = read_container(json.dumps(inspected).encode(), default_runtime="runc")
        assert (seen.name, seen.is_unnamed) == (known, known == ID)
        attributes = {"name": name, "oldName": f"/{name}"}
        told = {
            "Type": "container",
            "Action": "rename",
            "Actor": {"ID": ID, "Attributes": attributes},
        }
        event = read_event(json.dumps(told).encode())
        assert event is not None
        assert (event.name, event.old_name) == (known, known)


@pytest.mark.parametrize(
    ("labels", "ours"),
    [
        ({"ds01.managed": "true"}, True),
        ({"ds01.managed": ""}, True),
        ({"aime.mlc": "alice"}, True),
        ({"ds01.managed": "false"}, False),
        ({"ds01.managed": " False\n", "aime.mlc": "alice"}, False),
        ({}, False),
    ],
)
def test_a_label_may_say_that_a_container_is_none_of_ours(
    labels: dict[str, str], *, ours: bool
) -> None:
    assert has_ds01_labels(labels) is ours


def test_whose_home_folders_it_mounts_or_was_made_from() -> None:
    inspected = {
        "Id": ID,
        "Name": "/web",
        "State": {"Status": "running"},
        "Config": {"Labels": {"com.docker.compose.project.working_dir": "/home/bob/../alice/app"}},
        "HostConfig": {"CgroupParent": "ds01-student-alice.slice"},
        "Mounts": [
            {"Type": "bind", "Source": "/home/alice/data", "Destination": "/data"},
            {"Type": "bind", "Source": "/home", "Destination": "/home"},
            {"Type": "bind", "Source": "/srv/home/carol", "Destination": "/srv"},
            {"Type": "volume", "Source": "/home/carol/v", "Destination": "/v"},
            {"Type": "bind", "Destination": "/x"},
        ],
    }
    seen = read_container(json.dumps(inspected).encode(), default_runtime="runc")
    assert (seen.homes, seen.cgroup_parent) == (("alice",), "ds01-student-alice.slice")
    folders = [{"Type": "bind", "Source": f"/home/u{n}", "Destination": f"/{n}"} for n in range(99)]
    many = {**inspected, "Mounts": folders, "HostConfig": {"CgroupParent": "/" * 2000}}
    seen = read_container(json.dumps(many).encode(), default_runtime="runc")
    assert (len(seen.homes), seen.cgroup_parent) == (4, "")
