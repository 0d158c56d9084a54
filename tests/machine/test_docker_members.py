"""What members of group docker can do to the books without becoming root, and those of no group.

Whoever may talk to Docker can mount the host and is root (docs/containers.md). Short of that they
write names, labels and requests, which are claims: played by users on a booted machine with a real
dockerd, by the docker command, and looked at where people look: STATUS, `status`, `plan`, quotas,
logs, journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest

from ds01d.adapters.books.operations_format import parse_line
from simulation import nvml
from simulation.engine_client import IMAGE
from tests.machine.stories import (
    ON_OTHER,
    ON_TRAIN,
    TRAIN,
    booked,
    own_files,
    says,
    train_and_other,
)
from tests.support.books import until
from tests.support.service import Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

USERS: Final = {
    "alice": ("1001", "ds01"),
    "dora": ("1003", "docker"),
    "eve": ("1004", "users"),
    "henry": ("1005", "ds01"),
}
LIMITS: Final = """\
defaults: {gpu_hold_after_stop: null, max_mig_instances: 2, priority: 1}
default_group: all
groups: {all: {members: [alice, root]}}
user_overrides:
  dora: {gpu_hold_after_stop: 1s, max_mig_instances: 2}
  henry: {gpu_hold_after_stop: 1s}
"""
SOCKETS: Final = {"group": "", "service": "/run/ds01d/booking.sock"}
CLAIMS: Final = {
    "aime.mlc": "alice",
    "aime.mlc.USER": "alice",
    "ds01.user": "alice",
    "ds01.owner": "alice",
    "ds01.managed": "true",
    "ds01.gpu.slots": "2.0,2.1",
    "aime.mlc.GPUS": "device=2.0",
}
OURS: Final = {"ds01.managed": "true"}
FORGED: Final = (
    "bob\n2026-11-28 23:59:59|release|bob|train._.1001|1.1|done|\x1b[31mforged\x1b[0m\r%s%n"
)


@pytest.fixture(scope="module")
def populated(booted: Service) -> Service:
    """The machine with its users, and quotas and holds of their own."""
    machine = booted.machine
    for user, (uid, group) in USERS.items():
        machine.run("useradd", "--no-create-home", "-u", uid, "-G", group, user)
    machine.put("/opt/ds01-infra/config/resource-limits.yaml", LIMITS)
    return booted


@pytest.fixture
def writers() -> str:
    """`books.writers`; with "service" bookings are made through the socket."""
    return "group"


with_each_writer = pytest.mark.parametrize("writers", ["group", "service"])


@pytest.fixture
def host(populated: Service, stopped_service: Service, writers: str) -> Iterator[Service]:
    """ds01d runs; whatever was played, it is the same process in the end, and no pass fails."""
    yield from watched(stopped_service, writers)


@pytest.fixture
def patient(populated: Service, stopped_service: Service, writers: str) -> Iterator[Service]:
    """The same; and what was allocated stays booked without a container for an hour."""
    stopped_service.configure(policy={"creation_grace": "1h"})
    yield from watched(stopped_service, writers)


def watched(service: Service, writers: str) -> Iterator[Service]:
    service.configure(books={"writers": writers}, service={"socket": SOCKETS[writers]})
    service.start()
    pid = service.pid
    yield service
    assert service.pid == pid, service.tail()
    assert not service.log("DS01_EVENT=pass.failed", f"_PID={pid}")


def docker(service: Service, user: str, *words: str) -> str:
    """`docker WORDS`, by a user."""
    return service.machine.run("runuser", "-u", user, "--", "docker", *words).stdout.strip()


def run(service: Service, name: str, slot: str, labels: dict[str, str], user: str = "dora") -> str:
    """`docker run` on a slot's device; gives the ID."""
    uuid = service.books.uuid(slot)
    given = [word for item in labels.items() for word in ("--label", "=".join(item))]
    options = ("--network", "none", "--stop-signal", "KILL", "--gpus", f'"device={uuid}"')
    command = ("run", "-d", "--name", name, *options, *given, IMAGE, "sleep", "600")
    return docker(service, user, *command)


def allocate(service: Service, user: str, name: str, caller: str = "root") -> str:
    words = ("allocate", user, name, "2", "10")
    return service.machine.run("runuser", "-u", caller, "--", "ds01-allocator", *words).stdout


def recorded_user(service: Service, name: str) -> str:
    """Whose a container is by its metadata, which comes a moment after the booking."""
    record = until(lambda: service.books.record(name))
    return str(record["user"])


def findings(service: Service, kind: str) -> set[tuple[str, str]]:
    """By `status --json`: (container, reason)."""
    status = service.ctl("status")
    return {(f["container"], f["reason"]) for f in status["findings"] if f["kind"] == kind}


