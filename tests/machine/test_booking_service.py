"""The booking service on a booted machine: who may touch what, with systemd's socket.

amy, ben and eve are in no group but their own, dora is in group docker, olga in ds01-operators; eve
has no booking. With `books.writers = "service"` none of them can write a file that ds01d trusts;
through the socket each changes what is theirs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.machine.stories import run_as
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.service import PLACE, UNIT, Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

SOCKET: Final = "/run/ds01d/booking.sock"
USERS: Final = {
    "amy": ("2001", ""),
    "ben": ("2002", ""),
    "dora": ("2003", "docker"),
    "eve": ("2004", ""),
    "olga": ("2009", "ds01-operators"),
}
LIMITS: Final = """\
defaults: {gpu_hold_after_stop: null, priority: 1, max_mig_instances: 1}
default_group: student
groups:
  student: {members: [amy, ben, dora], priority: 10, max_mig_instances: 2}
"""
TRUSTED: Final = (
    *("/var/lib/ds01", "/var/lib/ds01d", "/var/log/ds01", "/run/ds01d", "/run/systemd/system"),
    *("/etc", "/opt/ds01-infra", "/usr/bin", "/usr/lib/ds01d", "/usr/lib/systemd"),
    *("/usr/lib/sysusers.d", "/usr/lib/tmpfiles.d", "/usr/share/ds01d"),
)
FIND_WRITABLE: Final = """
import os, stat, sys
trusted = set()
for place in sys.argv[1:]:
    trusted |= {place, os.path.realpath(place)}
    for folder, folders, files in os.walk(place):
        trusted |= {os.path.join(folder, name) for name in (*folders, *files)}
trusted |= {os.path.realpath(path) for path in trusted}
trusted = {path for path in trusted if not path.startswith(("/proc/", "/dev/null"))}
for path in [*trusted]:
    while path != "/":
        path = os.path.dirname(path)
        trusted.add(path)
for path in sorted(filter(os.path.lexists, trusted)):
    status = os.lstat(path)
    if not stat.S_ISLNK(status.st_mode):
        if os.access(path, os.W_OK) or status.st_uid == os.getuid():
            print(path)
