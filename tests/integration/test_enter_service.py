"""Enter and Logs through the service: a user in no group, a real engine, and what attackers try."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from ds01d.containers import sessions
from ds01d.service.client import CONTAINERS, INTERFACE
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer
from ds01d.service.server import BookingServer
from simulation.engine import IMAGE, PrivateEngine
from tests.support.books import until
from tests.support.container_calls import ContainerDesk, make_users
from tests.support.containers import PATIENT
from tests.support.daemon import ROOT, Site
from tests.support.terminal import TerminalSession

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes the homes of other users"),
]

CATALOGUE = f"""\
[container]
command = ["sh", "-c", "echo begun; exec sleep 600"]
network = "none"

[[image]]
framework = "pytorch"
image = "{IMAGE}"
"""
NAME = "a._.4001"
HTTP: Final = b"GET /v1.41/containers/json HTTP/1.1\r\nHost: d\r\n\r\n"


STATUS: Final = [
    {"id": "1.0", "holders": [{"container": "b._.4002"}], "foreign": []},
    {"id": "1.1", "holders": [], "foreign": []},
]


class Served:
    """The service on a socket, which knows users by their uids, and how a command reaches it."""

    def __init__(self, desk: ContainerDesk, path: Path) -> None:
        self.desk, self.path = desk, path
        self._server: BookingServer | None = None
        self.start()

    def start(self) -> None:
        """As systemd: the socket stays, and somebody else serves it."""
        if self._server is None and not self.path.exists():
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(str(self.path))
            self.path.chmod(0o666)
            self._listening.listen(64)
        self._server = BookingServer([self._listening.dup()], self._identify, self)
        self._server.start()

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    def close(self) -> None:
        self.stop()
        self._listening.close()

    def list_interfaces(self) -> tuple[str, ...]:
        return (CONTAINERS, INTERFACE)

    def submit(self, request: PendingCall) -> None:
        if request.call.method == f"{INTERFACE}.Status":
            request.take()
            request.finish({"status": {"slots": STATUS}})
        else:
            self.desk.service.submit(request)

    def _identify(self, peer: socket.socket) -> Peer:
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("3i", raw)
        (login,) = (name for name, person in self.desk.users.items() if person.uid == uid)
        return Peer(uid=uid, login=login, pid=1, is_operator=False)

    def command(self, uid: int, *words: str) -> list[str]:
        """A command as this uid, who may read our Python, and not write to Docker's socket."""
        caps = "+dac_read_search"
        who = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
        rights = ["--inh-caps", caps, "--ambient-caps", caps, "--bounding-set", f"-all,{caps}"]
        module = [sys.executable, "-m", "ds01d.cli.ctl.main"]
        config = ["--config", str(self.desk.site.config)]
        return [*who, *rights, "--", *module, *config, "container", *words]

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}

    def run(self, uid: int, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(uid, *words),
            input=given,
            capture_output=True,
            env=self.env,
            cwd="/",
            timeout=60,
            check=False,
        )

    def call(
        self, uid: int, method: str, **parameters: object
    ) -> tuple[dict[str, Any], list[socket.socket]]:
        """A call by hand, as this uid: the reply, and what came with it."""
        with connected(self.path, uid) as peer:
            return exchange(peer, method, parameters)


@contextmanager
def connected(path: Path, uid: int) -> Iterator[socket.socket]:
    """A connection whose peer is this uid, since the kernel notes who connects."""
    with socket.socket(socket.AF_UNIX) as peer:
        set_thread_uid(uid)
        try:
            peer.connect(str(path))
        finally:
            set_thread_uid(0)
        peer.settimeout(60)
        yield peer


def set_thread_uid(uid: int) -> None:
    """The effective uid of this thread alone: the C library would change those of all threads."""
    number = {"x86_64": 117, "aarch64": 147}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, -1, uid, -1) == 0


def exchange(
    peer: socket.socket, method: str, parameters: Mapping[str, object], *, more: bool = False
) -> tuple[dict[str, Any], list[socket.socket]]:
    call = {"method": f"{CONTAINERS}.{method}", "parameters": parameters, "more": more}
    peer.sendall(json.dumps(call).encode() + b"\0")
    return receive(peer)


