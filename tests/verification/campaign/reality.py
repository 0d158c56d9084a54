"""What is, as the engine itself says it: every container at every moment, asked past the proxy.

A thread lists again and again, and inspects whatever changed. What happened between two lists is
not known, and not claimed: `before` and `after` give the last look that was over and the first
that had not begun. Knows nothing of books.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import docker
import docker.errors
import requests

from tests.verification.campaign.clock import boot
from tests.verification.campaign.ground import Ground

EVERY_S = 0.1
ALIVE = frozenset(("running", "paused", "restarting"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A container as it was seen. Moments on CLOCK_BOOTTIME, None where Docker has none.

    `devices`: the UUIDs of its request; None where that does not name devices, or where nobody can
    know which ones an index meant. `by_index`: it names indices. `booking`: the ID of the
    reservation that its label claims, "" for none.
    """

    id: str
    name: str
    state: str
    labelled: bool
    user: str
    devices: frozenset[str] | None
    by_index: bool
    booking: str
    created: float | None
    started: float | None
    finished: float | None

    @property
    def alive(self) -> bool:
        return self.state in ALIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """All containers, at some moment between `begun` and `done`."""

    begun: float
    done: float
    by_id: Mapping[str, Sight]

    def named(self, name: str) -> Sight | None:
        return next((one for one in self.by_id.values() if one.name == name), None)


class Reality:
    """The looks, oldest first; a context manager that looks while it is open."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._looks: list[Look] = []
        self._done: list[float] = []
        self._known: dict[tuple[str, str, str], Sight] = {}
        self._meant: dict[tuple[str, float | None], frozenset[str] | None] = {}
        self._layouts: list[tuple[float, Mapping[str, str]]] = [(0.0, ground.gpus.slots())]
        self._away = 0
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="reality", daemon=True)

    def __enter__(self) -> Reality:  # noqa: PYI034 - typing has no Self in Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(60)

    # --- questions

    @property
    def last(self) -> Look | None:
        return self._looks[-1] if self._looks else None

    def before(self, moment: float) -> Look | None:
        """The last look that was over by then."""
        with self._lock:
            at = bisect.bisect_right(self._done, moment)
            return self._looks[at - 1] if at else None

    def after(self, moment: float) -> Look | None:
        """The first look that began after it; None if there was none yet."""
        with self._lock:
            at = bisect.bisect_left(self._done, moment)
            return next((look for look in self._looks[at:] if look.begun >= moment), None)

    def since(self, moment: float) -> list[Look]:
        with self._lock:
            return self._looks[bisect.bisect_left(self._done, moment) :]

    def steady(self, uuid: str, begin: float, end: float) -> bool:
        """Whether a device was there all the time."""
        layouts = self._layouts
        for number, (at, slots) in enumerate(layouts):
            over = layouts[number + 1][0] if number + 1 < len(layouts) else float("inf")
            if at <= end and over >= begin and uuid not in slots.values():
                return False
        return True

    # --- looking

    def _watch(self) -> None:
        client: docker.APIClient | None = None
        while not self._closing.wait(EVERY_S):
            self._note_layout()
            self._ground.gpus.tidy()
            if not self._ground.engine_up.is_set():
                self._away += 1
                continue
            try:
                client = client or docker.APIClient(
                    base_url=self._ground.engine.url, version="auto", timeout=5
                )
                look = self._look(client)
            except (docker.errors.DockerException, requests.RequestException, OSError):
                client = None
                self._away += 1
                continue
            with self._lock:
                self._looks.append(look)
                self._done.append(look.done)

    def _note_layout(self) -> None:
        slots = self._ground.gpus.slots()
        if slots != self._layouts[-1][1]:
            self._layouts.append((boot(), slots))

    def _look(self, client: docker.APIClient) -> Look:
        if self._away:
            self._known.clear()
            self._away = 0
        begun = boot()
        found: dict[str, Sight] = {}
        for row in client.containers(all=True):
            name = next((one.lstrip("/") for one in row["Names"] if one.count("/") == 1), "")
            key = (row["Id"], name, row["State"])
            sight = self._known.get(key)
            if sight is None:
                try:
                    sight = self._inspect(client.inspect_container(row["Id"]))
                except docker.errors.NotFound:
                    continue
                if (sight.id, sight.name, sight.state) == key:
                    self._known[key] = sight
            found[sight.id] = sight
        for key in [key for key in self._known if key[0] not in found]:
            del self._known[key]
        for key in [key for key in self._known if found[key[0]] is not self._known[key]]:
            del self._known[key]  # it was in this state before, and may be again, but anew
        return Look(begun=begun, done=boot(), by_id=found)

    def _inspect(self, told: Mapping[str, Any]) -> Sight:
        state, labels = told["State"], told["Config"]["Labels"] or {}
        started = _moment(state["StartedAt"])
        return Sight(
            id=told["Id"],
            name=told["Name"].lstrip("/"),
            state=state["Status"],
            labelled="aime.mlc" in labels or "ds01.managed" in labels,
            user=labels.get("aime.mlc", ""),
            devices=self._devices(told, started),
            by_index=any(not one.startswith(("GPU-", "MIG-")) for one in _ids(told)),
            booking=labels.get("ds01.booking", ""),
            created=_moment(told["Created"]),
            started=started,
            finished=_moment(state["FinishedAt"]),
        )

    def _devices(self, told: Mapping[str, Any], started: float | None) -> frozenset[str] | None:
        ids = _ids(told)
        if not ids:
            return None
        if all(one.startswith(("GPU-", "MIG-")) for one in ids):
            return frozenset(ids)
        key = (told["Id"], started)
        if key not in self._meant:
            self._meant[key] = self._meaning(ids, started)
        return self._meant[key]

    def _meaning(self, ids: list[str], started: float | None) -> frozenset[str] | None:
        """What indices meant when it started, if the layout has not changed since."""
        at, slots = self._layouts[-1]
        if started is None or at > started - 1.0 or self._ground.gpus.slots() != slots:
            return None
        found = [slots.get(one.replace(":", ".")) for one in ids]
        return None if None in found else frozenset(uuid for uuid in found if uuid)


def _ids(told: Mapping[str, Any]) -> list[str]:
    requests_ = told["HostConfig"]["DeviceRequests"] or ()
    return [one for request in requests_ for one in request["DeviceIDs"] or ()]


def _moment(text: str) -> float | None:
    """Docker's time, put on CLOCK_BOOTTIME."""
    if text.startswith("0001"):
        return None
    whole, _, fraction = text.removesuffix("Z").partition(".")
    at = datetime.fromisoformat(f"{whole}+00:00").timestamp()
    return at + float(f"0.{fraction[:6] or 0}") - (time.time() - boot())