def texts(service: Service, *slots: str) -> dict[str, str]:
    """Everything that people read, by whom it is written; without the journal."""
    machine = service.machine
    commands: dict[str, tuple[str, ...]] = {
        name: ("ds01ctl", name) for name in ("status", "plan", "history", "log")
    }
    commands |= {f"explain {slot}": ("ds01ctl", "explain", slot) for slot in slots}
    commands["allocator"] = ("ds01-allocator", "status")
    shown = {name: machine.run(*words, check=False).stdout for name, words in commands.items()}
    return {**shown, "STATUS": service.line}


@with_each_writer
def test_labels_fill_nobody_elses_quota(patient: Service, writers: str) -> None:
    service = patient
    # Not those of the other writers: Docker tells of their end after the start of ds01d.
    names = {f"{writers}{number}._.1003": f"1.{number}" for number in range(3)}
    for name, slot in names.items():
        run(service, name, slot, CLAIMS)
    booked(service, *names.items())
    assert [service.books.users(slot) for slot in names.values()] == [{"dora": 1}] * 3
    for name in names:
        assert recorded_user(service, name) == "dora"
    for user, count in (("alice", "0"), ("dora", "3")):
        assert service.machine.run("ds01-allocator", "user-count", user).stdout.strip() == count
    assert "✓ Allocated GPU/MIG 1.3" in allocate(service, "alice", "mine._.1001", "alice")
    assert "USER_AT_LIMIT (3/2)" in allocate(service, "dora", "more._.1003")
    expected = {
        (name, reason)
        for name, slot in names.items()
        for reason in (
            "label names user alice, but the booking is for dora",
            f"label names slot 2.0,2.1, booked is {slot}",
        )
    }
    until(lambda: findings(service, "label-contradiction") == expected)
    says(service, "4 slots of 12 held", "6 findings")

    def told() -> set[tuple[str, str]]:
        log = service.log("DS01_EVENT=finding.new", "DS01_FINDING=label-contradiction")
        return {(entry["DS01_CONTAINER"], entry["DS01_REASON"]) for entry in log}

    # STATUS may be there before the entries: journald writes them when it can.
    until(lambda: told() >= expected, what=told)
    for name in names:
        until(partial(has_lines, service, name, 2), what=name)
    lines = [line for line in service.books.operation_lines() if line[2] in names]
    assert {(line[0], line[1]) for line in lines} == {("start", "dora"), ("book", "dora")}
    assert {(line[2], line[3]) for line in lines if line[3] != "N/A"} == set(names.items())


LABELS: Final = (
    # Line ends, escapes, separators.
    ("lines", "1.0", FORGED, "unknown"),
    # Percent signs are letters.
    ("percent", "1.1", "%s%n%1000d", "%s%n%1000d"),
    ("long", "1.2", "u" * 100_000, "unknown"),
    # A number that is no uid.
    ("x._.99999999999", "1.3", "alice", "unknown"),
    ("x._.1003", "2.0", "root", "dora"),
    # A login on what is root's.
    ("x._.0", "2.1", "alice", "root"),
)
"""Container, slot, what its labels say, and whose it is in the books."""


def test_a_label_forges_no_line_and_no_field(host: Service) -> None:
    service = host
    for name, slot, label, _ in LABELS:
        labels = {**OURS, "ds01.user": label, "aime.mlc": label, "ds01.gpu.slots": label}
        run(service, name, slot, labels)
    booked(service, *((name, slot) for name, slot, _, _ in LABELS))
    for name, _, _, user in LABELS:
        assert recorded_user(service, name) == user, name
        until(partial(has_lines, service, name, 2), what=name)
    for line in service.books.operations.read_text("utf-8").splitlines():
        assert parse_line(line) is not None, line
    for line in service.books.allocations.read_text("utf-8").splitlines():
        assert line.count("|") == 6, line
    for whose, text in texts(service, *(slot for _, slot, _, _ in LABELS)).items():
        assert text.replace("\n", "").isprintable(), whose
        assert len(text) < 100_000, whose
    slots = {one["slot"]: one for one in service.ctl("status")["slots"]}
    for name, slot, _, user in LABELS:
        (holder,) = slots[slot]["holders"]
        assert (holder["container"], holder["user"] or "unknown") == (name, user)
    for entry in service.machine.journal("--lines=1000"):
        message = entry["MESSAGE"]
        assert isinstance(message, str)
        assert "\x1b" not in message
        assert not message.startswith("2026-11-28 23:59:59")