def receive(peer: socket.socket) -> tuple[dict[str, Any], list[socket.socket]]:
    reply, streams = b"", list[socket.socket]()
    while not reply.endswith(b"\0"):
        data, descriptors, _, _ = socket.recv_fds(peer, 1, 4)
        assert data, reply
        reply += data
        streams += [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for stream in streams:
        stream.settimeout(60)
    return json.loads(reply[:-1]), streams


@pytest.fixture
def served(engine: PrivateEngine) -> Iterator[Served]:
    """A container of amy's, and one of ben's."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir="/var/lib", prefix="ds01-enter-"))
        )
        folder.chmod(0o755)
        catalogue, path = folder / "frameworks.toml", folder / "booking.sock"
        catalogue.write_text(CATALOGUE, encoding="utf-8")
        site = Site(
            folder,
            engine.url,
            containers={"frameworks": str(catalogue)},
            service={"containers": True, "socket": str(path)},
        )
        site.configure(**PATIENT)
        homes = folder / "homes"
        homes.mkdir(mode=0o755)
        desk = ContainerDesk(site, make_users(homes))
        stack.callback(desk.close)
        for user, name in (("amy", "a"), ("ben", "b")):
            made = desk.call(user, "Create", name=name, framework="pytorch", gpus=0)
            assert "error" not in made, made
        served = Served(desk, path)
        stack.callback(served.close)
        yield served


def test_a_terminal_and_a_restart_of_ds01d(served: Served) -> None:
    shell = TerminalSession(served.command(4001, "enter", "a", "sh"), served.env)
    try:
        # A size is sent again until the command runs, which may be a moment later.
        shell.type("id -u; until stty size | grep 30; do sleep 0.1; done; echo rea''dy\n")
        for text in ("4001\r\n", "30 90\r\n", "ready\r\n"):
            shell.expect(text)
        shell.resize(41, 131, shell.process.pid)
        # Sizes are sent at most every 2 s.
        shell.type("until stty size | grep 131; do sleep 0.1; done\n")
        shell.expect("41 131\r\n")
        served.stop()
        # Nobody serves now: the command and its user do not notice.
        shell.type("sleep 300\n")
        time.sleep(0.3)
        shell.type("\x03echo still''here\n")
        shell.expect("stillhere\r\n")
        shell.type("exit 42\n")
        time.sleep(0.5)
        served.start()
        assert shell.end() == 42
    finally:
        shell.close()


def test_pipes_exit_codes_and_logs(served: Served) -> None:
    words = ("sh", "-c", "cat; echo bad >&2; exit 3")
    done = served.run(4001, "enter", "a", *words, given=b"x" * 300_000)
    assert (done.returncode, len(done.stdout), done.stderr) == (3, 300_000, b"bad\n"), done.stderr
    done = served.run(4001, "enter", "a", "no-such-program")
    assert done.returncode in {126, 127}
    script = "grep -E '^(CapEff|NoNewPrivs|Groups)' /proc/self/status"
    done = served.run(4001, "enter", "a", "sh", "-c", script)
    status = dict(line.split(":\t") for line in done.stdout.decode().splitlines())
    assert (int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, "1")
    assert "4100" in status["Groups"].split()
    assert served.run(4001, "logs", "a").stdout.replace(b"\r", b"") == b"begun\n"
    with subprocess.Popen(
        served.command(4001, "logs", "a", "--follow"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=served.env, cwd="/",
    ) as following:  # fmt: skip
        assert following.stdout is not None
        assert following.stdout.readline().strip() == b"begun"
        assert "error" not in served.desk.call("amy", "Stop", name="a", kill_after_s=0)
        assert following.wait(60) == 0
    done = served.run(4001, "enter", "a", "true")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"a._.4001 is not running (exited): container-start a first" in done.stderr


def test_the_descriptor_is_good_for_nothing_else(served: Served) -> None:
    reply, (stream,) = served.call(
        4001, "Enter", name="a", command=["sh", "-c", "head -n1; sleep 1"]
    )
    with stream:
        # All of it goes to the command, and nothing comes but what that writes.
        stream.sendall(HTTP + HTTP)
        assert read_all(stream)[8:] == HTTP.split(b"\n")[0] + b"\n"
        # At the end of the command the connection has ended, too.
        with suppress(BrokenPipeError, ConnectionResetError):
            stream.sendall(HTTP)
        assert read_all(stream) == b""
        # And it cannot be made a connection to something else.
        with pytest.raises(OSError, match="already connected"):
            stream.connect(str(served.path))
    session = reply["parameters"]["session"]
    state, _ = served.call(4001, "InspectSession", name="a", session=session)
    assert state["parameters"] == {"is_running": False, "exit_code": 0}


def read_all(stream: socket.socket) -> bytes:
    data = b""
    try:
        while part := stream.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def test_what_is_somebody_elses(served: Served) -> None:
    mine, (stream,) = served.call(4001, "Enter", name="a", command=["cat"])
    session = mine["parameters"]["session"]
    with stream:
        size = {"rows": 10, "columns": 10}
        for name, method, more in (
            (NAME, "Enter", {}),
            (NAME, "InspectSession", {"session": session}),
            (NAME, "Resize", {"session": session, **size}),
            ("b", "InspectSession", {"session": session}),  # the session of another container
            ("b", "Resize", {"session": session, **size}),
        ):
            reply, streams = served.call(4002, method, name=name, **more)
            assert "error" in reply, (method, reply)
            assert streams == []
        with connected(served.path, 4002) as peer:
            reply, _ = exchange(peer, "Logs", {"name": NAME}, more=True)
            assert "error" in reply
        state, _ = served.call(4001, "InspectSession", name="a", session=session)
        assert state["parameters"]["is_running"]


OUT_OF_FIELD: Final[list[dict[str, object]]] = [
    {"user": "0"},
    {"privileged": True},
    {"command": []},
    {"command": [""]},
    {"command": ["a\0b"]},
    {"command": ["x"] * 300},
    {"command": "sh"},
    {"environment": ["A"]},
    {"environment": ["=x"]},
    {"environment": ["A=x\0y"]},
    {"rows": 10},
    {"rows": 0, "columns": 10},
    {"rows": 10, "columns": 100_000},
    {"name": "../b"},
    {"name": "b._.4002"},
]


def test_what_leaves_its_field(served: Served, engine: PrivateEngine) -> None:
    for parameters in OUT_OF_FIELD:
        reply, streams = served.call(4001, "Enter", **{"name": "a", **parameters})
        assert (set(reply), streams) == ({"error", "parameters"}, []), (parameters, reply)
    assert not engine.client.inspect_container(NAME)["ExecIDs"]


def test_a_container_that_may_do_more_than_its_owner(served: Served, engine: PrivateEngine) -> None:
    client = engine.client
    labels = {"ds01.user": "amy", "ds01.managed": "true"}
    for name, privileged in (("p._.4001", True), ("r._.4001", False), ("plain", False)):
        client.create_container(
            IMAGE,
            ["sleep", "60"],
            name=name,
            labels={} if name == "plain" else labels,
            host_config=client.create_host_config(privileged=privileged),
        )
        client.start(name)
        reply, streams = served.call(4001, "Enter", name=name)
        assert (reply["error"].rpartition(".")[2], streams) == ("Refused", []), reply


def test_so_many_sizes_and_commands(
    served: Served, engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    order = {"name": "a", "command": ["cat"], "rows": 10, "columns": 10}
    opened = [served.call(4001, "Enter", **order) for _ in range(2)]
    refused, _ = served.call(4001, "Enter", **order)
    assert "2 commands run in a._.4001 already" in refused["parameters"]["reason"]
    session = opened[0][0]["parameters"]["session"]
    with connected(served.path, 4001) as peer:
        size = {"name": "a", "session": session, "rows": 20}
        replies = [
            exchange(peer, "Resize", {**size, "columns": n % 400 + 1})[0] for n in range(1000)
        ]
    assert 0 < sum("error" not in reply for reply in replies) <= 60
    assert all("try again in" in reply["parameters"]["reason"] for reply in replies[100:])
    # Nobody else notices.
    began = time.monotonic()
    assert "error" not in served.call(4002, "List")[0]
    assert time.monotonic() - began < 30
    for _, (stream,) in opened:
        stream.close()


def count_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def test_clients_that_never_read(served: Served, engine: PrivateEngine) -> None:
    before = count_descriptors()
    flood = ["sh", "-c", f"while :; do echo {'y' * 60}; done"]
    with ExitStack() as stack:
        _, (stream,) = served.call(4001, "Enter", name="a", command=flood)
        stack.enter_context(stream)
        for _ in range(3):  # they follow, and take nothing
            peer = stack.enter_context(connected(served.path, 4001))
            call = {"method": f"{CONTAINERS}.Logs", "more": True}
            call["parameters"] = {"name": "a", "follow": True}
            peer.sendall(json.dumps(call).encode() + b"\0")
        time.sleep(0.5)
        began = time.monotonic()
        done = served.run(4002, "enter", "b", "echo", "quick")
        assert (done.returncode, done.stdout) == (0, b"quick\n"), done.stderr
        assert time.monotonic() - began < 30  # decision 164
    until(lambda: count_descriptors() <= before)


def test_guided_without_access_to_docker(served: Served) -> None:
    command = served.command(4001, "create", "--guided", "--cpu-only")
    terminal = TerminalSession(command, served.env)
    try:
        for cue, answer in (
            ("Number or name", "pytorch"),
            ("Name", "a"),
            ("already exists", "guided"),
            ("1.0 is held by b._.4002", ""),  # by default none, as it was given
            ("container-create guided pytorch --cpu-only", "y"),
        ):
            terminal.expect(cue)
            terminal.type(f"{answer}\n")
        terminal.expect("guided._.4001 runs without a GPU")
        assert terminal.end() == 0
    finally:
        terminal.close()
