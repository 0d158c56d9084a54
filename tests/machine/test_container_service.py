"""Containers for users in no group but their own, on a booted machine."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from simulation.engine_client import IMAGE
from tests.machine.stories import run_as
from tests.machine.test_booking_service import LIMITS, SOCKET, USERS
from tests.support.books import until
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
    assert "/home/amy:/home/amy" in run("create", "train", "pytorch", "--dry-run")
    assert "train._.2001 runs on GPU" in run("create", "train", "pytorch", "-w", "/home/amy/src")
    rows: list[dict[str, Any]] = json.loads(run("list", "--json"))["containers"]
    assert [(row["name"], row["state"]) for row in rows] == [("train._.2001", "running")]
    inside = served.machine.docker.client.inspect_container("train._.2001")
    status = served.machine.path(f"/proc/{inside['State']['Pid']}/status").read_text()
    assert inside["Config"]["WorkingDir"] == "/home/amy/src"
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["2001"] * 4
    assert (int(facts["CapBnd"], 16), int(facts["CapEff"], 16), facts["NoNewPrivs"]) == (0, 0, "1")
    assert run("enter", "train", "sh", "-c", "id -u; pwd").split() == ["2001", "/home/amy/src"]
    assert run("logs", "train") == ""
    words: tuple[str, ...]
    for words in (
        ("stop", "train._.2001"),
        ("remove", "-f", "train._.2001"),
        ("enter", "train._.2001", "id"),
        ("logs", "train._.2001"),
    ):
        done = run_as(served, "ben", "ds01ctl", "container", *words)
        assert done.returncode == 1
        assert "belongs to" in done.stderr
    assert_session_survives_a_restart(served)
    assert "is stopped" in run("stop", "train", "-t", "0")
    assert "is running" in run("start", "train")
    assert "is removed" in run("remove", "-f", "train")
    assert served.books.bookings() == set()


def assert_session_survives_a_restart(served: Service) -> None:
    # What it prints comes by the stream: before that it is a call, which a restart ends.
    enter = "ds01ctl container enter train sh -c 'echo entered; read word; exit 7' >/tmp/session"
    printed = served.machine.path("/tmp/session")
    with ThreadPoolExecutor() as pool:
        session = pool.submit(run_as, served, "amy", "sh", "-c", f"(sleep 30; echo) | {enter}")
        until(lambda: printed.exists() and printed.read_text() == "entered\n", what=served.tail)
        served.machine.run("systemctl", "restart", UNIT)
        done = session.result(120)
    assert done.returncode == 7, done.stderr


def create(service: Service, user: str, *words: str) -> str:
    """What it answers: a refusal, of which nothing is left."""
    done = run_as(service, user, "ds01ctl", "container", "create", "x", "pytorch", *words)
    assert done.returncode == 1, done.stdout
    assert service.machine.docker.client.containers(all=True) == []
    assert service.books.bookings() == set()
    return done.stderr


def test_what_users_choose_by_themselves_counts_for_nothing(served: Service) -> None:
    machine = served.machine
    own = "/home/amy/mine.toml"
    catalogue = "/home/amy/frameworks.toml"
    machine.put(catalogue, CATALOGUE.replace("{home}/work", "/"))
    machine.put(own, f'[containers]\nframeworks = "{catalogue}"\n[service]\nsocket = "{SOCKET}"\n')
    environment = f"DS01D_CONFIG={own} ds01ctl container create x pytorch --dry-run"
    done = run_as(served, "amy", "sh", "-c", environment)
    assert "/home/amy:/home/amy" in done.stdout, done.stderr
    assert "has no image" in create(served, "amy", "--image", "busybox:1")
    assert "is not in the home" in create(served, "amy", "-w", "/etc")
    assert "needs access to Docker" in create(served, "amy", "-d", "/etc")


def test_a_home_that_leads_elsewhere(served: Service) -> None:
    machine = served.machine
    machine.run("mv", "/home/amy", "/home/amy.d")
    try:
        for link in ("/", "/etc", "/home/ben", "/var/run"):
            machine.run("ln", "-sfn", link, "/home/amy")
            assert "is a symlink" in create(served, "amy")
            machine.run("rm", "/home/amy")
        assert "No such file or directory" in create(served, "amy")
        machine.run("mkdir", "-p", "/home/amy")
        assert "belongs to uid 0" in create(served, "amy")
        machine.run("rmdir", "/home/amy")
    finally:
        machine.run("mv", "/home/amy.d", "/home/amy")


def test_ds01d_that_is_killed_while_it_creates(served: Service) -> None:
    """At whatever moment: nothing lasting is left, or the whole container."""
    engine = served.machine.docker
    for delay_s in (0.15, 0.3, 0.45, 0.6):
        words = ("ds01ctl", "container", "create", "x", "pytorch", "--cpu-only")
        command = served.machine.inside(("runuser", "-u", "amy", "--", *words))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
            time.sleep(delay_s)
            served.machine.run("systemctl", "kill", "--signal=KILL", UNIT, check=False)
            run.wait(60)

        def is_settled() -> bool:
            rows = engine.client.containers(all=True)
            return not rows or rows[0]["State"] == "running"

        until(is_settled, what=lambda: engine.client.containers(all=True))
        for row in engine.client.containers(all=True):
            engine.remove(row["Id"])
        served.machine.run("systemctl", "reset-failed", UNIT)
        served.machine.run("systemctl", "start", UNIT)
