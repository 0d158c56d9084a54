"""The operations log on a booted machine: the file, syslog and Docker's own events say the same."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ds01d.adapters.books.operations_format import parse_line
from ds01d.model.books import LogLine
from tests.machine.stories import ON_OTHER, booked, legacy
from tests.support.books import until
from tests.support.scripts import ROOT
from tests.support.service import Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(300)]
NAME = "work._.1001"
LABELS = {"aime.mlc": "alice", "ds01.managed": "true"}
OPERATION = {"start": "start", "die": "stop", "destroy": "remove"}


@pytest.fixture
def service(stopped_service: Service) -> Service:
    """ds01d on an empty log."""
    # Before it starts: of what it has read it would log the end of an earlier story's container.
    stopped_service.books.operations.write_text("")
    stopped_service.start()
    return stopped_service


def lines(service: Service) -> list[LogLine]:
    texts = service.books.operations.read_text().splitlines()
    return [line for text in texts if (line := parse_line(text)) is not None]


def last_of(service: Service, operation: str) -> LogLine:
    """ds01d may write a line for an earlier event after it."""
    return [line for line in lines(service) if line.operation == operation][-1]


def operations(service: Service, name: str = NAME) -> list[str]:
    return [line.operation for line in lines(service) if line.container == name]


def events(service: Service, since: int, name: str = NAME) -> list[str]:
    """What Docker itself tells of a container, as operations."""
    told = service.machine.docker.client.events(
        since=since, until=int(time.time()) + 1, filters={"container": name}, decode=True
    )
    return [OPERATION[one["Action"]] for one in told if one.get("Action") in OPERATION]


def in_journal(service: Service, *match: str) -> list[dict[str, Any]]:
    return service.machine.journal("--identifier=ds01-container", *match)


def logged(service: Service, *expected: str) -> None:
    """Wait until just these are logged."""
    until(
        lambda: operations(service) == list(expected),
        what=lambda: f"{expected}: {operations(service)}; {service.tail()}",
    )


def same_in_syslog(service: Service) -> None:
    """Every line of the file is in the journal, in its order, and no other."""

    def read_both() -> tuple[list[str], list[str]]:
        # The file anew with each look: a release is in the books a moment before its line is there.
        written = service.books.operations.read_text().splitlines()
        return written, [one["MESSAGE"] for one in in_journal(service)][-len(written) :]

    def are_same() -> bool:
        written, told = read_both()
        return written == told

    until(are_same, what=read_both)


def in_order(service: Service) -> bool:
    times = [line.at for line in lines(service)]
    return times == sorted(times)


def test_start_stop_start_within_seconds_and_run_remove_run_remove(service: Service) -> None:
    docker, began = service.machine.docker, int(time.time()) - 1
    docker.run(NAME, labels=LABELS)
    docker.stop_container(NAME)
    docker.client.start(NAME)
    logged(service, "start", "stop", "start")
    docker.remove(NAME)
    for _ in range(2):
        docker.run(NAME, labels=LABELS)
        docker.remove(NAME)
    logged(service, *["start", "stop", "start", "stop", "remove"], *["start", "stop", "remove"] * 2)
    assert operations(service) == events(service, began)
    assert in_order(service)
    same_in_syslog(service)


def test_the_commands_write_their_own_lines_and_no_event_has_two(service: Service) -> None:
    machine, began = service.machine, int(time.time()) - 1
    machine.docker.run(NAME, labels=LABELS)
    logged(service, "start")
    for words in (("stop", "-t", "0", NAME), ("start", NAME), ("remove", "--force", NAME)):
        machine.run("ds01ctl", "container", *words)
    expected = events(service, began)
    assert expected == ["start", "stop", "start", "stop", "remove"]
    until(
        lambda: [one for one in operations(service) if one in OPERATION.values()] == expected,
        what=lambda: f"{expected}: {lines(service)}",
    )
    assert in_order(service)
    same_in_syslog(service)


def test_an_event_of_a_time_when_ds01d_was_down_is_added(service: Service) -> None:
    docker = service.machine.docker
    docker.run(NAME, labels=LABELS)
    docker.stop_container(NAME)
    logged(service, "start", "stop")
    service.systemctl("stop")
    docker.client.start(NAME)
    service.start()
    logged(service, "start", "stop", "start")
    assert "no event received; StartedAt of " in lines(service)[-1].details
    service.systemctl("restart")
    booked(service)
    logged(service, "start", "stop", "start")


def test_a_creation_by_a_wrapper_does_not_stay_pending(service: Service) -> None:
    machine = service.machine
    machine.put("/usr/share/ds01d/container-logger.sh", ROOT / "share" / "container-logger.sh")
    words = f"log_container_operation create_start alice {NAME} 1.1 pending x"
    machine.run("bash", "-c", f". /usr/share/ds01d/container-logger.sh; {words}")
    machine.docker.mlc_create(NAME, labels=LABELS, start=False)
    logged(service, "create_start", "create_success")
    machine.docker.client.start(NAME)
    logged(service, "create_start", "create_success", "start")
    same_in_syslog(service)


@contextmanager
def stopped_journald(service: Service) -> Iterator[None]:
    """A journald that hangs."""
    service.machine.run("systemctl", "kill", "--signal=STOP", "systemd-journald.service")
    try:
        yield
    finally:
        service.machine.run("systemctl", "kill", "--signal=CONT", "systemd-journald.service")


def test_a_journald_that_hangs_stops_no_line_and_gets_all_of_them_later(service: Service) -> None:
    docker = service.machine.docker
    with stopped_journald(service):
        docker.run(NAME, labels=LABELS)
        docker.remove(NAME)
        logged(service, "start", "stop", "remove")
        legacy(service).allocate(ON_OTHER[0], "alice", ON_OTHER[1])
        booked(service)  # released: nobody is there
    until(lambda: operations(service, ON_OTHER[0]) == ["release"], what=lambda: lines(service))
    same_in_syslog(service)


def as_user(service: Service, name: str, *command: str) -> subprocess.CompletedProcess[str]:
    return service.machine.run("runuser", "-u", name, "--", *command)


@pytest.fixture
def alice(service: Service) -> int:
    """A member of group ds01; her uid."""
    if service.machine.run("id", "-u", "alice", check=False).returncode:
        service.machine.run("useradd", "--groups", "ds01", "alice")
    return int(service.machine.run("id", "-u", "alice").stdout)


def test_log_journal_and_history_say_who_did_it(service: Service, alice: int) -> None:
    # Until alice's booking is released by hand.
    service.configure(policy={"creation_grace": "1h"})
    service.systemctl("reload")
    as_user(service, "alice", "ds01-allocator", "allocate", "bob", NAME, "9", "1")
    line = last_of(service, "allocate")
    assert (line.user, line.status) == ("bob", "success")
    assert f"; by alice (uid {alice}, pid " in line.details
    (entry,) = until(
        lambda: in_journal(service, f"DS01_UID={alice}", "DS01_OPERATION=allocate"),
        what="journald, which writes when it can",
    )
    assert (entry["_UID"], entry["DS01_LOGIN"], entry["MESSAGE_ID"]) == (
        str(alice),
        "alice",
        "878cc2151b4b4f8ca4325b95904e17f1",
    )
    sudo = {"SUDO_UID": str(alice), "SUDO_USER": "alice"}
    service.machine.run("ds01-allocator", "release", NAME, env=sudo)
    line = last_of(service, "release")
    assert line.details.endswith(f"), sudo by alice (uid {alice})")
    assert "; by root (uid 0, pid " in line.details
    service.configure(policy={"creation_grace": "2s"})
    service.systemctl("reload")

    legacy(service).allocate(ON_OTHER[0], "alice", ON_OTHER[1])
    booked(service)
    entry = service.ctl("history")["entries"][-1]
    daemon = int(service.machine.run("id", "-u", "ds01d").stdout)
    assert (entry["actor"]["uid"], entry["actor"]["login"]) == (daemon, "ds01d")
    service.machine.run("ds01ctl", "undo", entry["id"], env=sudo)
    undo = service.ctl("history")["entries"][-1]
    assert (undo["actor"]["uid"], undo["actor"]["sudo_login"]) == (0, "alice")
    # A line that ds01d writes for an event may come after it.
    (details,) = [line.details for line in lines(service) if line.operation == "undo"]
    assert "; by root (uid 0" in details
    same_in_syslog(service)


def test_an_entry_that_somebody_forged_is_not_the_services(service: Service, alice: int) -> None:
    forged = "stale-allocation: train._.1001 released, says alice"
    as_user(service, "alice", "logger", "-t", "ds01d", "--", forged)
    machine = service.machine
    by_tag = until(lambda: machine.journal("--identifier=ds01d", f"MESSAGE={forged}"))
    assert [one["_UID"] for one in by_tag] == [str(alice)]
    assert machine.journal("--unit=ds01d", f"MESSAGE={forged}") == []
