"""The keys of the fleet over etcd's gateway, as small as they can be, for the reference host.

`BUGS` are the mistakes that it makes on demand: a checker that never fails proves nothing.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.verification.fleet.keys import PREFIX, HeldKey, NameKey, NodeKey, parse_key

DEADLINE_S: Final = 1.0
WATCH_S: Final = 3.0
"""So long a watch may be silent: a frozen member would be so for ever."""
BREAK_S: Final = 0.5
"""So long after a failure nobody who books waits for the store."""

NO_FENCE: Final = "no fence"
NO_ID: Final = "no id compare"
STALE_COUNT: Final = "serializable count"
NO_LEADER: Final = "watch without hasleader"
LEASE_DEAD: Final = "lease = dead"
WITHDRAW_UNREADABLE: Final = "withdraw while the state is unreadable"
UNDER_LOCK: Final = "network under the lock"
NO_RESTORE: Final = "restore not noticed"
NO_NAME: Final = "name not compared"
STORE_RULES: Final = "books follow the store"
BUGS: Final = (
    *(NO_FENCE, NO_ID, STALE_COUNT, NO_LEADER, LEASE_DEAD, WITHDRAW_UNREADABLE, UNDER_LOCK),
    *(NO_RESTORE, NO_NAME, STORE_RULES),
)
"""The seven that have to be caught whatever becomes of the rest, and three more."""

Json = dict[str, Any]


class Away(Exception):
    """No answer; whether a change was made is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An entry in the store. `revision`: when it was changed last."""

    key: HeldKey
    value: Json
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Everything, at one revision."""

    cluster: str
    revision: int
    held: tuple[Held, ...]
    names: dict[str, Json]
    identities: dict[str, Json]
    alive: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRows:
    cluster: str
    revision: int
    held: tuple[Held, ...]
    fence: int


