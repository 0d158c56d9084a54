"""Notices on a booted machine: both units, their sandboxes, and each target from end to end.

amy books her quota; what she gets is on the terminal where she has logged in, in her greeting, and
at a webhook and a command. Eve, who is logged in too, gets nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from simulation import nvml
from simulation.machine import Machine
from tests.machine.stories import run_as
from tests.machine.test_sandbox import exposure
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.service import UNIT, Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(300)]

UNITS: Final = ("ds01d-notify.service", "ds01d-notify-network.service")
MOST_EXPOSED: Final = {UNITS[0]: 1.0, UNITS[1]: 1.5}
SOCKET: Final = "/run/ds01d/booking.sock"
USERS: Final = {"amy": "2001", "eve": "2004"}
LIMITS: Final = """\
defaults: {gpu_hold_after_stop: null, priority: 1, max_mig_instances: 1}
default_group: student
groups:
  student: {members: [amy, eve], priority: 10, max_mig_instances: 2}
"""
# A login on a terminal of its own, as by a console; what comes there goes into a file.
LOGIN: Final = """
import os, pty, sys, time
user = sys.argv[1]
pid, master = pty.fork()
if not pid:
    os.execv("/bin/login", ["login", "-f", user])
with open(f"/run/{user}.terminal", "wb", 0) as seen:
    drawn, is_told = b"", False
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            # login hangs its terminal up and opens it again: meanwhile nobody has it.
            if os.waitpid(pid, os.WNOHANG)[0]:
                raise
            time.sleep(0.05)
            continue
        seen.write(part)
        drawn += part
        # At the prompt: login may drop what was typed before.
        if not is_told and b"$ " in drawn:
            # As mesg does it, which Debian 13 has in a package of its own.
            is_told = os.write(master, b"chmod g+w $(tty); echo rea''dy\\n")
"""
# A webhook that answers 500 once, and then takes what comes.
RECEIVER: Final = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    count = 0
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Handler.count += 1
        with open("/run/received", "ab") as file:
            token = self.headers["Authorization"].encode()
            file.write(token + b" " + self.path.encode() + b" " + body + b"\\n")
        self.send_response(500 if Handler.count == 1 else 204)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8900), Handler).serve_forever()
"""
COMMAND: Final = """#!/bin/sh
(id -un; id -Gn; echo "$DS01_NOTICE_KIND $DS01_NOTICE_USER"; cat /proc/self/status) \\
    >/var/lib/ds01d-notify/command.out
cd /var/lib
cat ds01d/checkpoint.json ds01d/history.jsonl ds01/gpu-state.json >>ds01d-notify/leak 2>/dev/null
exit 0
"""
DROP_IN: Final = """
[Service]
LoadCredential=webhook:/etc/ds01/webhook
LoadCredential=webhook-token:/etc/ds01/webhook-token
"""
SECRET: Final = "sesame"
REACHED: Final = "you hold 2 of 2 GPUs: your quota is reached"


@pytest.fixture(scope="module")
def notified(machine: Machine) -> Iterator[Service]:
    """A machine with both units, amy and eve logged in, and a webhook."""
    service = Service(machine)
    service.install(nvml.prod4())
    for unit in UNITS:
        machine.put(f"/usr/lib/systemd/system/{unit}", ROOT / "systemd" / unit)
    machine.put("/opt/ds01-infra/config/resource-limits.yaml", LIMITS)
    machine.put("/usr/lib/login.py", LOGIN)
    machine.put("/usr/lib/receiver.py", RECEIVER)
    machine.put("/usr/local/bin/on-notice", COMMAND, mode=0o755)
    machine.put(f"/etc/systemd/system/{UNITS[1]}.d/credentials.conf", DROP_IN)
    # Only root may read them: systemd hands them over.
    machine.put("/etc/ds01/webhook", f"http://127.0.0.1:8900/{SECRET}\n", mode=0o600)
    machine.put("/etc/ds01/webhook-token", f"{SECRET}-token\n", mode=0o600)
    machine.boot()
    service.chown_books()
    machine.start_docker()
    for user, uid in USERS.items():
        machine.run("useradd", "--create-home", "--shell", "/bin/sh", "-u", uid, user)
        log_in(machine, user)
    machine.run("systemd-run", "--unit=receiver", "/usr/bin/python3", "/usr/lib/receiver.py")
    yield service
    machine.run("systemctl", "stop", *UNITS, UNIT, check=False)


