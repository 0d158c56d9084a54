"""The booking service on a booted machine: who may touch what, with systemd's socket.

amy and ben are in no group but their own, dora is in group docker, olga in ds01-operators. With
`books.writers = "service"` none of them can write a file that ds01d trusts; through the socket each
changes what is theirs.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.service import UNIT, Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

SOCKET: Final = "/run/ds01d/booking.sock"
USERS: Final = {
    "amy": ("2001", "users"),
    "ben": ("2002", "users"),
    "dora": ("2003", "docker"),
    "olga": ("2009", "ds01-operators"),
}
LIMITS: Final = """\
defaults: {gpu_hold_after_stop: null, priority: 1, max_mig_instances: 1}
default_group: student
groups:
  student: {members: [amy, ben, dora], priority: 10, max_mig_instances: 2}
"""
TRUSTED: Final = ("/var/lib/ds01", "/var/lib/ds01d", "/var/log/ds01", "/etc/ds01", "/run/ds01d")


@pytest.fixture(scope="module")
def served(booted: Service) -> Iterator[Service]:
    """The machine with its users, and the service as the package sets it up."""
    machine = booted.machine
    for user, (uid, group) in USERS.items():
        machine.run("useradd", "--no-create-home", "-u", uid, "-G", group, user)
    machine.put("/etc/systemd/system/ds01d.socket", ROOT / "systemd" / "ds01d.socket")
    machine.put("/opt/ds01-infra/config/resource-limits.yaml", LIMITS)
    machine.run("systemctl", "daemon-reload")
    booted.configure(books={"writers": "service"})
    booted.chown_books()
    yield booted
    machine.run("systemctl", "stop", "ds01d.socket", UNIT)


@pytest.fixture
def service(served: Service) -> Iterator[Service]:
    """ds01d, started by its socket, with empty books."""
    served.machine.run("systemctl", "stop", "ds01d.socket", UNIT)
    served.make_new()
    served.configure(
        service={"socket": SOCKET},
        books={"writers": "service"},
        policy={"creation_grace": "10m"},
        allocator={"sharing": "never"},
    )
    served.machine.run("systemctl", "start", "ds01d.socket")
    served.start()
    yield served
    served.machine.run("systemctl", "stop", "ds01d.socket", UNIT)


def run_as(service: Service, user: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user."""
    return service.machine.run("runuser", "-u", user, "--", *words, check=False)


def allocate(service: Service, user: str, container: str) -> str:
    """Book for oneself; the slot."""
    done = run_as(service, user, "ds01ctl", "allocate", user, container, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return str(answer["slot"])


def test_no_file_that_is_trusted_can_be_written(service: Service) -> None:
    allocate(service, "amy", "job._.2001")
    for user in USERS:
        found = run_as(service, user, "find", *TRUSTED, "-writable", "!", "-type", "l")
        assert [path for path in found.stdout.splitlines() if path != SOCKET] == []
    checks = {check["name"]: check["health"] for check in service.ctl("doctor")["checks"]}
    assert checks["writers"] == "ok"


@pytest.mark.parametrize("user", ["ben", "dora"])
def test_what_others_hold_stays_theirs(service: Service, user: str) -> None:
    slot = allocate(service, "amy", "job._.2001")
    for words, message in {
        ("release", "job._.2001"): "the container belongs to amy",
        ("mark-stopped", "job._.2001"): "the container belongs to amy",
        ("allocate", "amy", "other", "50", "99"): "needs root or group ds01-operators",
        ("allocate", user, "job._.2001", "50", "99"): "the container belongs to amy",
        ("allocate", user, "new._.2001", "50", "99"): "the container belongs to uid 2001",
    }.items():
        done = run_as(service, user, "ds01-allocator", *words)
        assert done.returncode == 1, (words, done.stdout)
        assert message in done.stderr
        assert done.stdout == ""
    assert service.books.bookings() == {("job._.2001", slot)}


def test_the_old_ways_are_closed(service: Service) -> None:
    slot = allocate(service, "amy", "job")
    for script in (
        "mv container-metadata x; ln -s /var/lib/ds01d container-metadata",
        "echo '{}' > gpu-state.json",
        "mv gpu-state.json x",
        "flock --nonblock gpu-state.json.lock true",
        "rm gpu-state.json.lock",
        "touch container-metadata/x.json",
        "rm container-metadata/job.json",
        "echo x >> /var/log/ds01/container-operations.log",
        """
        export DS01D_CONFIG=/tmp/mine.toml
        printf '[service]\\nsocket = ""\\n' >$DS01D_CONFIG
        ds01-allocator release job
        """,
    ):
        done = run_as(service, "amy", "sh", "-c", f"cd /var/lib/ds01 && {script}")
        assert done.returncode != 0, script
    at = time.time()
    service.machine.run("systemctl", "reload", UNIT)
    until(lambda: service.books.status()["last_sweep"]["at"] > at, what="another sweep")
    assert service.books.bookings() == {("job", slot)}


def test_the_limits_hold_whatever_is_asked(service: Service) -> None:
    for number in range(2):
        allocate(service, "amy", f"job{number}")
    done = run_as(service, "amy", "ds01-allocator", "allocate", "amy", "job2", "50", "99")
    assert (done.returncode, done.stdout) == (0, "✗ Allocation failed: USER_AT_LIMIT (2/2)\n")
    assert service.books.record("job0")["priority"] == 10  # type: ignore[index]


def test_an_operator_and_root_act_for_others(service: Service) -> None:
    allocate(service, "amy", "job")
    done = run_as(service, "olga", "ds01-allocator", "release", "job")
    assert done.stdout.startswith("✓ Released"), done.stderr
    done = run_as(service, "olga", "ds01ctl", "allocate", "ben", "bens", "--json")
    assert json.loads(done.stdout)["user"] == "ben"
    done = service.machine.run("ds01-allocator", "release", "bens")
    assert done.stdout.startswith("✓ Released")
    by = [(entry["action"], entry["actor"]["login"]) for entry in service.books.history()]
    assert by == [
        ("allocate", "amy"),
        ("release", "olga"),
        ("allocate", "olga"),
        ("release", "root"),
    ]


def test_a_call_starts_ds01d_and_waits_for_it(service: Service) -> None:
    service.machine.run("systemctl", "stop", UNIT)
    slot = allocate(service, "amy", "job")
    assert service.active == "active"
    service.machine.run("systemctl", "restart", UNIT)
    assert allocate(service, "amy", "job") == slot


def test_who_calls_from_a_container_is_refused(service: Service) -> None:
    """Whoever mounts the socket into a container, and is root in there."""
    machine = service.machine
    call = json.dumps({"method": "io.github.ds01.Booking.Quota", "parameters": {}})
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX); "
        f"s.connect({SOCKET!r}); s.sendall({call!r}.encode() + b'\\0'); "
        "print(s.recv(65536).rstrip(b'\\0').decode())"
    )
    ask = ("/usr/bin/python3", "-c", script)
    outside: dict[str, Any] = json.loads(machine.run(*ask).stdout)
    assert outside["parameters"]["quota"]["user"] == "root"
    wrapped = machine.run(
        *("systemd-run", "--quiet", "--scope", f"--unit=docker-{'a' * 64}", *ask), check=False
    )
    assert wrapped.returncode == 0, wrapped.stderr
    inside: dict[str, Any] = json.loads(wrapped.stdout)
    assert inside["error"] == "io.github.ds01.Booking.NotPermitted"
