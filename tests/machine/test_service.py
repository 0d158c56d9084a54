"""ds01d.service as systemd runs it: started, reloaded, killed, starved, beside a Docker that goes.

Each story ends with a service that is active, and books that are right.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from simulation import nvml
from tests.machine.stories import (
    ON_OTHER,
    ON_TRAIN,
    TRAIN,
    booked,
    is_well,
    legacy,
    own_files,
    says,
    train_and_other,
)
from tests.support.books import until
from tests.support.service import CONFIG, UNIT, Service

pytestmark = pytest.mark.machine


def test_its_status_line_tells_the_truth(service: Service) -> None:
    told = service.tells("ActiveState", "StatusText", "User", "NRestarts")
    assert told["ActiveState"] == "active"
    assert told["User"] == "ds01d"
    assert told["StatusText"].startswith("0 slots of 12 held, 0 drifts; docker ok, nvml ok; last")
    # As long as two are held, which a slow start of a container must not outlast.
    service.configure(policy={"creation_grace": "15s"})
    service.systemctl("reload")
    train_and_other(service)
    says(service, "2 slots of 12 held")
    booked(service, ON_TRAIN)
    says(service, "1 slot of 12 held, 0 drifts")
    # And what is for everybody, and what is not.
    modes = {path.name: path.stat().st_mode for path in own_files(service)}
    assert {name for name, mode in modes.items() if mode & stat.S_IROTH} == {"status.json"}
    assert stat.S_IMODE(service.books.state_dir.stat().st_mode) == 0o755


def test_systemd_finds_nothing_to_say_about_the_unit(booted: Service) -> None:
    # Without its man pages, which the package brings and the source does not.
    verified = booted.machine.run("systemd-analyze", "verify", "--man=no", UNIT)
    assert (verified.stdout, verified.stderr) == ("", "")


# --- told by systemctl


def test_a_reload_reads_the_configuration_again(service: Service) -> None:
    pid = service.pid
    service.configure(daemon={"mode": "observe"})
    service.systemctl("reload")
    train_and_other(service)
    says(service, "observing only; 2 slots of 12 held, 1 drift;")
    # A bad one is refused, whoever asks, and the old one stays.
    service.machine.put(CONFIG, '[daemon]\nsweep_interval = "soon"\n')
    for how in (("reload",), ("kill", "--signal=HUP")):
        with service.logging("config.refused", PRIORITY="3"):
            service.systemctl(*how)
    refused = service.log(f"_PID={pid}", "DS01_EVENT=config.refused")[-1]
    assert f"{CONFIG}, line 2: daemon.sweep_interval" in refused["MESSAGE"]
    says(service, "observing only; 2 slots of 12 held, 1 drift;")
    # To all its processes, as `systemctl kill` does: NVML's lives on.
    service.configure(daemon={"mode": "repair"})
    with service.logging("daemon.reload"):
        service.systemctl("kill", "--signal=HUP")
    with service.logging("status.dump"):
        service.systemctl("kill", "--signal=USR1")
    booked(service, ON_TRAIN)
    is_well(service)
    assert not service.log(f"_PID={pid}", "DS01_EVENT=source.down")
    assert (service.pid, service.tells("NRestarts")) == (pid, {"NRestarts": "0"})


# --- killed


@pytest.mark.parametrize("signal", ["STOP", "KILL"])
def test_a_daemon_that_hangs_or_dies_is_restarted_and_goes_on(
    service: Service, signal: str
) -> None:
    # As long as two are held, which a slow start of a container must not outlast.
    service.configure(policy={"creation_grace": "15s"})
    service.systemctl("reload")
    train_and_other(service)
    says(service, "2 slots of 12 held")
    service.systemctl("kill", f"--signal={signal}")
    until(lambda: service.tells("NRestarts")["NRestarts"] == "1")
    until(lambda: service.active == "active")
    reason = "watchdog" if signal == "STOP" else "signal"
    ended = f"Failed with result '{reason}'"
    # journald writes what systemd told it when it can.
    until(lambda: any(ended in str(entry["MESSAGE"]) for entry in service.log()), what=service.tail)
    is_well(service)


# --- beside a Docker, and a driver, that go


def test_it_lives_through_a_docker_that_restarts_dies_or_is_stopped(service: Service) -> None:
    pid, machine = service.pid, service.machine
    train_and_other(service)
    booked(service, ON_TRAIN)
    machine.run("systemctl", "restart", "docker.service")
    machine.docker.client.start(TRAIN)
    is_well(service)
    for how in (("kill", "--signal=KILL"), ("stop",)):
        # The socket too: whoever connects to it, ds01d also, has systemd start Docker again.
        machine.run("systemctl", "stop", "docker.socket")
        machine.run("systemctl", *how, "docker.service")
        says(service, "docker down")
        at = service.books.status()["last_sweep"]["at"]
        until(lambda at=at: service.books.status()["last_sweep"]["at"] > at + 1)  # type: ignore[misc]
        assert service.active == "active"
        assert service.books.bookings() == {ON_TRAIN}
        machine.run("systemctl", "start", "docker.socket", "docker.service")
        is_well(service)
    assert (service.pid, service.tells("NRestarts")) == (pid, {"NRestarts": "0"})


def test_a_driver_that_goes_and_comes_is_picked_up(service: Service) -> None:
    pid, world = service.pid, nvml.prod4()
    service.machine.install_world(world.with_fault("nvmlInit", code=9).text())
    says(service, "nvml down", "Driver Not Loaded")
    assert service.active == "active"
    service.machine.install_world(world.text())
    is_well(service)
    assert service.pid == pid


# --- disks


@contextmanager
def small_disk(service: Service, place: str) -> Iterator[None]:
    """Put what is in a folder on a file system of its own, a megabyte large; ds01d is stopped."""
    machine, aside = service.machine, "/var/lib/aside"
    service.systemctl("stop")
    machine.run("cp", "--archive", place, aside)
    machine.run("mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "tmpfs", place)
    machine.run("cp", "--archive", f"{aside}/.", place)
    try:
        yield
    finally:
        service.systemctl("stop")
        machine.run("umount", place)
        machine.run("rm", "--recursive", aside)


def fill(service: Service, place: str) -> None:
    """Leave no room there."""
    service.machine.run("sh", "-c", f"cat /dev/zero >{place}/filler || true")


def tells_of_trouble(service: Service, words: str) -> None:
    """Wait until it logs, as a warning or worse, something with these words."""
    until(
        lambda: any(
            words in str(entry["MESSAGE"])
            for entry in service.log(f"_PID={service.pid}", "PRIORITY=3", "PRIORITY=4")
        ),
        what=lambda: f"{words}: {service.tail()}",
    )
    assert service.active == "active"
    assert service.books.bookings() == {ON_TRAIN, ON_OTHER}


@pytest.mark.parametrize("place", ["/var/lib/ds01", "/var/lib/ds01d"])
def test_with_a_full_disk_it_repairs_nothing_and_says_why(service: Service, place: str) -> None:
    with small_disk(service, place):
        train_and_other(service)
        fill(service, place)
        service.start()
        tells_of_trouble(service, "make room")
        service.machine.path(f"{place}/filler").unlink()
        is_well(service)


def test_with_books_on_a_read_only_disk_it_says_so(service: Service) -> None:
    place = "/var/lib/ds01"
    with small_disk(service, place):
        train_and_other(service)
        service.machine.run("mount", "-o", "remount,ro", place)
        service.start()
        tells_of_trouble(service, "is read-only: mount it writable")
        service.machine.run("mount", "-o", "remount,rw", place)
        # What was read-only when it started is so for it until it starts again: the message tells.
        service.systemctl("restart")
        is_well(service)


def test_a_full_journal_stops_no_repair(service: Service) -> None:
    machine, place = service.machine, "/run/log/journal"
    machine.run("mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place)
    machine.run("systemctl", "restart", "systemd-journald.service")
    fill(service, place)
    try:
        train_and_other(service)
        is_well(service)
    finally:
        machine.run("umount", "--lazy", place)
        machine.run("systemctl", "restart", "systemd-journald.service")


# --- whose files the books are


def doctor(service: Service) -> dict[str, dict[str, str]]:
    """What the doctor finds wrong with the rights of the service's user."""
    words = ("runuser", "-u", "ds01d", "--", "ds01ctl", "doctor", "--json")
    told = json.loads(service.machine.run(*words, check=False).stdout)
    return {check["name"]: check for check in told["checks"] if check["health"] == "fail"}


