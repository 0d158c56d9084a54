"""Containers in memory, told in Docker's words: rows of the list, inspect answers, events.

The shapes are those of a recorded engine (20.10); a contract test holds them against a real one.
Nothing here listens: `fake_engine` serves it.
"""

import hashlib
import json
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

NEVER: Final = "0001-01-01T00:00:00Z"
NETWORK: Final = hashlib.sha256(b"none").hexdigest()
RING: Final = 256
"""So many past events an engine remembers."""

_RECORDED: Final = (
    Path(__file__).parent.parent / "tests" / "data" / "docker-inspect-mlc-container.json"
)
_TEMPLATE: Final = json.dumps(json.loads(_RECORDED.read_text(encoding="utf-8"))[0])


def moment(seconds: float) -> str:
    """Write a time since the epoch as Docker does."""
    whole = datetime.fromtimestamp(int(seconds), tz=timezone.utc)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{int(seconds % 1 * 1e9):09d}Z"


@dataclass(slots=True, kw_only=True)
class FakeContainer:
    """What the engine knows of one container. Times are seconds since the epoch; None: never."""

    id: str
    name: str
    image: str = "ds01d-test:latest"
    labels: Mapping[str, str] = field(default_factory=dict)
    requests: Sequence[Mapping[str, object]] | None = None
    env: Sequence[str] = ()
    runtime: str = "runc"
    privileged: bool = False
    host_devices: Sequence[Mapping[str, str]] = ()
    cgroup_parent: str = ""
    command: Sequence[str] = ("sleep", "600")
    status: str = "created"
    pid: int = 0
    exit_code: int = 0
    restarts: int = 0
    created: float
    started: float | None = None
    finished: float | None = None
    clock: Callable[[], float] = time.time

    def row(self) -> Json:
        """Render the container as the list shows it."""
        return {
            "Id": self.id,
            "Names": [f"/{self.name}"],
            "Image": self.image,
            "ImageID": _image_id(self.image),
            "Command": " ".join(self.command),
            "Created": int(self.created),
            "Ports": [],
            "Labels": dict(self.labels),
            "State": self.status,
            "Status": self._words(),
            "HostConfig": {"NetworkMode": "none"},
            "NetworkSettings": {"Networks": {"none": self._network()}},
            "Mounts": [],
        }

    def inspected(self) -> Json:
        """Render the container as inspect shows it."""
        seen: Json = json.loads(_TEMPLATE)
        seen.update(
            Id=self.id,
            Name=f"/{self.name}",
            Created=moment(self.created),
            Path=self.command[0],
            Args=list(self.command[1:]),
            Image=_image_id(self.image),
            RestartCount=self.restarts,
        )
        seen["State"] |= {
            "Status": self.status,
            "Running": self.status in {"running", "paused", "restarting"},
            "Paused": self.status == "paused",
            "Restarting": self.status == "restarting",
            "Dead": self.status == "dead",
            "Pid": self.pid,
            "ExitCode": self.exit_code,
            "StartedAt": NEVER if self.started is None else moment(self.started),
            "FinishedAt": NEVER if self.finished is None else moment(self.finished),
        }
        seen["HostConfig"] |= {
            "DeviceRequests": None if self.requests is None else list(self.requests),
            "Devices": list(self.host_devices),
            "Privileged": self.privileged,
            "Runtime": self.runtime,
            "CgroupParent": self.cgroup_parent,
        }
        seen["Config"] |= {
            "Hostname": self.id[:12],
            "Labels": dict(self.labels),
            "Env": list(self.env) or None,
            "Cmd": list(self.command),
            "Image": self.image,
        }
        seen["NetworkSettings"]["Networks"] = {"none": self._network()}
        return seen

    def event(self, action: str, **attributes: str) -> Json:
        """Render something that happened to the container."""
        named = {**self.labels, **attributes, "image": self.image, "name": self.name}
        return {
            "status": action,
            "id": self.id,
            "from": self.image,
            "Type": "container",
            "Action": action,
            "Actor": {"ID": self.id, "Attributes": dict(sorted(named.items()))},
            **self._stamp(),
        }

    def network_event(self, action: str) -> Json:
        """Render what its network says when the container starts or ends."""
        attributes = {"container": self.id, "name": "none", "type": "null"}
        actor = {"ID": NETWORK, "Attributes": attributes}
        return {"Type": "network", "Action": action, "Actor": actor, **self._stamp()}

    def _stamp(self) -> Json:
        now = int(self.clock() * 1e9)
        return {"scope": "local", "time": now // 10**9, "timeNano": now}

    def _words(self) -> str:
        since = self.clock() - (self.finished or self.created)
        if self.status == "created":
            return "Created"
        if self.status == "exited":
            return f"Exited ({self.exit_code}) {int(since)} seconds ago"
        if self.status == "dead":
            return "Dead"
        if self.status == "restarting":
            return f"Restarting ({self.exit_code}) {int(since)} seconds ago"
        up = f"Up {int(self.clock() - (self.started or self.created))} seconds"
        return f"{up} (Paused)" if self.status == "paused" else up

    def _network(self) -> Json:
        blank = dict.fromkeys(("Gateway", "IPAddress", "IPv6Gateway", "GlobalIPv6Address"), "")
        numbers = {"IPPrefixLen": 0, "GlobalIPv6PrefixLen": 0}
        none = dict.fromkeys(("IPAMConfig", "Links", "Aliases", "DriverOpts"))
        joined = {"NetworkID": NETWORK if self.started else "", "EndpointID": "", "MacAddress": ""}
        if self.pid:
            joined["EndpointID"] = hashlib.sha256(self.id.encode()).hexdigest()
        return {**none, **blank, **numbers, **joined}


class FakeContainers:
    """All containers of a fake engine, and its events. May be used from any thread.

    `clock` gives the time that they are stamped with, in seconds since the epoch.
    """

    def __init__(self) -> None:
        """Begin without containers."""
        self.clock: Callable[[], float] = time.time
        self._lock = threading.RLock()
        self._by_id: dict[str, FakeContainer] = {}
        self._by_name: dict[str, FakeContainer] = {}
        self._rows: dict[str, bytes] = {}
        self._past: deque[Json] = deque(maxlen=RING)
        self._subscribers: dict[queue.SimpleQueue[Json | None], Callable[[Json], bool]] = {}
        self.sent = 0
        """Events that some listener was to get."""
        self._made = self._started = 0

    # ---- what is there

    def find(self, key: str) -> FakeContainer | None:
        """Find a container by name, id or the beginning of an id, as Docker does.

        Raises LookupError where several ids begin so and nothing has that name.
        """
        with self._lock:
            exact = self._by_id.get(key) or self._by_name.get(key.removeprefix("/"))
            if exact is not None:
                return exact
            if not re.fullmatch("[0-9a-f]+", key):
                return None
            begun = [one for one in self._by_id.values() if one.id.startswith(key)]
            if len(begun) > 1:
                raise LookupError(f"Multiple IDs found with provided prefix: {key}")
            return begun[0] if begun else None

    def get(self, key: str) -> FakeContainer:
        """Find a container that must be there."""
        found = self.find(key)
        if found is None:
            raise KeyError(key)
        return found

    def all(self) -> list[FakeContainer]:
        """List the containers, newest first."""
        with self._lock:
            return list(reversed(self._by_id.values()))

    def rows(self) -> bytes:
        """Render the whole list, quickly: rows of untouched containers are kept."""
        with self._lock:
            for one in self._by_id.values():
                if one.id not in self._rows:
                    self._rows[one.id] = json.dumps(one.row()).encode()
            return b"[" + b",".join(self._rows[key] for key in reversed(self._by_id)) + b"]\n"

    # ---- what happens

    def add(self, name: str, *, start: bool = True, **fields: Any) -> str:  # noqa: ANN401 - fields of FakeContainer
        """Create a container, start it unless told otherwise, and return its id."""
        with self._lock:
            if name in self._by_name:
                raise ValueError(f"{name} is there already")
            self._made += 1
            made = hashlib.sha256(f"{self._made} {name}".encode()).hexdigest()
            ours = {"id": made, "name": name, "created": self.clock(), "clock": self.clock}
            one = FakeContainer(**{**ours, **fields})
            self._by_id[one.id] = self._by_name[name] = one
            self.emit(one.event("create"))
            if start:
                self.start(one.id)
            return one.id

    def start(self, key: str, *, pid: int | None = None) -> None:
        """Start a container."""
        with self._lock:
            one = self.get(key)
            self.emit(one.network_event("connect"))
            self._started += 1
            pid = pid or 1_000_000 + self._started
            self.change(one.id, status="running", pid=pid, started=self.clock(), exit_code=0)
            self.emit(one.event("start"))

    def die(self, key: str, exit_code: int = 0) -> None:
        """Let a container end by itself."""
        with self._lock:
            one = self.get(key)
            self.change(one.id, status="exited", pid=0, finished=self.clock(), exit_code=exit_code)
            self.emit(one.event("die", exitCode=str(exit_code)))
            self.emit(one.network_event("disconnect"))

    def stop(self, key: str) -> None:
        """Stop a container. One that does not run stays as it is, and nothing is heard of it."""
        with self._lock:
            one = self.get(key)
            if not one.pid:
                return
            self.emit(one.event("kill", signal="15"))
            self.die(one.id, 137)
            self.emit(one.event("stop"))

    def pause(self, key: str) -> None:
        """Pause a running container."""
        self._become(key, "paused", "pause")

    def unpause(self, key: str) -> None:
        """Let a paused container go on."""
        self._become(key, "running", "unpause")

    def rename(self, key: str, name: str) -> None:
        """Give a container another name."""
        with self._lock:
            one = self.get(key)
            if name in self._by_name:
                raise ValueError(f"{name} is there already")
            old = one.name
            self._by_name[name] = self._by_name.pop(old)
            self.change(one.id, name=name)
            self.emit(one.event("rename", oldName=f"/{old}"))

    def remove(self, key: str) -> None:
        """Remove a container, whatever it is doing."""
        with self._lock:
            one = self.get(key)
            if one.pid:
                self.emit(one.event("kill", signal="9"))
                self.die(one.id, 137)
            del self._by_id[one.id], self._by_name[one.name]
            self._rows.pop(one.id, None)
            self.emit(one.event("destroy"))

    def change(self, key: str, **fields: object) -> None:
        """Change fields of a container without a word, as happens while dockerd is down."""
        with self._lock:
            one = self.get(key)
            for name, value in fields.items():
                setattr(one, name, value)
            self._rows.pop(one.id, None)

    def _become(self, key: str, status: str, action: str) -> None:
        with self._lock:
            one = self.get(key)
            self.change(one.id, status=status)
            self.emit(one.event(action))

    # ---- who hears of it

    def emit(self, event: Json) -> None:
        """Tell an event to all who listen."""
        with self._lock:
            self._past.append(event)
            for subscriber, wanted in self._subscribers.items():
                self._send(event, subscriber, wanted)

    def subscribe(
        self, wanted: Callable[[Json], bool], since: float | None = None
    ) -> "queue.SimpleQueue[Json | None]":
        """Listen to events, from a past moment on if given. None in the queue: the stream ends."""
        with self._lock:
            heard: queue.SimpleQueue[Json | None] = queue.SimpleQueue()
            if since is not None:
                for event in self.past(since):
                    self._send(event, heard, wanted)
            self._subscribers[heard] = wanted
            return heard

    def _send(
        self,
        event: Json,
        subscriber: "queue.SimpleQueue[Json | None]",
        wanted: Callable[[Json], bool],
    ) -> None:
        if wanted(event):
            self.sent += 1
            subscriber.put(event)

    def past(self, since: float) -> list[Json]:
        """List the events that are remembered, from a moment on."""
        with self._lock:
            return [event for event in self._past if event["timeNano"] >= since * 1e9]

    def forget_past(self) -> None:
        """Remember no event of before, as a dockerd that was started anew."""
        with self._lock:
            self._past.clear()

    def unsubscribe(self, heard: "queue.SimpleQueue[Json | None]") -> None:
        """Listen no more."""
        with self._lock:
            self._subscribers.pop(heard, None)

    def end_streams(self) -> None:
        """End every stream of events, as when dockerd goes."""
        with self._lock:
            for subscriber in self._subscribers:
                subscriber.put(None)
            self._subscribers.clear()


def _image_id(image: str) -> str:
    return f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"