def has_lines(service: Service, name: str, count: int) -> bool:
    """Whether the operations log has so many lines about a container by now."""
    return len(service.books.operation_lines(name)) == count


def test_a_label_that_says_it_is_none_of_ours(patient: Service) -> None:
    """It is foreign then: never booked, and what it has is not handed out."""
    service = patient
    run(service, "mine", "1.0", {"ds01.managed": "false", "ds01.user": "alice"})
    until(lambda: [name for name, _ in findings(service, "foreign-use")] == ["mine"])
    assert service.books.bookings() == set()
    assert "✓ Allocated GPU/MIG 1.1" in allocate(service, "alice", "new._.1001")


@with_each_writer
def test_names_taken_and_swapped_move_no_booking_and_no_hold(host: Service) -> None:
    """Alice's container holds its slot for ever, dora's for a second, whatever they are called."""
    service = host
    allocate(service, "alice", TRAIN, "alice")
    run(service, TRAIN, "1.0", OURS)
    run(service, "thief._.1003", "1.0", CLAIMS)
    booked(service, (TRAIN, "1.0"), ("thief._.1003", "1.0"))
    for old, new in ((TRAIN, "tmp"), ("thief._.1003", TRAIN), ("tmp", "thief._.1003")):
        docker(service, "dora", "rename", old, new)

    def owners() -> dict[str, Any]:
        records = {name: service.books.record(name) for name in (TRAIN, "thief._.1003")}
        return {name: record and record["user"] for name, record in records.items()}

    until(lambda: owners() == {TRAIN: "dora", "thief._.1003": "alice"}, what=owners)
    for user in ("alice", "dora"):
        assert service.machine.run("ds01-allocator", "user-count", user).stdout.strip() == "1"
    docker(service, "dora", "stop", "-t", "0", TRAIN, "thief._.1003")
    booked(service, ("thief._.1003", "1.0"))
    assert service.books.users("1.0") == {"alice": 1}
    docker(service, "dora", "rm", TRAIN)
    run(service, TRAIN, "1.1", OURS)  # by the name of her container: what is hers stays
    until(lambda: (TRAIN, "1.1") in service.books.bookings())
    assert ("thief._.1003", "1.0") in service.books.bookings()


@with_each_writer
def test_a_pin_keeps_a_slot_of_its_users_own_quota_and_is_told(patient: Service) -> None:
    service = patient
    allocate(service, "dora", "pin._.1003")
    run(service, "pin._.1003", "1.0", {**OURS, "ds01.protected": "true"})
    docker(service, "dora", "stop", "-t", "0", "pin._.1003")
    reason = (
        "it is pinned and exited: the hold of its user (user_overrides.dora.gpu_hold_after_stop)"
        " is over, and 1.0 stays booked"
    )
    until(lambda: findings(service, "label-contradiction") == {("pin._.1003", reason)})
    booked(service, ("pin._.1003", "1.0"))
    assert "✓ Allocated GPU/MIG 1.1" in allocate(service, "dora", "second._.1003")
    assert "USER_AT_LIMIT (2/2)" in allocate(service, "dora", "third._.1003")


def test_a_cgroup_named_after_a_container_keeps_nothing_of_it(host: Service) -> None:
    """`--cgroup-parent` takes any slice: what runs below it is no process of that container."""
    service = host
    name = "h._.1005"
    allocate(service, "henry", name)
    ident = run(service, name, "1.0", OURS)
    slot = ("run", "-d", "--network", "none", "--cgroup-parent", f"x-{ident}.slice")
    other = docker(service, "dora", *slot, "--stop-signal", "KILL", IMAGE, "sleep", "600")
    pid = docker(service, "dora", "inspect", "-f", "{{.State.Pid}}", other)
    assert ident in service.machine.run("cat", f"/proc/{pid}/cgroup").stdout
    booked(service, (name, "1.0"))
    docker(service, "dora", "stop", "-t", "0", name)
    booked(service)


