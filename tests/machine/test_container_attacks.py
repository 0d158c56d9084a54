"""Out of a container, tried as an attacker would, from inside and from outside.

amy and ben are in no group but their own, dora is in group docker. They have homes on the machine,
and only the service creates containers for amy and ben.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from simulation.engine_client import IMAGE
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.service import PLACE, UNIT, Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

SOCKET: Final = "/run/ds01d/booking.sock"
USERS: Final = {"amy": ("2001", ""), "ben": ("2002", ""), "dora": ("2003", "docker")}
AMYS, BENS = "job._.2001", "job._.2002"
CATALOGUE: Final = f"""\
[container]
command = ["sleep", "600"]
mounts = ["{{home}}:{{home}}", "/data:/data"]
network = "none"

[[image]]
framework = "pytorch"
version = "2.5.0"
image = "{IMAGE}"
"""
LIMITS: Final = """\
defaults: {gpu_hold_after_stop: null, priority: 1, max_mig_instances: 2}
"""
CALL: Final = """
import json, socket, sys
method, parameters = sys.argv[1], json.loads(sys.argv[2])
of_bookings = method in ("Allocate", "Release", "Explain")
interface = "Booking" if of_bookings else "Containers"
s = socket.socket(socket.AF_UNIX)
s.connect("/run/ds01d/booking.sock")
call = {"method": f"io.github.ds01.{interface}.{method}", "parameters": parameters, "more": True}
s.sendall(json.dumps(call).encode() + b"\\0")
data = b""
while True:
    while b"\\0" not in data:
        data += s.recv(65536)
    message, _, data = data.partition(b"\\0")
    reply = json.loads(message)
    if not reply.get("continues"):
        break
