"""What Docker answers, bounded before it is understood."""

from __future__ import annotations

import json

from ds01d.adapters.docker_facts import read_container, read_event, read_rows

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