print(len(trusted), file=sys.stderr)
"""
"""Prints what the caller can write to, or gives to itself: trusted files and all folders above."""

MINE: Final = "printf '[service]\\nsocket = \"\"\\n' >mine.toml"


@pytest.fixture(scope="module")
def served(booted: Service) -> Iterator[Service]:
    """The machine with its users, and the service as the package sets it up."""
    machine = booted.machine
    for user, (uid, group) in USERS.items():
        groups = ("-G", group) if group else ()
        machine.run("useradd", "--no-create-home", "-u", uid, *groups, user)
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


def allocate(service: Service, user: str, container: str) -> str:
    """Book for oneself; the slot."""
    done = run_as(service, user, "ds01ctl", "allocate", user, container, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return str(answer["slot"])


def test_no_file_that_is_trusted_can_be_written(service: Service) -> None:
    """Books, configuration, units, programs, and all that ds01d imports, maps or has open."""
    allocate(service, "amy", "job._.2001")
    machine, pid = service.machine, service.pid
    links = machine.run("sh", "-c", f"ls -l /proc/{pid}/fd /proc/{pid}/map_files || :").stdout
    opened = {line.rpartition(" -> ")[2] for line in links.splitlines() if " -> /" in line}
    assert any("/python3" in path for path in opened)
    imported = machine.run(f"{PLACE}/bin/python", "-Ic", "import sys; print(*sys.path)").stdout
    places = (*TRUSTED, *imported.split(), *opened)
    for user in USERS:
        script = ("/usr/bin/python3", "-I", "-c", FIND_WRITABLE, *places)
        done = run_as(service, user, *script)
        assert int(done.stderr) > 5_000, done.stderr
        assert done.stdout.split() == [SOCKET]
    checks = {check["name"]: check["health"] for check in service.ctl("doctor")["checks"]}
    assert checks["writers"] == "ok"


HIS: Final = "the container belongs to amy"
BOOKS: Final = "/var/lib/ds01: only ds01d may change it"
OPERATORS_ONLY: Final = "permission denied: needs root or group ds01-operators"
ATTACKS: Final = {
    "ds01-allocator release job": HIS,
    "ds01-allocator mark-stopped job._.2001": HIS,
    "ds01-allocator allocate amy other 50 99": OPERATORS_ONLY,
    "ds01-allocator allocate root other 50 99": OPERATORS_ONLY,
    "ds01-allocator allocate unknown other 50 99": OPERATORS_ONLY,
    "ds01-allocator allocate $(id -un) job 50 99": HIS,
    "ds01-allocator allocate $(id -un) job._.2001 50 99": HIS,
    "ds01-allocator allocate $(id -un) new._.2001 50 99": "the container belongs to uid 2001",
    # With ben's login in all labels: what stands in the name counts.
    "ds01-allocator allocate $(id -un) labelled._.2001 9 9": "the container belongs to uid 2001",
    "ds01-allocator allocate $(id -un) ../x 50 99": "INVALID_NAME (invalid container name '../x')",
    "ds01-allocator allocate $(id -un) 'a\tb' 9 9": "invalid container name 'a\\tb'",
    "SUDO_UID=2001 SUDO_USER=amy USER=amy ds01-allocator release job": HIS,
    "SUDO_UID=0 SUDO_USER=root USER=root ds01-allocator release job": HIS,
    "ds01-allocator --config mine.toml release job": BOOKS,
    "DS01D_CONFIG=mine.toml ds01ctl release job": BOOKS,
    "DS01D_CONFIG=mine.toml ds01ctl allocate $(id -un) mine": BOOKS,
    "ds01-allocator sync": f"{BOOKS}\n",
    "ds01ctl report --user amy": OPERATORS_ONLY,
    "ds01ctl report --by group": OPERATORS_ONLY,
    "ds01ctl quota amy": OPERATORS_ONLY,
    "ds01ctl release job": HIS,
    "ds01ctl allocate amy other --max 50 --priority 99": OPERATORS_ONLY,
    "ds01ctl reconcile": OPERATORS_ONLY,
    "ds01ctl freeze job": OPERATORS_ONLY,
    "ds01ctl thaw --engine": OPERATORS_ONLY,
    "ds01ctl history": "/var/lib/ds01d/history.jsonl cannot be read: permission denied",
    # 1 and "Interactive authentication required", or 4 and "Access denied", by the version.
    "systemctl stop ds01d.socket || exit 1": "Failed to stop ds01d.socket: ",
    "systemctl reload ds01d || exit 1": "Failed to reload ds01d.service: ",
    "kill -HUP $(systemctl show -P MainPID ds01d)": "Operation not permitted",
}
"""What the user sees, who has exit code 1 each time."""
FIRST: Final = dict([*ATTACKS.items()][:6])  # those that depend on the caller


def test_what_others_hold_stays_theirs(service: Service) -> None:
    booked = {(name, allocate(service, "amy", name)) for name in ("job", "job._.2001")}
    booked.add(("bens", allocate(service, "ben", "bens")))
    claims = {"ds01.managed": "true", "ds01.user": "ben", "aime.mlc": "ben", "aime.mlc.USER": "ben"}
    service.machine.docker.run("labelled._.2001", labels=claims)
    for user, attacks in (("ben", ATTACKS), ("dora", FIRST), ("eve", FIRST)):
        for words, message in attacks.items():
            done = run_as(service, user, "sh", "-c", f"cd $(mktemp -d); {MINE}; {words}")
            assert done.returncode == 1, (user, words, done.stdout, done.stderr)
            assert message in done.stderr, (user, words)
            assert done.stdout == "", (user, words)
    assert service.books.bookings() == booked
    assert {entry["actor"]["login"] for entry in service.books.history()} == {"amy", "ben"}


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
    # What sudo's variables claim is not the caller, in the log and in the journal neither.
    sudo = "SUDO_UID=2002 SUDO_USER=ben ds01-allocator allocate amy job 9 9"
    run_as(service, "amy", "sh", "-c", sudo)
    # Not the last five lines: what ds01d itself sees of earlier tests comes whenever it does.
    log = [
        line
        for line in service.books.operations.read_text("utf-8").splitlines()
        if line.split("|")[1] in {"allocate", "release"} and "; by " in line
    ][-5:]
    for line, login in zip(log, ("amy", "olga", "olga", "root", "amy"), strict=True):
        assert f"; by {login} (uid " in line
        assert "ben (uid" not in line
    told = until(  # by journald, which writes when it can
        lambda: service.machine.journal("--identifier=ds01-container", f"MESSAGE={log[-1]}")
    )
    assert [(entry["DS01_LOGIN"], entry["DS01_UID"]) for entry in told] == [("amy", "2001")]


def test_a_reservation_is_its_owners_until_a_container_of_theirs_claims_it(
    service: Service,
) -> None:
    words = ("ds01ctl", "allocate", "amy", "--count", "2", "--reason", "a course", "--json")
    reserved = json.loads(run_as(service, "amy", *words).stdout)
    name, booking = reserved["container"], reserved["id"]
    assert name == f"{booking}._.2001"
    slots = {one["slot"] for one in reserved["slots"]}
    for user in ("ben", "eve"):
        done = run_as(service, user, "ds01ctl", "release", booking)
        assert (done.returncode, "belongs to amy" in done.stderr) == (1, True), done.stderr
    run = service.machine.docker.run
    for mine in ("claims._.2002", "job._.2001"):
        run(mine, labels={"ds01.managed": "true", "ds01.user": "amy", "ds01.booking": booking})
    expected = {("job._.2001", slot) for slot in slots}
    # The record is written after the slots.
    until(lambda: (service.books.record("job._.2001") or {}).get("booking_id") == booking)
    assert service.books.bookings() == expected
    shown = run_as(service, "amy", "ds01ctl", "explain", booking).stdout
    assert "container job._.2001" in shown
    assert run_as(service, "amy", "ds01ctl", "release", booking).returncode == 0


def test_operators_need_no_sudo_and_users_see_what_is_public(service: Service) -> None:
    slot = allocate(service, "amy", "job._.2001")
    done = run_as(service, "olga", "ds01ctl", "freeze", "--reason", "a fan")
    assert done.stdout == "Frozen: everything, by olga, until thawed: a fan\n", done.stderr
    for words in (("freeze",), ("thaw",), ("reconcile",), ("undo", "x")):
        done = run_as(service, "ben", "ds01ctl", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert "needs root or group ds01-operators" in done.stderr
    assert run_as(service, "ben", "ds01ctl", "plan").returncode == 0
    mine = json.loads(run_as(service, "amy", "ds01ctl", "explain", slot, "--json").stdout)
    theirs = json.loads(run_as(service, "ben", "ds01ctl", "explain", slot, "--json").stdout)
    assert mine.keys() - theirs.keys() >= {"processes", "memory", "history"}
    assert theirs["holders"] == mine["holders"]
    assert run_as(service, "olga", "ds01ctl", "reconcile").returncode == 0
    assert run_as(service, "olga", "ds01ctl", "thaw").stdout.startswith("Thawed: everything")
    allocation = service.books.history()[0]["id"]
    done = run_as(service, "olga", "ds01ctl", "undo", allocation)
    assert (done.returncode, done.stderr) == (0, "")
    undo = service.books.history()[-1]
    assert (undo["action"], undo["actor"]["login"]) == ("undo", "olga")
    assert service.books.bookings() == set()
    status = run_as(service, "ben", "ds01ctl", "status")
    assert (status.returncode, status.stderr) == (0, "")
    assert "undone: " in status.stdout


def test_everybody_sees_their_own_usage_and_quota_and_operators_that_of_all(
    service: Service,
) -> None:
    """In the sandbox of the unit; root reads the file itself, and leaves none of its own there."""
    for user, container in (("amy", "job._.2001"), ("ben", "job._.2002")):
        allocate(service, user, container)

    def list_users(caller: str) -> set[str]:
        done = run_as(service, caller, "ds01ctl", "report", "--json")
        report: dict[str, Any] = json.loads(done.stdout) if not done.returncode else {"lines": []}
        return {line["subject"] for line in report["lines"]}

    until(lambda: list_users("olga") == {"amy", "ben"})
    assert list_users("root") == {"amy", "ben"}
    assert list_users("amy") == {"amy"}
    assert list_users("eve") == set()
    quota: dict[str, Any] = json.loads(run_as(service, "amy", "ds01ctl", "quota", "--json").stdout)
    assert (quota["user"], quota["held"] + quota["reserved"], quota["limit"]) == ("amy", 1.0, 2.0)
    found = service.machine.run(
        "sh", "-c", "stat -c '%U %a' /var/lib/ds01d/accounting.sqlite*"
    ).stdout.splitlines()
    assert set(found) == {"ds01d 600"}


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
    # Who is refused may be disconnected before the call is sent; the answer is there to be read.
    script = (
        "import contextlib, socket\n"
        f"s = socket.socket(socket.AF_UNIX)\ns.connect({SOCKET!r})\n"
        f"with contextlib.suppress(BrokenPipeError): s.sendall({call!r}.encode() + b'\\0')\n"
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