def test_those_who_could_write_the_books_before_can_after_a_repair(service: Service) -> None:
    machine, books, state = service.machine, service.books, "/var/lib/ds01/gpu-state.json"
    machine.run("sh", "-c", "id alice || useradd --groups ds01 alice; id eve || useradd eve")
    machine.run("sh", "-c", "getent group gpu || groupadd gpu; id bob || useradd --groups gpu bob")
    # As an older installation has them: root's, and of a group that ds01d knows nothing of.
    text = books.state.read_bytes()
    machine.run("rm", "--recursive", "/var/lib/ds01")
    machine.run("install", "-d", "-m", "2775", "-g", "gpu", "/var/lib/ds01")
    machine.run("install", "-d", "-m", "2775", "-g", "gpu", "/var/lib/ds01/container-metadata")
    books.state.write_bytes(text)
    machine.run("chmod", "0664", state)
    assert "is not writable for" in doctor(service)["folder of the state"]["told"]
    machine.run("systemd-tmpfiles", "--create", "ds01d-group.conf")
    assert {"folder of the state", "state file"}.isdisjoint(doctor(service))
    assert machine.run("stat", "-c", "%U:%G %a", state).stdout == "root:gpu 664\n"
    service.systemctl("restart")
    train_and_other(service)
    booked(service, ON_TRAIN)
    assert machine.run("stat", "-c", "%U:%G %a", state).stdout == "ds01d:gpu 664\n"
    in_place = f"open('{state}', 'r+').close()"
    for user, may in (("root", True), ("alice", True), ("bob", True), ("eve", False)):
        words = ("runuser", "-u", user, "--", "/usr/bin/python3", "-c", in_place)
        assert (machine.run(*words, check=False).returncode == 0) is may, user
    # A record that bob's wrapper made, with the narrowest of umasks.
    record = machine.run("cat", f"/var/lib/ds01/container-metadata/{TRAIN}.json").stdout
    write = f"umask 077; cat >/var/lib/ds01/container-metadata/bobs._.1003.json <<.\n{record}\n."
    machine.run("runuser", "-u", "bob", "--", "sh", "-c", write)
    until(lambda: service.books.record("bobs._.1003") is None, what=service.tail)


def test_what_root_does_with_ds01ctl_is_not_in_its_way(service: Service) -> None:
    service.systemctl("stop")
    for path in service.books.state_dir.iterdir():
        path.unlink()
    legacy(service).allocate("gone._.1003", "alice", "1.3")

    def settled() -> bool:  # not in the first seconds: it may be a creation
        service.machine.run("ds01ctl", "reconcile", "--wait")
        return service.books.bookings() == set()

    until(settled)
    owners = {path.stat().st_uid for path in service.books.state_dir.iterdir()}
    assert owners == {service.books.state_dir.stat().st_uid}
    assert 0 not in owners
    service.start()
    legacy(service).allocate("gone._.1003", "alice", "1.3")
    booked(service)