@with_each_writer
def test_names_and_requests_without_measure_stop_nobody(host: Service) -> None:
    """Repairs for others go on, the state stays readable, commands answer."""
    service, client = host, host.machine.docker.client
    train_and_other(service)
    slots = [f"{gpu}.{part}" for gpu in (2, 3) for part in range(4)] + ["1.3"]
    requests: dict[str, list[str]] = {
        f"L{slot}{'L' * 900_000}._.1003": [service.books.uuid(slot)] for slot in slots
    }
    requests |= {f"index{digits}._.1003": ["9" * digits] for digits in (4_301, 100_000)}
    requests |= {"many._.1003": list(map(str, range(4, 20_004))), "odd": ["1:" + "9" * 5_000]}

    def create(name: str, devices: list[str]) -> str:
        host_config = client.create_host_config(network_mode="none")
        asked = {"Driver": "", "Count": 0, "DeviceIDs": devices, "Capabilities": [["gpu"]]}
        made = client.create_container(
            IMAGE,
            ["sleep", "600"],
            name=name,
            labels=CLAIMS,
            stop_signal="SIGKILL",
            host_config={**host_config, "DeviceRequests": [{**asked, "Options": {}}]},
        )
        return str(made["Id"])

    for name, devices in requests.items():
        made = create(name, devices)
        if name.startswith("L"):
            client.start(made)
    # The other one is a drift, and its slot nobody else's: it is released in the meantime.
    until(lambda: len(service.books.bookings() - {ON_TRAIN, ON_OTHER}) == len(slots))
    until(lambda: ON_OTHER not in service.books.bookings(), what=service.tail)
    assert ON_TRAIN in service.books.bookings()
    until(lambda: len(findings(service, "long-name")) == len(slots))
    until(lambda: len(findings(service, "unclear-request")) == 4)
    for path in (service.books.state, *own_files(service)):
        assert path.stat().st_size < 1 << 20, path
    # The records are written after the slots.
    until(lambda: service.machine.run("ds01ctl", "plan", check=False).returncode == 0)
    assert "✓ Allocated GPU/MIG 1.0" in allocate(service, "alice", "new._.1001", "alice")
    run(service, "new._.1001", "1.0", OURS)  # or its booking would end with the creation grace
    create("some-exist._.1003", list(map(str, range(20_000))))
    until(lambda: len(findings(service, "unclear-request")) == 5)
    assert {ON_TRAIN, ("new._.1001", "1.0")} < service.books.bookings()


SPOOF: Final = """
import socket
for state in ("READY=0", "STATUS=nothing is wrong", "STOPPING=1", "WATCHDOG=trigger", "MAINPID=1"):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect("/run/systemd/notify")
        notify.send(state.encode())
"""
MASKED: Final = """
import ctypes, time
name = b"x) S 1 1\\n\\x1b[31m|%n"
ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
time.sleep(600)
"""


def test_who_is_in_neither_group_changes_nothing(host: Service) -> None:
    """Commands that only look answer; all else is refused, and no signal or message arrives."""
    service, machine = host, host.machine
    train_and_other(service)
    booked(service, ON_TRAIN)
    before = service.books.state.read_bytes()

    def eve(*words: str) -> tuple[int, str]:
        done = machine.run("runuser", "-u", "eve", "--", *words, check=False)
        return done.returncode, done.stdout + done.stderr

    for words in (
        ("ds01-allocator", "allocate", "alice", "new._.1001", "9", "1"),
        ("ds01-allocator", "release", TRAIN),
        ("ds01-allocator", "mark-stopped", TRAIN),
        ("ds01-allocator", "sync"),
        ("ds01ctl", "release", TRAIN),
        ("ds01ctl", "reconcile"),
        ("ds01ctl", "freeze"),
        ("docker", "ps"),
        ("kill", "-HUP", str(service.pid)),
        ("flock", "-n", "/var/lib/ds01/gpu-state.json.lock", "true"),
        ("sh", "-c", "ln -s /etc/passwd /var/lib/ds01/container-metadata/x._.1004.json"),
        ("sh", "-c", "ln -sf /etc/passwd /run/ds01d/status.json"),
        ("sh", "-c", ": > /run/lock/ds01d.lock; : > /var/log/ds01/container-operations.log"),
    ):
        code, said = eve(*words)
        assert code != 0, words
        assert "Traceback" not in said, words
    code, said = eve("ds01-allocator", "status")
    assert (code, TRAIN in said) == (0, True)
    line = says(service, "1 slot of 12 held, 0 drifts")
    assert eve("/usr/bin/python3", "-c", SPOOF)[0] == 0
    machine.run("systemd-run", "--uid=eve", "--unit=masked", "/usr/bin/python3", "-c", MASKED)
    pid = int(machine.show("masked.service", "MainPID")["MainPID"])
    machine.install_world(nvml.prod4().with_process("1.3", pid).text())
    reason = until(
        lambda: next((why for _, why in findings(service, "rogue-process")), ""),
        what=service.tail,
    )
    assert f"process {pid}" in reason
    assert "eve" in reason
    for whose, text in texts(service, "1.0").items():
        assert text.replace("\n", "").isprintable(), whose
    machine.run("systemctl", "stop", "masked.service")
    assert "nothing is wrong" not in service.line
    assert line.split(";")[0] == "1 slot of 12 held, 0 drifts"
    assert service.active == "active"
    assert service.books.state.read_bytes() == before