def log_in(machine: Machine, user: str) -> None:
    command = ("/usr/bin/python3", "/usr/lib/login.py", user)
    machine.run("systemd-run", f"--unit=login-{user}", *command)
    # PAM waits up to 25 s for a logind that is busy.
    until(lambda: "ready" in terminal(machine, user), 120, what=lambda: terminal(machine, user))


def terminal(machine: Machine, user: str) -> str:
    """What is on the terminal of a user."""
    try:
        return machine.path(f"/run/{user}.terminal").read_text()
    except FileNotFoundError:
        return ""


def start_all(service: Service, **notify: object) -> None:
    """Start ds01d and both units with this configuration, and wait until each is there."""
    machine = service.machine
    machine.run("systemctl", "stop", *UNITS)
    service.make_new()
    service.configure(
        service={"socket": SOCKET},
        books={"writers": "service"},
        policy={"creation_grace": "10m"},
        allocator={"sharing": "never"},
        notify=notify,
    )
    service.start()
    machine.run("systemctl", "start", *UNITS)


def reach_quota(service: Service) -> None:
    for number in range(2):
        done = run_as(service, "amy", "ds01ctl", "allocate", "amy", f"job{number}._.2001")
        assert done.returncode == 0, done.stderr


def record(service: Service, name: str) -> dict[str, Any]:
    path = service.machine.path(f"/var/lib/ds01d-notify/deliveries/{name}.json")
    return dict(json.loads(path.read_bytes())) if path.exists() else {"sent": 0}


def is_sent(service: Service, count: int, *names: str) -> None:
    until(
        lambda: all(record(service, name)["sent"] == count for name in names),
        what=lambda: (
            f"{[record(service, name) for name in names]}; {journal(service)}; {service.tail()}"
        ),
    )


def journal(service: Service) -> str:
    found = service.machine.run("journalctl", "--no-pager", *(f"--unit={one}" for one in UNITS))
    return found.stdout


