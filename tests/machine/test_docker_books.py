"""A machine with Docker, GPUs and nothing else: with Docker as the books it has an allocator.

amy and ben are in no group but their own. /var/lib is empty at the start, and nobody but Docker,
NVML and the socket says what anybody has.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any, Final

import pytest

from simulation.nvml import prod4
from tests.machine.stories import run_as
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.service import UNIT, Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

SOCKET: Final = "/run/ds01d/booking.sock"
RESERVATIONS: Final = "/var/lib/ds01d/reservations.json"
LIMITS: Final = """\
defaults: {gpu_hold_after_stop: 6s, priority: 1, max_mig_instances: 2}
default_group: student
groups:
  student: {members: [amy, ben], priority: 10}
"""
TRAIN: Final = "train._.2001"
LABELS: Final = {"ds01.managed": "true", "ds01.user": "amy"}


@pytest.fixture(scope="module")
def lab(booted: Service) -> Iterator[Service]:
    """The machine, without anything of an allocator's."""
    machine = booted.machine
    for user, uid in (("amy", "2001"), ("ben", "2002")):
        machine.run("useradd", "--no-create-home", "-u", uid, user)
    machine.put("/etc/systemd/system/ds01d.socket", ROOT / "systemd" / "ds01d.socket")
    machine.put("/opt/ds01-infra/config/resource-limits.yaml", LIMITS)
    for folder in ("/var/lib/ds01", "/var/lib/ds01d"):
        shutil.rmtree(machine.path(folder), ignore_errors=True)
    machine.run("systemctl", "daemon-reload")
    booted.configure(
        service={"socket": SOCKET},
        books={"kind": "docker"},
        policy={"creation_grace": "10m"},
        allocator={"sharing": "never"},
    )
    machine.run("systemctl", "start", "ds01d.socket")
    booted.start()
    yield booted
    machine.run("systemctl", "stop", "ds01d.socket", UNIT)


def holders(lab: Service) -> dict[str, set[str]]:
    """Who holds what, by `ds01ctl status`: container → slots."""
    slots: dict[str, set[str]] = {}
    for slot in lab.ctl("status")["slots"]:
        for holder in slot["holders"]:
            slots.setdefault(holder["container"], set()).add(slot["slot"])
    return slots


def holds(lab: Service, expected: dict[str, set[str]]) -> None:
    until(lambda: holders(lab) == expected, what=lambda: f"{holders(lab)}; {lab.tail()}")


def reserved(lab: Service) -> set[str]:
    path = lab.machine.path(RESERVATIONS)
    gpus = json.loads(path.read_text())["gpus"] if path.exists() else {}
    return {name for slot in gpus.values() for name in slot["containers"]}


def test_a_lab_with_docker_and_gpus_has_an_allocator(lab: Service) -> None:
    machine, docker = lab.machine, lab.machine.docker
    slots = {slot["slot"]: slot["uuid"] for slot in lab.ctl("status")["slots"]}
    assert slots == prod4().slots()
    assert not machine.path("/var/lib/ds01").exists()

    # Book: a reservation, whose lines are those of always.
    done = run_as(lab, "amy", "ds01-allocator", "allocate", "amy", TRAIN, "2", "10")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("✓ Allocated GPU/MIG "), done.stdout
    first = until(lambda: holders(lab).get(TRAIN), what=lab.tail)
    holds(lab, {TRAIN: first})
    assert reserved(lab) == {TRAIN}
    owner = machine.run("stat", "--format=%U %a", RESERVATIONS).stdout
    assert owner == "ds01d 644\n"

    # Run: the container has it, and the reservation is over.
    slot = min(first)
    docker.run(TRAIN, devices=[slots[slot]], labels=LABELS)
    docker.run("plain", devices=[slots["3.2"]])
    holds(lab, {TRAIN: first, "plain": {"3.2"}})
    until(lambda: reserved(lab) == set(), what=lab.tail)
    # Its record goes, and the pass is kept in mind, after the slot.
    until(lambda: lab.ctl("plan")["drifts"] == [], what=lambda: lab.ctl("plan"))
    status = run_as(lab, "ben", "ds01-allocator", "status")
    assert f"    - {TRAIN}\n" in status.stdout, status.stderr
    count = run_as(lab, "ben", "ds01-allocator", "user-count", "amy")
    assert count.stdout == "1\n", count.stderr

    # Nobody else gets it, and nobody gives it away while it runs.
    answer = run_as(lab, "ben", "ds01ctl", "allocate", "ben", "other._.2002", "--slot", slot)
    assert answer.returncode == 3, answer.stdout
    release = run_as(lab, "amy", "ds01-allocator", "release", TRAIN)
    assert "NOT_POSSIBLE (" in release.stderr
    release = machine.run("ds01-allocator", "release", TRAIN, check=False)
    assert f"{TRAIN} has {slot} by its own request: docker rm {TRAIN}" in release.stderr
    holds(lab, {TRAIN: first, "plain": {"3.2"}})

    # Stop: it holds, until its hold is over, and has it again when it starts.
    docker.stop_container(TRAIN)
    assert holders(lab)[TRAIN] == first
    explained = lab.machine.run("ds01ctl", "explain", TRAIN, check=False)
    assert "docker: exited" in explained.stdout, explained.stderr
    holds(lab, {"plain": {"3.2"}})
    docker.client.start(TRAIN)
    holds(lab, {TRAIN: first, "plain": {"3.2"}})
    docker.remove(TRAIN)
    holds(lab, {"plain": {"3.2"}})
    docker.remove("plain")
    holds(lab, {})
    kinds = {entry["kind"] for entry in _history(lab)}
    assert kinds == {"booking", "orphaned-metadata", "expired-hold"}


