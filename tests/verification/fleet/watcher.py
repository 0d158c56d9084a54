"""The checker's own watch: brings every change of the store, in its order, past all proxies."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.verification.campaign.clock import boot
from tests.verification.fleet.keys import PREFIX
from tests.verification.fleet.records import Change

_READ_S = 5.0
Sink = Callable[[Change], None]


class Watcher:
    """Watches one epoch of the store in a thread of its own, until `stop`.

    Goes on at the next member where one ends or is silent. It asks for a sign of life, so that a
    member without a majority is not taken for one where nothing happens.
    """

    def __init__(self, ports: Sequence[int], epoch: int, first: int, sink: Sink) -> None:
        """`first`: the revision to begin with."""
        self._ports, self._epoch, self._sink = ports, epoch, sink
        self._next = first
        self._stopping = threading.Event()
        self._open: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    @property
    def revision(self) -> int:
        """Of the store, up to which everything has been seen."""
        return self._next - 1

    def stop(self) -> None:
        self._stopping.set()
        connection = self._open
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(2)
        self._thread.join(60)

    def drain(self, seconds: float) -> bool:
        """Wait until all is seen that the store has now; whether that came about."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            newest = self._read_revision()
            if newest is not None and self.revision >= newest:
                return True
            time.sleep(0.05)
        return False

    def _read_revision(self) -> int | None:
        """The newest revision that changed one of our keys, linearizable."""
        for port in self._ports:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                message = {**_range(), "limit": 1, "sort_target": "MOD", "sort_order": "DESCEND"}
                answer = ask(port, "/v3/kv/range", message)
                return int(answer["header"]["revision"])
        return None

    def _run(self) -> None:
        turn = 0
        while not self._stopping.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                self._watch(self._ports[turn % len(self._ports)])
            turn += 1
            self._stopping.wait(0.05)

    def _watch(self, port: int) -> None:
        create = {**_range(), "start_revision": str(self._next), "progress_notify": True}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_READ_S)
        self._open = connection
        with contextlib.closing(connection):
            headers = {"Grpc-Metadata-hasleader": "true"}
            connection.request("POST", "/v3/watch", json.dumps({"create_request": create}), headers)
            response = connection.getresponse()
            while line := response.readline():
                if self._stopping.is_set():
                    return
                result = json.loads(line).get("result")
                if result is None or result.get("canceled"):
                    return
                self._take(result)

    def _take(self, result: dict[str, Any]) -> None:
        seen = boot()
        for event in result.get("events", ()):
            row = event["kv"]
            is_deleted = event.get("type") == "DELETE"
            key = base64.b64decode(row["key"]).decode()
            value = None if is_deleted else _parse_value(row.get("value", ""))
            revision = int(row["mod_revision"])
            self._sink(
                Change(
                    epoch=self._epoch,
                    revision=revision,
                    key=key,
                    value=value,
                    version=int(row.get("version", 0)),
                    seen=seen,
                )
            )
            self._next = max(self._next, revision + 1)


def ask(port: int, path: str, message: dict[str, Any], timeout: float = _READ_S) -> dict[str, Any]:
    """One call of the gateway."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(message))
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer


def _parse_value(text: str) -> dict[str, Any]:
    try:
        value = json.loads(base64.b64decode(text))
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"malformed": text}


def read_everything(port: int) -> dict[str, dict[str, Any]]:
    """The values by key, linearizable. Raises OSError, ValueError."""
    rows = ask(port, "/v3/kv/range", _range()).get("kvs", ())
    return {_decode(row["key"]): _parse_value(row.get("value", "")) for row in rows}


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()


def _range() -> dict[str, Any]:
    end = PREFIX[:-1] + chr(ord(PREFIX[-1]) + 1)
    return {"key": encode(PREFIX), "range_end": encode(end)}


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
