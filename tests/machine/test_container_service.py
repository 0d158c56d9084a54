"""Containers for users in no group but their own, on a booted machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from simulation.engine_client import IMAGE
from tests.machine.test_booking_service import LIMITS, SOCKET, USERS, run_as
from tests.support.daemon import ROOT
from tests.support.service import UNIT, Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

CATALOGUE: Final = f"""\
[container]
command = ["sleep", "600"]
mounts = ["{{home}}/work:/workspace"]

[[image]]
framework = "pytorch"
image = "{IMAGE}"
"""


@pytest.fixture(scope="module")
def served(booted: Service) -> Iterator[Service]:
    machine = booted.machine
    for user, (uid, group) in USERS.items():
        groups = ("-G", group) if user in {"dora", "olga"} else ()
        machine.run("useradd", "--create-home", "-U", "-u", uid, *groups, user)
    machine.put("/etc/systemd/system/ds01d.socket", ROOT / "systemd" / "ds01d.socket")
    machine.put("/etc/ds01/frameworks.toml", CATALOGUE)
    machine.put("/opt/ds01-infra/config/resource-limits.yaml", LIMITS)
    machine.run("systemctl", "daemon-reload")
    booted.chown_books()
    booted.configure(
        service={"socket": SOCKET, "containers": True},
        books={"writers": "service"},
        policy={"creation_grace": "10m"},
        allocator={"sharing": "never"},
    )
    machine.run("systemctl", "start", "ds01d.socket")
    booted.start()
    yield booted
    machine.run("systemctl", "stop", "ds01d.socket", UNIT)


def test_a_user_in_no_group_has_containers(served: Service) -> None:
    def run(*words: str) -> str:
        done = run_as(served, "amy", "ds01ctl", "container", *words)
        assert done.returncode == 0, (done.stdout, done.stderr, served.tail())
        return done.stdout

    assert run_as(served, "amy", "id", "-nG").stdout.split() == ["amy"]
    assert "train._.2001 runs on GPU" in run("create", "train", "pytorch")
    rows: list[dict[str, Any]] = json.loads(run("list", "--json"))["containers"]
    assert [(row["name"], row["state"]) for row in rows] == [("train._.2001", "running")]
    inside = served.machine.docker.client.inspect_container("train._.2001")
    status = served.machine.path(f"/proc/{inside['State']['Pid']}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["2001"] * 4
    assert (int(facts["CapBnd"], 16), int(facts["CapEff"], 16), facts["NoNewPrivs"]) == (0, 0, "1")
    for words in (("stop", "train._.2001"), ("remove", "-f", "train._.2001")):
        done = run_as(served, "ben", "ds01ctl", "container", *words)
        assert done.returncode == 1
        assert "belongs to" in done.stderr
    assert "is stopped" in run("stop", "train", "-t", "0")
    assert "is running" in run("start", "train")
    assert "is removed" in run("remove", "-f", "train")
    assert served.books.bookings() == set()