def _history(lab: Service) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = lab.ctl("history")["entries"]
    return entries


def test_without_docker_nobody_books_and_all_is_as_before(lab: Service) -> None:
    machine = lab.machine
    slots = prod4().slots()
    machine.docker.run(TRAIN, devices=[slots["1.0"]], labels=LABELS)
    holds(lab, {TRAIN: {"1.0"}})
    machine.run("systemctl", "stop", "docker.socket", "docker.service")
    answer = run_as(lab, "ben", "ds01ctl", "allocate", "ben", "other._.2002")
    assert answer.returncode == 1, answer.stdout
    assert "cannot reach Docker" in answer.stderr
    until(lambda: not lab.ctl("status")["sources"]["docker"]["ok"])
    assert holders(lab) == {TRAIN: {"1.0"}}
    machine.run("systemctl", "start", "docker.socket", "docker.service")
    until(lambda: lab.ctl("status")["sources"]["docker"]["ok"])
    machine.docker.remove(TRAIN)
    holds(lab, {})


def test_doctor_needs_no_files(lab: Service) -> None:
    done = lab.machine.run("ds01ctl", "doctor", "--json", check=False)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    wrong = {name for name, check in checks.items() if check["health"] == "fail"}
    assert not wrong, done.stdout


def test_a_restart_forgets_nothing(lab: Service) -> None:
    slots = prod4().slots()
    lab.machine.docker.run(TRAIN, devices=[slots["1.0"]], labels=LABELS)
    done = run_as(lab, "ben", "ds01ctl", "allocate", "ben", "other._.2002", "--json")
    slot = json.loads(done.stdout)["slot"]
    lab.systemctl("kill", "--signal=KILL")
    until(lambda: lab.active == "active" and lab.pid, what=lab.tail)
    holds(lab, {TRAIN: {"1.0"}, "other._.2002": {slot}})
    done = run_as(lab, "ben", "ds01-allocator", "release", "other._.2002")
    assert done.returncode == 0, done.stderr
    lab.machine.docker.remove(TRAIN)
    holds(lab, {})


def test_a_reservation_ends_with_the_script_that_asked(lab: Service) -> None:
    """The sandboxed service sees who asked, and the end of it."""
    machine, before = lab.machine, reserved(lab)
    machine.put("/var/tmp/v2.py", ROOT / "share" / "gpu_allocator_v2.py")
    line = "text=$(python3 /var/tmp/v2.py allocate-external amy docker); sleep 300"
    machine.put("/var/tmp/asker", f"{line}\n")
    unit = ("--uid=amy", "--unit=asker", "--setenv=PATH=/usr/local/bin:/usr/bin:/bin")
    machine.run("systemd-run", *unit, "/bin/sh", "/var/tmp/asker")
    (name,) = until(lambda: reserved(lab) - before, what=lab.tail)
    pid = machine.run("systemctl", "show", "--value", "-p", "MainPID", "asker").stdout.strip()
    record = machine.path("/var/lib/ds01d/reservations") / f"{name}.json"
    until(record.exists, what=lab.tail)  # written after the slot
    (process,) = json.loads(record.read_text())["processes"]
    assert (str(process["pid"]), process["command"]) == (pid, "sh")
    machine.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "asker", check=False)
    machine.run("systemctl", "stop", "asker", check=False)
    until(lambda: reserved(lab) == before, what=lab.tail)
