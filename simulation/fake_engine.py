"""A fake Docker engine: the part of its HTTP API that matters here, on a unix socket.

For ten thousand containers at once, and for faults that a real engine does not show on demand.
It answers the real docker SDK, whose calls also change it: create, start, stop, pause, rename,
remove. `python -m simulation.fake_engine --socket PATH --containers 10000` runs one by itself.
"""

import argparse
import contextlib
import json
import queue
import re
import select
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from simulation.fake_containers import FakeContainers, Json, moment
from simulation.storm import Storm
from simulation.unix_http import UnixHandler, UnixServer

VERSION: Final = "20.10.24+dfsg1"
API: Final = ("1.12", "1.41")
"""The oldest and the newest version of the API that Docker 20.10 speaks."""
REPOSITORY: Final = Path(__file__).parent.parent


class FakeEngine:
    """A fake engine in threads of this process, as a context manager."""

    def __init__(
        self,
        path: Path,
        *,
        ident: str = "FAKE:ENGN",
        data_root: str = "/var/lib/docker",
        driver: str = "overlay2",
        podman: bool = False,
        api: tuple[str, str] = API,
    ) -> None:
        """Prepare an engine; `start` or `with` lets it answer.

        `api`: the oldest and the newest version of the API that it speaks.

        `podman`: as Podman 4.3 does, with a new ID in each answer and `remove` for `destroy`.
        """
        self.socket = path
        self.url = f"unix://{path}"
        self.ident = ident
        self.data_root = data_root
        self.driver = driver
        self.podman = podman
        self.api = api
        self.containers = FakeContainers()
        self.calls: Counter[str] = Counter()
        """How often each path was asked for, without version and self.query."""
        self.versions: Counter[str] = Counter()
        """How often each version of the API was asked for."""
        self.storm: Storm | None = None
        self._server: UnixServer[FakeEngine] | None = None

    def __enter__(self) -> "FakeEngine":  # noqa: PYI034 - typing has no Self in Python 3.10
        """Start to answer."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        self.stop()

    def start(self) -> None:
        """Listen."""
        self._server = UnixServer(self.socket, self, _Handler)
        self._server.run()

    def stop(self) -> None:
        """Close every connection and listen no more; the containers stay, to start again with."""
        if self._server is not None:
            self.containers.end_streams()
            self._server.end()
            self._server = None
            self.socket.unlink(missing_ok=True)

    def fill(self, count: int, *, devices: Sequence[str] = (), running: bool = True) -> list[str]:
        """Add so many DS01 containers of fifty users, each on the next of the devices."""
        names = [f"job{number}._.{1001 + number % 50}" for number in range(count)]
        for number, name in enumerate(names):
            user = f"user{number % 50}"
            device = devices[number % len(devices)] if devices else None
            labels = {
                "aime.mlc": user,
                "aime.mlc.USER": user,
                "aime.mlc.NAME": name.partition("._.")[0],
                "aime.mlc.DS01_MANAGED": "true",
                "aime.mlc.GPUS": f"device={device}",
                "ds01.managed": "true",
                "ds01.user": user,
            }
            requests = None if device is None else [request(device)]
            self.containers.add(name, start=running, labels=labels, requests=requests)
        return names

    def info(self) -> Json:
        """Answer `/info`."""
        states = Counter(one.status for one in self.containers.all())
        return {
            "ID": str(uuid.uuid4()) if self.podman else self.ident,
            "Containers": states.total(),
            "ContainersRunning": states["running"],
            "ContainersPaused": states["paused"],
            "ContainersStopped": states["exited"] + states["created"],
            "Images": 1,
            "Driver": self.driver,
            "DriverStatus": [["Backing Filesystem", "extfs"]],
            "DockerRootDir": self.data_root,
            "Name": "fake",
            "ServerVersion": VERSION,
            "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
            "OSType": "linux",
            "Architecture": "x86_64",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2",
            "Runtimes": {"runc": {"path": "runc"}, "nvidia": {"path": "runc"}},
            "DefaultRuntime": "runc",
            "SystemTime": moment(self.containers.clock()),
            "LiveRestoreEnabled": False,
            "Warnings": None,
        }

    def version(self) -> Json:
        """Answer `/version`."""
        facts = {
            "ApiVersion": self.api[1],
            "MinAPIVersion": self.api[0],
            "GitCommit": "5d6db84",
            "GoVersion": "go1.19.8",
            "Os": "linux",
            "Arch": "amd64",
            "KernelVersion": "6.1.0",
            "BuildTime": "2024-01-01T00:00:00.000000000+00:00",
        }
        name = "Podman Engine" if self.podman else "Engine"
        engine = {"Name": name, "Version": VERSION, "Details": facts}
        return {"Platform": {"Name": ""}, "Components": [engine], "Version": VERSION, **facts}


def request(*devices: str, count: int = 0, driver: str = "") -> Json:
    """Make a device request for GPUs, as the docker command does."""
    ids = list(devices) or None
    capabilities = None if driver else [["gpu"]]
    return {
        "Driver": driver,
        "Count": count,
        "DeviceIDs": ids,
        "Capabilities": capabilities,
        "Options": {},
    }


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _as_podman(event: Json) -> Json:
    """Name what happened to a container as Podman does."""
    words = {"destroy": "remove"} if event["Type"] == "container" else {}
    action = words.get(event["Action"], event["Action"])
    return {**event, "Action": action, "status": action}


class _Handler(UnixHandler[FakeEngine]):
    server_version = f"Docker/{VERSION}"
    sys_version = "(linux)"

    def handle_call(self) -> None:
        """Find the route, and follow it."""
        path = self.plain_path
        query = parse_qs(urlsplit(self.path).query)
        self.query = {key: values[-1] for key, values in query.items()}
        self.body: Json = json.loads(self.read_body() or b"null") or {}
        self.owner.calls[path] += 1
        if refusal := self._refused_version():
            return self.fail(400, refusal)
        for (method, pattern), route in _ROUTES.items():
            found = re.fullmatch(pattern, path)
            if found and method == self.command.replace("HEAD", "GET"):
                try:
                    return route(self, *map(unquote, found.groups()))
                except KeyError as missing:
                    return self.fail(404, f"No such container: {missing.args[0]}")
                except LookupError as ambiguous:
                    return self.fail(500, str(ambiguous))
                except ValueError as conflict:
                    return self.fail(409, f"Conflict. {conflict}")
        return self.fail(404, "page not found")

    def _refused_version(self) -> str:
        """Docker's words where the version that is asked for is none that it speaks."""
        asked = re.match(r"/v([0-9]+\.[0-9]+)/", self.path)
        if asked is None:
            return ""
        version = asked.group(1)
        self.owner.versions[version] += 1
        oldest, newest = self.owner.api
        if _number(version) < _number(oldest):
            return (
                f"client version {version} is too old. Minimum supported API version is {oldest}, "
                "please upgrade your client to a newer version"
            )
        if _number(version) > _number(newest):
            return f"client version {version} is too new. Maximum supported API version is {newest}"
        return ""

    # ---- answers

    def answer(self, body: bytes, status: int = 200, kind: str = "application/json") -> None:
        """Send a whole answer."""
        self._head(status, kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def say(self, answer: object, status: int = 200) -> None:
        """Send an answer in JSON."""
        self.answer(json.dumps(answer).encode() + b"\n", status)

    def fail(self, status: int, message: str) -> None:
        """Send an error in Docker's words."""
        self.say({"message": message}, status)

    def done(self) -> None:
        """Say that something is done."""
        self._head(204, "application/json")
        self.end_headers()

    def _head(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Api-Version", self.owner.api[1])
        self.send_header("Content-Type", kind)
        self.send_header("Docker-Experimental", "false")
        self.send_header("Ostype", "linux")

    def stream(self, heard: "queue.SimpleQueue[Json | None]") -> None:
        """Send events as they come, until the client or the engine goes."""
        self._head(200, "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        while True:
            try:
                event = heard.get(timeout=0.05)
            except queue.Empty:
                if select.select([self.connection], [], [], 0)[0]:
                    return
                continue
            if event is None:
                return
            told = _as_podman(event) if self.owner.podman else event
            self.chunk(json.dumps(told).encode() + b"\n")

    # ---- routes

    def ping(self) -> None:
        self.answer(b"OK", kind="text/plain; charset=utf-8")

    def version(self) -> None:
        self.say(self.owner.version())

    def info(self) -> None:
        self.say(self.owner.info())

    def list(self) -> None:
        containers = self.owner.containers
        filters = json.loads(self.query.get("filters") or "{}")
        if unknown := set(filters) - {"status", "label", "name"}:
            return self.fail(400, f"the fake engine knows no filters for lists by {unknown}")
        if states := filters.get("status"):
            return self.say([one.row() for one in containers.all() if one.status in states])
        if names := filters.get("name"):
            (pattern,) = names
            return self.say(
                [one.row() for one in containers.all() if re.search(pattern, f"/{one.name}")]
            )
        if wanted := filters.get("label"):
            pairs = [text.split("=", 1) for text in wanted]
            labelled = [
                one.row()
                for one in containers.all()
                if all(one.labels.get(key) == value for key, value in pairs)
            ]
            return self.say(labelled)
        if self.query.get("all", "0").lower() in {"1", "true"}:
            return self.answer(containers.rows())
        return self.say([one.row() for one in containers.all() if one.pid])

    def inspect(self, key: str) -> None:
        self.say(self.owner.containers.get(key).inspected())

    def events(self) -> None:
        containers = self.owner.containers
        filters = json.loads(self.query.get("filters") or "{}")
        if unknown := set(filters) - {"type", "event", "container"}:
            return self.fail(400, f"the fake engine knows no filters for events by {unknown}")

        def wanted(event: Json) -> bool:
            if self.owner.podman:
                event = _as_podman(event)
            names = {event["Actor"]["ID"], event["Actor"]["Attributes"].get("name")}
            return (
                event["Type"] in filters.get("type", [event["Type"]])
                and event["Action"] in filters.get("event", [event["Action"]])
                and bool(names & set(filters.get("container", names)))
            )

        since = float(self.query["since"]) if "since" in self.query else None
        if float(self.query.get("until", "inf")) < containers.clock():
            until = float(self.query["until"])
            past = (event for event in containers.past(since or 0.0) if wanted(event))
            lines = (json.dumps(event) for event in past if event["timeNano"] <= until * 1e9)
            return self.answer("".join(f"{line}\n" for line in lines).encode())
        heard = containers.subscribe(wanted, since)
        try:
            return self.stream(heard)
        finally:
            containers.unsubscribe(heard)

    def create(self) -> None:
        host = self.body.get("HostConfig") or {}
        ident = self.owner.containers.add(
            self.query["name"],
            start=False,
            image=self.body["Image"],
            labels=self.body.get("Labels") or {},
            requests=host.get("DeviceRequests"),
            env=self.body.get("Env") or (),
            command=self.body.get("Cmd") or ("sleep", "600"),
            privileged=bool(host.get("Privileged")),
            runtime=host.get("Runtime") or "runc",
            host_devices=host.get("Devices") or (),
            cgroup_parent=host.get("CgroupParent") or "",
        )
        self.say({"Id": ident, "Warnings": []}, 201)

    def act(self, key: str, action: str) -> None:
        containers = self.owner.containers
        if action == "rename":
            containers.rename(key, self.query["name"])
        elif action == "kill":
            containers.stop(key)
        else:
            getattr(containers, action)(key)
        self.done()

    def remove(self, key: str) -> None:
        self.owner.containers.remove(key)
        self.done()

    def storm(self) -> None:
        """Tell of the storm, which no Docker has; with a rate, begin one."""
        engine = self.owner
        if "rate" in self.query:
            engine.storm = Storm(
                containers=engine.containers,
                rate=float(self.query["rate"]),
                seconds=float(self.query["seconds"]),
                removals=int(self.query["removals"]),
            )
            engine.storm.start()
        if engine.storm is None:
            return self.fail(404, "there is no storm")
        blown = engine.storm
        return self.say(
            {"events": blown.events, "removed": list(blown.removed), "over": blown.over.is_set()}
        )


_Route = Callable[..., None]

_ACTIONS: Final = "start|stop|kill|pause|unpause|rename"
_ROUTES: Final[Mapping[tuple[str, str], _Route]] = {
    ("GET", "/_ping"): _Handler.ping,
    ("GET", "/version"): _Handler.version,
    ("GET", "/info"): _Handler.info,
    ("GET", "/events"): _Handler.events,
    ("GET", "/containers/json"): _Handler.list,
    ("GET", "/containers/([^/]+)/json"): _Handler.inspect,
    ("POST", "/containers/create"): _Handler.create,
    ("POST", f"/containers/([^/]+)/({_ACTIONS})"): _Handler.act,
    ("DELETE", "/containers/([^/]+)"): _Handler.remove,
    ("GET", "/storm"): _Handler.storm,
}


@contextlib.contextmanager
def fake_engine_process(
    path: Path, *, containers: int = 0, devices: Sequence[str] = (), running: bool = True
) -> Iterator[str]:
    """Run a fake engine in a process of its own, where it takes no time from ours; give its URL.

    Its containers run, or else were created and never started.
    """
    command = [sys.executable, "-m", "simulation.fake_engine", f"--socket={path}"]
    command += [f"--containers={containers}", *(f"--device={device}" for device in devices)]
    command += [] if running else ["--created"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError("the fake engine does not start")
            yield f"unix://{path}"
        finally:
            process.terminate()


def main() -> None:
    """Run a fake engine until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A fake Docker engine on a unix socket.")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--containers", type=int, default=0, help="how many it begins with")
    parser.add_argument("--created", action="store_true", help="they were never started")
    parser.add_argument("--device", action="append", default=[], help="a device they request")
    options = parser.parse_args()
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    engine = FakeEngine(options.socket)
    engine.fill(options.containers, devices=options.device, running=not options.created)
    with engine:
        sys.stdout.write(f"{engine.url}\n")
        sys.stdout.flush()
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
