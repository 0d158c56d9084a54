"""No picture is better than the truth: all of them, asked at the same moment of a fault.

STATUS=, `ds01ctl status`, `plan`, `explain` and `doctor`, the metrics and the journal. Each story
ends with the fault, after which all recover by themselves.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from simulation import nvml
from simulation.machine import Machine
from tests.machine.conftest import SHORT_UNIT
from tests.machine.stories import ON_OTHER, ON_TRAIN, OTHER, TRAIN, booked, says, train_and_other
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.metrics import value
from tests.support.service import PLACE, UNIT, Service

pytestmark = pytest.mark.machine

OWN = "/var/lib/ds01d"
ADDRESS = "127.0.0.1:9464"
ASK = f"import urllib.request as r; print(r.urlopen('http://{ADDRESS}/metrics').read().decode())"
FILL = """
import socket
senders, count = [], 1
while count:  # each has a buffer of its own, smaller than the queue of the receiver
    sender, count = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), 0
    sender.setblocking(False)
    senders.append(sender)
    try:
        while True:
            sender.sendto(b"MESSAGE=x\\n", "/run/systemd/journal/socket")
            count += 1
    except BlockingIOError:
        pass
"""
DROP_INS = f"/etc/systemd/system/{UNIT}.d"


@pytest.fixture(scope="module")
def booted(machine: Machine) -> Service:
    """A machine as the other stories have it, with metrics, and alice, who may not see all."""
    service = Service(machine)
    service.install(nvml.prod4())
    machine.put(f"{DROP_INS}/short.conf", SHORT_UNIT)
    machine.put(f"{DROP_INS}/metrics.conf", ROOT / "systemd" / "ds01d-metrics.conf")
    machine.boot()
    machine.start_docker()
    machine.run("sh", "-c", "id alice || useradd --groups ds01,docker alice")
    return service


@pytest.fixture
def service(booted: Service) -> Iterator[Service]:
    """ds01d, ready, with two slots booked, of which only the first has a container."""
    booted.make_new()
    booted.configure(metrics={"listen": ADDRESS}, policy={"absence_grace": "1h"})
    booted.start()
    train_and_other(booted)
    says(booted, "2 slots of 12 held")
    yield booted
    booted.systemctl("stop")


@dataclass(frozen=True)
class Pictures:
    """What each shows, one right after the other."""

    line: str
    status: dict[str, Any]
    plan: dict[str, Any]
    explain: dict[str, Any]
    doctor: dict[str, Any]
    metrics: bytes

    @property
    def verdicts(self) -> set[str]:
        """How the drift of `train` stands, in all that name it."""
        told = [*self.plan["drifts"], *self.explain.get("drifts", ()), *self.status["open_drifts"]]
        return {drift["verdict"] for drift in told if drift["container"] == TRAIN}


def pictures(service: Service, user: str = "root") -> Pictures:
    def ask(*words: str) -> dict[str, Any]:
        command = ("runuser", "-u", user, "--", "ds01ctl", *words, "--json")
        answer: dict[str, Any] = json.loads(
            service.machine.run(*command, check=False).stdout or "{}"
        )
        return answer

    doctor = {check["name"]: check for check in ask("doctor")["checks"]}
    return Pictures(
        line=service.line,
        status=ask("status"),
        plan=ask("plan"),
        explain=ask("explain", TRAIN),
        doctor=doctor,
        metrics=service.machine.run("python3", "-c", ASK).stdout.encode(),
    )


def are_well(service: Service) -> None:
    """Nothing fails any more, wherever one looks."""
    until(lambda: "fail" not in service.line, what=lambda: service.line)
    now = pictures(service)
    assert now.status["daemon"]["ready"] is True
    assert now.status["daemon"]["passes"]["failing"] is False
    assert now.doctor["daemon"]["health"] == "ok"
    assert (value(now.metrics, "ready"), value(now.metrics, "passes_failing")) == (1, 0)


@contextmanager
def own_disk(service: Service) -> Iterator[None]:
    """The state directory on a file system of its own, a megabyte large."""
    machine, aside = service.machine, "/var/lib/aside"
    service.systemctl("stop")
    machine.run("cp", "--archive", OWN, aside)
    machine.run("mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "tmpfs", OWN)
    machine.run("chown", "--reference", aside, OWN)
    machine.run("cp", "--archive", f"{aside}/.", OWN)
    service.start()
    try:
        yield
    finally:
        service.systemctl("stop")
        machine.run("umount", OWN)
        machine.run("rm", "--recursive", aside)


def remove_train(service: Service) -> None:
    """Its booking is drift from now on, and due after the settle time."""
    service.machine.docker.remove(TRAIN)


READ_ONLY: Final = ("mount", "-o", "remount,ro", OWN)
# While it replaces no file there: the old one would be room again.
FILL_OWN: Final = f"""
until
    kill -STOP "$1"
    while cat /proc/"$1"/task/*/status | grep '^State:' | grep -qv 'T (stopped)'; do :; done
    ! ls -A {OWN} | grep -q '^[.]'
do
    kill -CONT "$1"
    sleep 0.02
done
cat /dev/zero >{OWN}/filler || true
kill -CONT "$1"
"""


@pytest.mark.timeout(300)
def test_while_no_pass_succeeds_every_picture_says_so_first(service: Service) -> None:
    # A disk on which SQLite has a file open to write cannot be made read-only.
    service.configure(accounting={"keep_days": 0})
    with own_disk(service):
        says(service, "2 slots of 12 held")
        # Busy while ds01d has a file open there to write, which it has for a moment only.
        until(lambda: service.machine.run(*READ_ONLY, check=False).returncode == 0)
        remove_train(service)
        says(service, "passes fail since ", "nothing is repaired")
        for user in ("root", "alice"):
            now = pictures(service, user)
            assert now.line.startswith("passes fail since ")
            daemon = now.status["daemon"]
            assert (daemon["alive"], daemon["ready"]) == (True, False), user
            assert daemon["passes"]["failing"] is True
            assert "read-only" in daemon["passes"]["reason"]
            assert daemon["passes"]["last_success"] <= daemon["passes"]["since"]
            assert now.doctor["daemon"]["health"] == "fail"
            assert "passes fail since" in now.doctor["daemon"]["told"]
            assert value(now.metrics, "ready") == 0
            assert value(now.metrics, "passes_failing") == 1
        plain = service.machine.run("ds01ctl", "status").stdout
        assert plain.startswith("passes fail since ")
        dashboard = service.machine.run(f"{PLACE}/bin/ds01-dashboard").stdout
        assert dashboard.startswith("passes fail since ")
        assert service.log("DS01_EVENT=pass.failed", "PRIORITY=3")
        assert ON_TRAIN in service.books.bookings()
        service.machine.run("mount", "-o", "remount,rw", OWN)
        booked(service, ON_OTHER)
        are_well(service)


@pytest.mark.timeout(300)
def test_on_a_full_disk_what_is_due_is_failed_and_no_wait(service: Service) -> None:
    with own_disk(service):
        says(service, "2 slots of 12 held")
        service.machine.run("sh", "-c", FILL_OWN, "sh", str(service.pid))
        remove_train(service)
        says(service, "1 repair failed: the history cannot be written")
        for user in ("root", "alice"):
            now = pictures(service, user)
            assert "1 repair failed" in now.line
            assert now.verdicts == {"failed"}, user
            (drift,) = (one for one in now.plan["drifts"] if one["container"] == TRAIN)
            assert "the history cannot be written" in drift["reason"]
            assert now.doctor["daemon"]["health"] == "fail"
            kind = {"kind": "stale-allocation"}
            assert value(now.metrics, "drifts", **kind, verdict="failed") == 1
        told = "\n".join(str(entry["MESSAGE"]) for entry in service.log(f"_PID={service.pid}"))
        assert "nothing is repaired" in told
        assert "epairs go on" not in told
        answer = service.machine.run("ds01ctl", "reconcile", "--wait", check=False)
        assert answer.returncode == 2
        assert "make room" in answer.stdout
        service.machine.path(f"{OWN}/filler").unlink()
        booked(service, ON_OTHER)
        are_well(service)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ["rm -rf {}", "rm {0}/lock; mkdir {0}/lock"])
def test_its_own_directory_is_made_again(service: Service, fault: str) -> None:
    service.configure(policy={"absence_grace": "1s"})  # a new process has to prove it anew
    service.systemctl("reload")
    booked(service, ON_TRAIN)
    service.machine.run("sh", "-c", fault.format(OWN))
    remove_train(service)
    booked(service)
    until(lambda: service.active == "active", what=service.tail)
    folder = service.books.state_dir.stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid != 0) == (0o755, True)
    are_well(service)
    if fault.startswith("rm -rf"):
        (ended,) = service.log("DS01_EVENT=daemon.failed")[-1:]
        assert "was removed or replaced" in ended["MESSAGE"]


@pytest.mark.timeout(300)
def test_waits_are_the_same_for_everybody(service: Service) -> None:
    def moments(user: str) -> set[str]:
        now = pictures(service, user)
        drifts = [*now.plan["drifts"], *now.status["open_drifts"]]
        return {one["until"] for one in drifts if one["container"] == OTHER}

    (moment,) = until(lambda: found if len(found := moments("root")) == 1 else None)
    assert moments("alice") == {moment}
    before = service.books.status()["last_sweep"]["at"]
    until(lambda: service.books.status()["last_sweep"]["at"] > before)
    assert moments("alice") == {moment}
    private = service.machine.run(
        "runuser", "-u", "alice", "--", "cat", f"{OWN}/checkpoint.json", check=False
    )
    assert private.returncode != 0


@pytest.mark.timeout(300)
def test_a_journald_that_hangs_stops_neither_repairs_nor_the_end(service: Service) -> None:
    machine, journald = service.machine, "systemd-journald.service"
    machine.run("systemctl", "kill", "--signal=STOP", journald)
    try:
        machine.run("python3", "-c", FILL)
        remove_train(service)
        booked(service, ON_OTHER)
        service.systemctl("stop")
        assert service.tells("Result", "ActiveState") == {
            "Result": "success",
            "ActiveState": "inactive",
        }
    finally:
        machine.run("systemctl", "kill", "--signal=CONT", journald)
    service.start()