def test_their_sandboxes_are_tight(notified: Service, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        for unit, most in MOST_EXPOSED.items():
            assert exposure(notified, unit) <= most


def test_without_a_target_both_end_at_once_and_successfully(notified: Service) -> None:
    start_all(notified)
    for unit in UNITS:
        ended = {"ActiveState": "inactive", "Result": "success", "NRestarts": "0"}
        until(lambda: notified.machine.show(unit, *ended) == ended)  # noqa: B023 - called at once
    assert not notified.machine.path("/var/lib/ds01d/notices").exists()


def test_each_target_gets_a_notice_once_also_over_restarts(notified: Service) -> None:
    machine = notified.machine
    start_all(
        notified,
        terminals=True,
        greetings=True,
        command="/usr/local/bin/on-notice",
        webhook="credential",
    )
    targets = ("terminals", "greetings", "command", "webhook")
    reach_quota(notified)
    is_sent(notified, 1, *targets)
    # Delivered is what was written; who reads the terminal may be a moment late.
    until(lambda: REACHED in terminal(machine, "amy"))
    shown = terminal(machine, "amy")
    assert shown.count(REACHED) == 1
    assert "GPU notice from " in shown
    assert REACHED not in terminal(machine, "eve")
    greeting = run_as(notified, "amy", "cat", "/var/lib/ds01d-notify/greetings/amy").stdout
    assert greeting.splitlines()[0] == "GPU notices:"
    assert greeting.splitlines()[1].endswith(REACHED)

    received = machine.path("/run/received").read_text().splitlines()
    # The first answer was 500; the same notice came again, with the same ID.
    assert len(received) == 2
    assert received[0] == received[1]
    bearer, token, path, body = received[0].split(" ", 3)
    assert (bearer, token, path) == ("Bearer", f"{SECRET}-token", f"/{SECRET}")
    assert json.loads(body)["message"] == REACHED
    assert SECRET not in journal(notified)
    told = machine.run("systemctl", "show", UNITS[1]).stdout
    pid = machine.show(UNITS[1], "MainPID")["MainPID"]
    told += machine.path(f"/proc/{pid}/cmdline").read_text()
    assert SECRET not in told

    # The spool is for one reader; books and checkpoint are for none.
    user, groups, line, *status = command_output(machine)
    assert (user, groups) == ("ds01d-notify", "ds01d-notify")
    assert line == "gpu_quota_reached amy"
    assert [row for row in status if row.startswith(("CapEff", "CapBnd", "NoNewPrivs"))] == [
        *("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1")
    ]
    assert machine.path("/var/lib/ds01d-notify/leak").read_bytes() == b""
    assert run_as(notified, "eve", "ls", "/var/lib/ds01d/notices").returncode != 0

    machine.run("systemctl", "restart", UNIT, *UNITS)
    reach_quota(notified)
    done = run_as(notified, "amy", "ds01ctl", "allocate", "amy", "job3._.2001")
    assert done.returncode != 0
    is_sent(notified, 2, *targets)
    until(lambda: terminal(machine, "amy").count("no GPU for you: USER_AT_LIMIT") == 1)
    assert terminal(machine, "amy").count(REACHED) == 1


def command_output(machine: Machine) -> list[str]:
    return machine.path("/var/lib/ds01d-notify/command.out").read_text().splitlines()


def test_where_there_is_no_utmp_logind_knows_the_terminal(notified: Service) -> None:
    machine = notified.machine
    utmp = machine.path("/run/utmp")
    # Debian 13 has none at all.
    kept = utmp.read_bytes() if utmp.exists() else None
    utmp.unlink(missing_ok=True)
    try:
        start_all(notified, terminals=True)
        before = terminal(machine, "amy").count(REACHED)
        reach_quota(notified)
        until(
            lambda: terminal(machine, "amy").count(REACHED) == before + 1,
            what=lambda: (
                f"{before}: {terminal(machine, 'amy')}; {record(notified, 'terminals')}; "
                f"{journal(notified)}; {notified.tail()}"
            ),
        )
    finally:
        if kept is not None:
            utmp.write_bytes(kept)


def test_ds01d_works_on_where_nobody_reads_and_where_the_spool_is_broken(notified: Service) -> None:
    machine = notified.machine
    start_all(notified, terminals=True)
    machine.run("systemctl", "stop", *UNITS)
    before = terminal(machine, "amy")
    reach_quota(notified)
    machine.run("systemctl", "start", *UNITS)
    until(lambda: terminal(machine, "amy").count(REACHED) == before.count(REACHED) + 1)
    # A link that root made is followed, and the unit may not write where it leads.
    spool = "/var/lib/ds01d/notices"
    machine.run("sh", "-euc", f"rm -rf {spool}; ln -s /etc {spool}")
    run_as(notified, "amy", "ds01ctl", "allocate", "amy", "job3._.2001")
    until(lambda: any(spool in str(entry.get("MESSAGE")) for entry in notified.log("-p", "4")))
    assert notified.active == "active"
    done = run_as(notified, "amy", "ds01ctl", "release", "job0._.2001")
    assert done.returncode == 0, done.stderr
    assert not machine.path("/etc/notices.jsonl").exists()
    machine.run("rm", spool)


def test_a_user_who_refuses_messages_gets_none(notified: Service) -> None:
    machine = notified.machine
    (name,) = terminals_of(machine, "amy")
    machine.run("chmod", "g-w", f"/dev/{name}")
    start_all(notified, terminals=True)
    before, count = terminal(machine, "amy"), record(notified, "terminals")["sent"]
    reach_quota(notified)
    is_sent(notified, count + 1, "terminals")
    assert terminal(machine, "amy") == before


def terminals_of(machine: Machine, user: str) -> set[str]:
    listed = machine.run("sh", "-c", f"find /dev/pts -user {user}").stdout.split()
    return {str(Path(path).relative_to("/dev")) for path in listed}