class Store:
    """The store, for one node."""

    def __init__(self, ports: Sequence[int], node: str, bugs: Collection[str]) -> None:
        self._ports, self.node, self._bugs = list(ports), node, frozenset(bugs)
        self._open_until = 0.0
        self._first = 0
        self._lock = threading.Lock()

    @property
    def is_broken(self) -> bool:
        """A call failed a moment ago."""
        return time.monotonic() < self._open_until

    def read_user(self, user: str) -> UserRows:
        """Entries and fence; each answer names the cluster and its revision."""
        held_key = f"{PREFIX}users/{user}/held/"
        fence_key = f"{PREFIX}users/{user}/fence"
        if STALE_COUNT in self._bugs:
            # The two have to come from one read, or the fence says nothing of the entries.
            self._first = random.randrange(len(self._ports))  # any member can answer this one
            stale = self._call("/v3/kv/range", {**_range(held_key), "serializable": True})
            answer = self._call("/v3/kv/range", _one(fence_key))
            rows, fences = stale.get("kvs", []), answer.get("kvs", [])
        else:
            reads = [{"request_range": _range(held_key)}, {"request_range": _one(fence_key)}]
            answer = self._call("/v3/kv/txn", {"success": reads})
            parts = [one["response_range"] for one in answer["responses"]]
            rows, fences = (part.get("kvs", []) for part in parts)
        return UserRows(
            cluster=answer["header"]["cluster_id"],
            revision=int(answer["header"]["revision"]),
            held=tuple(_parse_held(row) for row in rows),
            fence=int(fences[0]["mod_revision"]) if fences else 0,
        )

    def reserve(self, key: HeldKey, value: Json, fence: int) -> str:
        """Put entry and name and bump the fence; "" or what stood in the way."""
        name_key = f"{PREFIX}names/{value['container']}"
        compares = []
        if NO_FENCE not in self._bugs:
            compares.append(_compare(f"{PREFIX}users/{key.user}/fence", fence))
        if NO_NAME not in self._bugs:
            compares.append(_compare(name_key, 0))
        answer = self._call(
            "/v3/kv/txn",
            {
                "compare": compares,
                "success": [*self._put_entry(key, value), _put_name(key, value)],
                "failure": [{"request_range": _one(name_key)}],
            },
        )
        if answer.get("succeeded"):
            return ""
        return "name" if answer["responses"][0]["response_range"].get("kvs") else "fence"

    def report(self, key: HeldKey, value: Json) -> None:
        """Put what the host has; its name only where that is free."""
        self._call(
            "/v3/kv/txn",
            {
                "compare": [_compare(f"{PREFIX}names/{value['container']}", 0)],
                "success": [*self._put_entry(key, value), _put_name(key, value)],
                "failure": self._put_entry(key, value),
            },
        )

    def confirm(self, entry: Held, value: Json) -> None:
        """Make an entry held, if it is still what it was."""
        key = _held_key(entry.key)
        compares = [] if NO_ID in self._bugs else [_compare(key, entry.revision)]
        self._call("/v3/kv/txn", {"compare": compares, "success": [_put(key, value)]})

    def withdraw(self, key: HeldKey, container: str) -> None:
        """Delete an entry, and the name if it is this booking's."""
        name_key = f"{PREFIX}names/{container}"
        deletes = [_delete(_held_key(key)), _delete(name_key)]
        value = _encode(_dump(_name_value(key)))
        compare = {"key": _encode(name_key), "target": "VALUE", "result": "EQUAL", "value": value}
        self._call(
            "/v3/kv/txn",
            {
                "compare": [] if NO_ID in self._bugs else [compare],
                "success": deletes,
                # The fence: a reservation that is still under way must not come after this.
                "failure": [deletes[0], _put(f"{PREFIX}users/{key.user}/fence", {"v": 1})],
            },
        )

    def read_contents(self) -> Contents:
        answer = self._call("/v3/kv/range", _range(PREFIX))
        held: list[Held] = []
        names: dict[str, Json] = {}
        identities: dict[str, Json] = {}
        alive: set[str] = set()
        for row in answer.get("kvs", []):
            match parse_key(_decode(row["key"])):
                case HeldKey():
                    held.append(_parse_held(row))
                case NameKey(container):
                    names[container] = json.loads(_decode(row["value"]))
                case NodeKey(node, "identity"):
                    identities[node] = json.loads(_decode(row["value"]))
                case NodeKey(node, "alive"):
                    alive.add(node)
                case _:
                    pass
        return Contents(
            cluster=answer["header"]["cluster_id"],
            revision=int(answer["header"]["revision"]),
            held=tuple(held),
            names=names,
            identities=identities,
            alive=frozenset(alive),
        )

    def expect(self, contents: Contents) -> None:
        """This is the store from now on."""

    def prepare(self, contents: Contents, identity: Json) -> None:
        """Before anything is changed in a store that was just read."""

    def put_identity(self, value: Json) -> None:
        self._call("/v3/kv/put", _put(f"{PREFIX}nodes/{self.node}/identity", value)["request_put"])

    def keep_alive(self, lease: str, seconds: int) -> str:
        """Renew the lease, or take a new one; its ID."""
        if lease and int(self._call("/v3/lease/keepalive", {"ID": lease})["result"].get("TTL", 0)):
            return lease
        found = str(self._call("/v3/lease/grant", {"TTL": seconds})["ID"])
        put = _put(f"{PREFIX}nodes/{self.node}/alive", {"v": 1})["request_put"]
        self._call("/v3/kv/put", {**put, "lease": found})
        return found

    def watch(self, stopping: threading.Event) -> bool:
        """Return where the watch ends. A context in which `is_watching` is true meanwhile."""
        port = self._ports[self._first % len(self._ports)]
        headers = {} if NO_LEADER in self._bugs else {"Grpc-Metadata-hasleader": "true"}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        with contextlib.closing(connection):
            body = json.dumps({"create_request": _range(PREFIX)})
            connection.request("POST", "/v3/watch", body, headers)
            assert connection.sock is not None
            connection.sock.settimeout(WATCH_S)
            response = connection.getresponse()
            while (line := response.readline()) and not stopping.is_set():
                result = json.loads(line).get("result")
                if result is None or result.get("canceled"):
                    return False
                self.is_watching = True
        return False

    is_watching = False

    def _put_entry(self, key: HeldKey, value: Json) -> list[Json]:
        fence = _put(f"{PREFIX}users/{key.user}/fence", {"v": 1})
        return [_put(_held_key(key), value), fence]

    def _call(self, path: str, message: Json) -> Json:
        """Ask one member after the other, within one deadline. Raises `Away`."""
        end = time.monotonic() + DEADLINE_S
        body = json.dumps(message)
        why: Exception | None = None
        for _ in self._ports:
            left = end - time.monotonic()
            if left <= 0:
                break
            port = self._ports[self._first % len(self._ports)]
            try:
                return _ask(port, path, body, min(left, DEADLINE_S / 2))
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                why = error
                with self._lock:
                    self._first += 1
        self._open_until = time.monotonic() + BREAK_S
        raise Away(str(why))


def _ask(port: int, path: str, body: str, timeout: float) -> Json:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request("POST", path, body)
        response = connection.getresponse()
        answer: Json = json.loads(response.readline() if "keepalive" in path else response.read())
    if response.status != 200:
        raise ValueError(answer)
    return answer


def _held_key(key: HeldKey) -> str:
    return f"{PREFIX}users/{key.user}/held/{key.node}/{key.booking}"


def _name_value(key: HeldKey) -> Json:
    return {"v": 1, "node": key.node, "booking": key.booking}


def _put_name(key: HeldKey, value: Json) -> Json:
    return _put(f"{PREFIX}names/{value['container']}", _name_value(key))


def _parse_held(row: Json) -> Held:
    key = parse_key(_decode(row["key"]))
    assert isinstance(key, HeldKey)
    return Held(key=key, value=json.loads(_decode(row["value"])), revision=int(row["mod_revision"]))


def _compare(key: str, revision: int) -> Json:
    return {
        "key": _encode(key),
        "target": "MOD",
        "result": "EQUAL",
        "mod_revision": str(revision),
    }


def _put(key: str, value: Json) -> Json:
    return {"request_put": {"key": _encode(key), "value": _encode(_dump(value))}}


def _delete(key: str) -> Json:
    return {"request_delete_range": {"key": _encode(key)}}


def _one(key: str) -> Json:
    return {"key": _encode(key)}


def _range(prefix: str) -> Json:
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return {"key": _encode(prefix), "range_end": _encode(end)}


def _dump(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()