print(json.dumps(reply))
"""


@pytest.fixture(scope="module")
def served(booted: Service) -> Iterator[Service]:
    """The machine with its users, their homes, and the service with its containers."""
    machine = booted.machine
    for user, (uid, group) in USERS.items():
        groups = ("-G", group) if group else ()
        machine.run("useradd", "--create-home", "-u", uid, *groups, user)
        machine.run("chmod", "700", f"/home/{user}")
    machine.run("sh", "-euc", "mkdir -m 755 /data; chown root: /data")
    for command in ("create", "list", "start", "stop", "remove", "enter", "logs"):
        machine.run("ln", "-sf", f"{PLACE}/bin/container-{command}", "/usr/bin")
    machine.put("/etc/systemd/system/ds01d.socket", ROOT / "systemd" / "ds01d.socket")
    machine.put("/opt/ds01-infra/config/resource-limits.yaml", LIMITS)
    machine.put("/etc/ds01/frameworks.toml", CATALOGUE)
    machine.put("/usr/lib/call.py", CALL)
    machine.run("systemctl", "daemon-reload")
    booted.configure(books={"writers": "service"})
    booted.chown_books()
    yield booted
    machine.run("systemctl", "stop", "ds01d.socket", UNIT)


@pytest.fixture
def service(served: Service) -> Iterator[Service]:
    """ds01d with empty books, and no container."""
    served.machine.run("systemctl", "stop", "ds01d.socket", UNIT)
    served.make_new()
    configure(served)
    served.machine.run("systemctl", "start", "ds01d.socket")
    served.start()
    yield served
    served.machine.run("systemctl", "stop", "ds01d.socket", UNIT)


def configure(service: Service, **more: object) -> None:
    service.configure(
        service={"socket": SOCKET, "containers": True, **more},
        books={"writers": "service"},
        containers={"frameworks": "/etc/ds01/frameworks.toml"},
        policy={"creation_grace": "10m"},
        allocator={"sharing": "never"},
    )


def call(service: Service, user: str, method: str, /, **parameters: object) -> dict[str, Any]:
    """Make a call as a user; the last reply."""
    script = ("/usr/bin/python3", "-I", "/usr/lib/call.py", method, json.dumps(parameters))
    done = service.machine.run("runuser", "-u", user, "--", *script)
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply


def create(service: Service, user: str, name: str = "job", **parameters: object) -> dict[str, Any]:
    reply = call(service, user, "Create", name=name, framework="pytorch", **parameters)
    assert "error" not in reply, reply
    created: dict[str, Any] = reply["parameters"]["created"]
    return created


def read_refusal(reply: Mapping[str, Any]) -> str:
    assert "error" in reply, reply
    return " ".join(map(str, reply["parameters"].values()))


def without_error(reply: dict[str, Any]) -> dict[str, Any] | None:
    return None if "error" in reply else reply


def run_as(service: Service, user: str, script: str) -> tuple[int, str]:
    done = service.machine.run("runuser", "-u", user, "--", "sh", "-c", script, check=False)
    return done.returncode, done.stdout + done.stderr


def run_inside(service: Service, name: str, script: str, user: str = "") -> tuple[int, str]:
    """Run a script in a container as its user, as root's docker does it."""
    whose = ("--user", user) if user else ()
    done = service.machine.run(
        "docker", "exec", *whose, name, "busybox", "sh", "-c", script, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_inside_nobody_is_root_and_nothing_of_the_host_is_there(service: Service) -> None:
    """Not even where the configuration allows root: the engine remaps no users (decision 208)."""
    configure(service, root_in_containers=True)
    service.systemctl("restart")
    create(service, "amy")
    code, facts = run_inside(
        service, AMYS, "busybox id; busybox grep -E 'Cap|NoNew' /proc/self/status"
    )
    assert (code, facts.split()[0]) == (0, "uid=2001")
    values = dict(line.split(":\t") for line in facts.splitlines()[1:])
    assert values.pop("NoNewPrivs") == "1"
    assert {int(value, 16) for value in values.values()} == {0}
    for script in (
        "busybox mknod $HOME/disk b 8 0",
        "busybox mknod /dev/shm/disk b 8 0",
        "busybox mount -t tmpfs tmpfs $HOME",
        "busybox mount -o remount,rw /proc/sys",
        "busybox chroot / true",
        "busybox unshare -r true",
        "busybox unshare -m true",
        "busybox nsenter -t 1 -m true",
        "busybox chown 0 $HOME/suid",
        "busybox su -c id",
        "echo x >/proc/sysrq-trigger",
        "echo x >/proc/sys/kernel/core_pattern",
        "echo 1 >/sys/fs/cgroup/cgroup.procs",
        "echo x >/etc/passwd",
        "busybox cat /dev/mem",
        "busybox find / -xdev -type b -o -name docker.sock -o -name booking.sock | busybox grep .",
        f"busybox ls /proc/{service.pid} /proc/{service.machine.docker.pid_of(AMYS)}",
        "busybox ls /home/ben",
    ):
        made = "busybox cp /bin/busybox $HOME/suid; busybox chmod 6755 $HOME/suid"
        code, output = run_inside(service, AMYS, f"{made}; {script}")
        assert code != 0, (script, output)
    # The file that is set-user-ID is its owner's, whose rights they had before.
    assert run_as(service, "ben", "stat -c %U-%a /home/amy/suid")[0] == 1
    assert run_as(service, "amy", "stat -c %U-%a ~/suid") == (0, "amy-6755\n")


def test_nobody_exchanges_what_is_mounted(service: Service) -> None:
    """Neither before it is checked, nor between a stop and the next start."""
    create(service, "amy", workdir="job")
    call(service, "amy", "Stop", name="job", kill_after_s=0)
    for script in (
        "mv /home/amy /home/away",
        "ln -sfn / /home/amy || rmdir /home/amy",
        "mv /data /away",
        "cd ~; rm -rf job; ln -s /home/ben job",
    ):
        code, output = run_as(service, "amy", script)
        assert code == (0 if "cd" in script else 1), (script, output)
    call(service, "amy", "Start", name="job")
    for script in ("ls /home/ben", "ls /home/amy/job", "ls /root", "touch /data/x"):
        assert run_inside(service, AMYS, script)[0] != 0, script
    for workdir, message in {
        "../ben": "invalid working directory",
        "a/../../ben": "invalid working directory",
        "/home/ben": "is not in the home of amy",
        "/": "is not in the home of amy",
    }.items():
        reply = call(
            service, "amy", "Create", name="x", framework="pytorch", gpus=0, workdir=workdir
        )
        assert message in read_refusal(reply)
    # What root has left a link in place of is not followed.
    service.machine.run("sh", "-euc", "mv /home/ben /home/moved; ln -s /etc /home/ben")
    try:
        reply = call(service, "ben", "Create", name="job", framework="pytorch")
        assert "/home/ben is a symlink" in read_refusal(reply)
    finally:
        service.machine.run("sh", "-euc", "rm /home/ben; mv /home/moved /home/ben")
    assert {name for name, _ in service.books.bookings()} == {AMYS}


MINE: Final = """\
cd $(mktemp -d)
printf '[containers]\\nframeworks = "%s"\\n' $PWD/mine >mine.toml
printf '[container]\\nmounts = ["/:/host"]\\n[[image]]\\nframework = "evil"\\nimage = "x"\\n' >mine
"""
NOT_IN_CATALOGUE: Final = "/etc/ds01/frameworks.toml has no framework 'evil'"
OPERATORS_ONLY: Final = "permission denied: needs root or group ds01-operators"
CLAIMS: Final = {
    "container-create x evil --config mine.toml": NOT_IN_CATALOGUE,
    "DS01D_CONFIG=mine.toml container-create x evil": NOT_IN_CATALOGUE,
    "container-create x pytorch --image busybox": "has no image 'busybox'",
    "container-create x._.2001 pytorch": OPERATORS_ONLY,
    "container-create x pytorch -w /etc": "'/etc' is not in the home of ben",
    "container-create x pytorch --architecture \"$(printf 'a\\033[31m')\"": "architecture",
    "container-create ../x pytorch": "invalid container name",
    "container-stop job._.2001": "belongs to",
    "container-start job._.2001": "belongs to",
    "container-remove --force job._.2001": "belongs to",
    "container-enter job._.2001 id": "belongs to",
    "container-logs job._.2001": "belongs to",
    "SUDO_UID=2001 SUDO_USER=amy USER=amy container-stop job": "no container",
    # What members of group docker have named and labelled as ben's.
    "container-start evil": "it has more than the rules allow",
    "container-enter evil id": "it has more than the rules allow",
    "container-enter evil2 id": "was not made by the service",
    "ds01ctl freeze": OPERATORS_ONLY,
    "ds01ctl thaw --engine": OPERATORS_ONLY,
    "ds01ctl undo 1": OPERATORS_ONLY,
    "ds01ctl reconcile": OPERATORS_ONLY,
}
"""What the user sees, who has exit code 1 each time."""


def test_what_a_caller_claims_counts_for_nothing(service: Service) -> None:
    create(service, "amy")
    docker = service.machine.docker
    labels = {"ds01.managed": "true", "ds01.user": "ben", "aime.mlc": "ben"}
    for name in ("evil._.2002", "evil2"):
        docker.run(name, labels=labels, privileged=True, binds=["/:/host"])
    docker.stop_container("evil._.2002")
    for words, message in CLAIMS.items():
        if "enter evil " in words:
            docker.client.start("evil._.2002")
        code, output = run_as(service, "ben", f"{MINE}{words}")
        assert code == 1, (words, output)
        assert message in output, (words, output)
        assert "Traceback" not in output
    booking = (service.books.record(AMYS) or {})["booking_id"]
    for subject in (AMYS, "1.0", booking):
        shown = json.dumps(call(service, "ben", "Explain", subject=subject))
        assert "holds 1.0 as amy" in shown
        for secret in ('evidence": ["', "labels", "processes", "history", "metadata", "pid"):
            assert secret not in shown.replace('"metadata": "ok"', ""), (subject, shown)
    for method in ("Resize", "InspectSession"):
        size = {"rows": 9, "columns": 9} if method == "Resize" else {}
        reply = call(service, "ben", method, name="job._.2001", session="a" * 64, **size)
        assert "belongs to" in read_refusal(reply)
    assert service.books.bookings() == {(AMYS, "1.0")}
    assert service.machine.docker.client.inspect_container(AMYS)["State"]["Running"]


def test_who_books_a_container_of_nobody_learns_no_more_of_it_than_everybody(
    service: Service,
) -> None:
    ident = service.machine.docker.run("foreign")
    assert "error" not in call(service, "ben", "Allocate", container="foreign")
    # Root looks until the pass has seen the booking: ben may make 60 calls in a minute.
    until(
        lambda: without_error(call(service, "root", "Explain", subject="foreign")),
        what=service.tail,
    )
    shown = json.dumps(call(service, "ben", "Explain", subject="foreign"))
    assert '"user": "ben"' in shown
    assert ident not in shown
    assert run_as(service, "ben", "ds01ctl release foreign")[0] == 0


@pytest.mark.parametrize("kind", ["files", "docker"])
def test_there_is_no_way_around_the_quota(service: Service, kind: str) -> None:
    """Two slots: by containers that run or do not, by reservations, names, counts and labels."""
    service.configure(books={"writers": "service", "kind": kind})
    service.systemctl("restart")
    create(service, "amy", "a")
    create(service, "amy", "b", start=False)

    def require_refusal(method: str, **parameters: object) -> None:
        words = read_refusal(call(service, "amy", method, **parameters))
        assert any(word in words for word in REFUSALS), (method, parameters, words)
        assert "2/2" in words or "USER_AT_LIMIT" not in words

    def try_all() -> None:
        for parameters in (
            {},
            {"container": "c"},
            {"container": "c._.2001", "most": 99, "priority": 99},
            {"count": 2, "profile": "1g.10gb"},
            {"container": "a._.2001", "another": True},
            {"container": "b._.2001", "another": True, "slot": "2.0"},
            {"user": "ben"},
            {"container": "c._.2002"},
        ):
            require_refusal("Allocate", **parameters)
        require_refusal("Create", name="c", framework="pytorch")
        require_refusal("Create", name="c", framework="pytorch", slots=["2.0"], start=False)

    try_all()
    require_refusal("Release", container="a._.2001")
    try_all()
    # What is given back by a stopped container is not used by it without asking again.
    call(service, "amy", "Stop", name="a", kill_after_s=0)
    call(service, "amy", "Release", container="a._.2001")
    if "error" not in call(service, "amy", "Allocate", container="c._.2001"):
        require_refusal("Start", name="a")
        call(service, "amy", "Release", container="c._.2001")
    until(lambda: "error" not in call(service, "amy", "Start", name="a"))
    try_all()


REFUSALS: Final = (
    *("USER_AT_LIMIT", "container-stop it first", "by its own request"),
    *("needs root", "ds01-operators", "uid 2002"),
)

FLOOD: Final = """
import json, socket
for _ in range(50):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("/run/ds01d/booking.sock")
        call = {"method": "io.github.ds01.Containers.Stop", "parameters": {"name": "job"}}
        call["parameters"]["kill_after_s"] = 3600
        s.sendall(json.dumps(call).encode() + bytes(1))
        s.settimeout(0.05)
        try:
            s.recv(65536)
        except TimeoutError:
            pass
"""


def test_who_floods_the_service_stops_nobody_else(service: Service) -> None:
    create(service, "amy")
    create(service, "ben")
    flood = service.machine.run("runuser", "-u", "amy", "--", "/usr/bin/python3", "-c", FLOOD)
    assert flood.returncode == 0
    assert "2 connections" not in run_as(service, "amy", "container-list")[1]
    code, output = run_as(service, "ben", "container-list && container-stop -t 0 job")
    assert (code, "job._.2002 is stopped" in output) == (0, True), output
    service.machine.docker.client.kill(AMYS)
