"""What a campaign does and when: a pure function of seed, length and mix. Executes nothing.

A campaign is a row of rounds. In each there is a storm, with operations of users and writers and
with faults; then everything is healed, and nobody does anything until the books are right. The plan
knows which containers there should be, from its own decisions alone; what becomes of an operation
under a fault changes no decision after it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

UIDS: Mapping[str, int] = {"alice": 1001, "bob": 1002, "henry": 1003, "hana": 1004}
USERS: Mapping[int, str] = {uid: user for user, uid in UIDS.items()}
HASTY = frozenset(("henry", "hana"))
"""Whose stopped containers keep their slots for a short while only; the others' for ever."""

HOURS_S = tuple(hours * 3600 for hours in (-13, -5, -2, -1, 1, 2, 3, 7, 12))
SICK = (999, 4, 6, 8, 10, 19, 27, 28, 15, 16)
"""What a single GPU may answer, by NVML's code; 0 for none: all are well again."""

ZONES = ("UTC", "Asia/Tokyo", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Kiritimati")


def user_of(name: str) -> str:
    """Whose container it is by the uid at the end of its name, "" for a name without one."""
    uid = name.rpartition("._.")[2]
    return USERS.get(int(uid), "") if uid.isdecimal() else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do, `at` seconds after its storm began. `args`: whatever it needs to know."""

    at: float
    what: str
    name: str = ""
    fault: bool = False
    args: Mapping[str, object] = field(default_factory=dict)

    def line(self) -> str:
        """The step as a line of JSON."""
        told = {"at": self.at, "what": self.what, "name": self.name, **self.args}
        return json.dumps(told | {"fault": self.fault})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How often what is done, in words of a few letters; see `OPERATIONS` and `FAULTS`.

    `storm_s`: how long a storm lasts; `rate`, `fault_rate`: operations and faults a second; `most`:
    containers at a time. `bookings`: by whom containers are booked; `lies`: how many of them have
    labels that name another device and another user. `forms`: of some faults only these;
    `for_s`: how long; `old_s`: how old an old list is.
    """

    operations: Mapping[str, int]
    faults: Mapping[str, int]
    storm_s: float = 18.0
    round_s: float = 30.0
    rate: float = 4.2
    fault_rate: float = 0.62
    most: int = 28
    users: Sequence[str] = ("alice", "bob", "henry", "hana")
    bookings: Sequence[str] = ("legacy", "legacy", "legacy", "ours", "none")
    lies: float = 0.15
    forms: Mapping[str, Sequence[object]] = field(default_factory=dict)
    for_s: Sequence[float] = (0.4, 1.0, 2.0, 3.0)
    old_s: tuple[float, float] = (0.5, 9.0)


OPERATIONS: Mapping[str, int] = {
    "create": 16,
    "create-mlc": 10,
    "claim": 6,
    "book-only": 4,
    "again": 8,
    "start": 8,
    "stop": 10,
    "pause": 6,
    "unpause": 6,
    "rename": 6,
    "remove": 12,
    "legacy-release": 3,
    "legacy-stopped": 4,
    "legacy-touch": 8,
    "ours-release": 2,
    "ours-stopped": 2,
    "sprawl": 10,
}

FAULTS: Mapping[str, int] = {
    "docker-kill": 3,
    "docker-crash": 2,
    "docker-stop": 4,
    "docker-restart": 2,
    "docker-answers": 10,
    "docker-refuses": 3,
    "docker-cut": 3,
    "docker-old-list": 6,
    "events": 8,
    "nvml": 8,
    "mig": 6,
    "kill": 10,
    "restart": 2,
    "freeze": 3,
    "reload": 2,
    "state": 7,
    "metadata": 6,
    "own": 5,
    "limits": 3,
    "disk-full": 4,
    "disk-read-only": 4,
    "disk-slow": 4,
    "clock": 6,
    "zone": 3,
    "descriptors": 3,
    "logs-gone": 2,
    "pids": 5,
    "sick": 4,
    "idle-cut": 3,
    "hostile-link": 4,
    "hostile-lock": 4,
    "hostile-owner": 3,
}

FORMS: Mapping[str, Sequence[object]] = {
    "docker-answers": (
        *("DELAY", "RESET", "ERROR", "ERROR", "GARBAGE", "NONSENSE", "HALF", "HALF"),
        "HANG",
    ),
    "events": ("drop", "drop", "double", "swap", "delay"),
    "nvml": (1, 9, 12, 18, 999, 15, 16, "hang", "empty", "slow", "no GPU", "blind"),
    "mig": ("renumber", "renumber", "recreate", "lose one", "lose a GPU", "reorder"),
    "state": ("tear", "tear", "empty", "garble", "go back", "forbid", "folder", "remove"),
    "metadata": ("tear", "empty", "garble", "forbid", "folder", "remove"),
    "own": ("tear memory", "empty memory", "tear history", "remove status", "tear cache"),
    "limits": ("remove", "garble", "empty"),
    "disk-full": ("lib", "own", "log"),
    "disk-read-only": ("lib", "own", "log"),
    "disk-slow": ("sync", "rename", "both"),
    "clock": HOURS_S,
    "zone": ZONES,
    "sick": (*SICK, *SICK, 0),
    "idle-cut": (0.7, 1.5, 3.0, 0.0),
    "hostile-link": ("outside", "outside", "own"),
    "hostile-lock": ("held", "held", "folder", "fifo", "link"),
}
"""The forms of those faults that have several."""

WHERE = ("/containers/json", r"/containers/\w+", "/info", "/events", "/", "/")

EVERYTHING = Mix(operations=OPERATIONS, faults=FAULTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All rounds, each with its steps in the order of their moments."""

    seed: int
    rounds: tuple[tuple[Step, ...], ...]

    @property
    def digest(self) -> str:
        """The same for the same decisions."""
        text = "\n".join(step.line() for steps in self.rounds for step in steps)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def count(self, *, fault: bool) -> int:
        return sum(step.fault is fault for steps in self.rounds for step in steps)


def make(seed: int, minutes: float, mix: Mix = EVERYTHING) -> Plan:
    """Draw a plan. Nothing but the arguments decides."""
    rounds = max(1, round(minutes * 60 / mix.round_s))
    users = _Users(random.Random(f"operations {seed}"), mix)  # its own: faults shift no operation
    trouble = _Trouble(random.Random(f"faults {seed}"), mix)
    drawn = []
    for _ in range(rounds):
        steps = [*users.storm(), *trouble.storm()]
        drawn.append(tuple(sorted(steps, key=lambda step: (step.at, step.what))))
    return Plan(seed=seed, rounds=tuple(drawn))


@dataclass(slots=True)
class _Container:
    name: str
    user: str
    state: str
    busy_until: float = 0.0


class _Users:
    """Random users, with a picture of what their containers should be like."""

    def __init__(self, chance: random.Random, mix: Mix) -> None:
        self._chance = chance
        self._mix = mix
        self._number = 0
        self._there: list[_Container] = []

    def storm(self) -> Iterator[Step]:
        count = round(self._mix.storm_s * self._mix.rate)
        moments = sorted(self._chance.uniform(0, self._mix.storm_s) for _ in range(count))
        for one in self._there:
            one.busy_until = 0.0
        for at in moments:
            yield self._step(round(at, 3))

    def _step(self, at: float) -> Step:
        words = [word for word, weight in self._mix.operations.items() for _ in range(weight)]
        while True:
            step = self._try(self._chance.choice(words), at)
            if step is not None:
                return step

    def _try(self, what: str, at: float) -> Step | None:
        """A step of this kind, None where nothing is there to do it to."""
        many = len(self._there) >= self._mix.most
        if what in {"create", "create-mlc", "claim", "book-only"}:
            return None if many else self._create(what, at)
        states = {
            "start": ("stopped", "created"),
            "stop": ("running",),
            "pause": ("running",),
            "unpause": ("paused",),
            "sprawl": ("running",),
            "remove": ("running", "stopped", "paused", "created"),
            "rename": ("running", "stopped", "paused"),
            "again": ("running", "stopped"),
            "legacy-stopped": ("stopped",),
            "ours-stopped": ("stopped",),
        }
        fitting = [
            one
            for one in self._there
            if one.state in states.get(what, (one.state,)) and one.busy_until <= at
        ]
        if not fitting:
            return None
        return self._change(what, self._chance.choice(fitting), at)

    def _create(self, what: str, at: float) -> Step:
        self._number += 1
        user = self._chance.choice(tuple(self._mix.users))
        name = f"c{self._number}._.{UIDS[user]}"
        step = Step(at=at, what=what, name=name, args=self._how(user))
        if what != "book-only":
            state = "running" if step.args["start"] else "created"
            made = {"create-mlc": 4.0, "claim": 2.0}.get(what, 1.0)
            self._there.append(_Container(name, user, state, at + made))
        return step

    def _how(self, user: str) -> Mapping[str, object]:
        """How a container is booked and created."""
        chance = self._chance
        return {
            "user": user,
            "booking": chance.choice(self._mix.bookings),
            "device": chance.randrange(1000),
            "request": chance.choice(("uuid",) * 8 + ("index", "all", "none")),
            "lies": chance.random() < self._mix.lies,
            "start": chance.random() < 0.85,
            "restarts": chance.random() < 0.4,
            "attempt": chance.random() < 0.4,
            "gap": round(chance.choice((0.05, 0.3, 1.0, 2.5)) * chance.uniform(0.8, 1.2), 3),
            "pause": round(chance.choice((0.0, 0.0, 0.02, 0.1, 0.4)), 3),
        }

    def _change(self, what: str, one: _Container, at: float) -> Step:
        chance = self._chance
        args: dict[str, object] = {"pause": round(chance.choice((0.0, 0.02, 0.1, 0.4)), 3)}
        name = one.name
        one.busy_until = at + 0.5
        if what == "sprawl":
            args |= {"device": chance.randrange(1000), "form": chance.randrange(1000)}
        elif what == "rename":
            self._number += 1
            one.name = f"r{self._number}._.{UIDS[one.user]}"
            args["to"] = one.name
        elif what == "remove":
            self._there.remove(one)
        elif what == "again":
            args |= self._how(one.user)
            one.state = "running" if args["start"] else "created"
        else:
            after = {"start": "running", "stop": "stopped", "pause": "paused", "unpause": "running"}
            one.state = after.get(what, one.state)
        return Step(at=at, what=what, name=name, args=args)


class _Trouble:
    """Random faults: several at a time, but never two of the same thing."""

    def __init__(self, chance: random.Random, mix: Mix) -> None:
        self._chance = chance
        self._mix = mix
        self._serial = 0

    def storm(self) -> Iterator[Step]:
        if not self._mix.faults:
            return
        words = [word for word, weight in self._mix.faults.items() for _ in range(weight)]
        count = round(self._mix.storm_s * self._mix.fault_rate)
        for at in sorted(self._chance.uniform(0, self._mix.storm_s - 1.0) for _ in range(count)):
            what = self._chance.choice(words)
            self._serial += 1
            step = Step(at=round(at, 3), what=what, fault=True, args=self._how(what))
            yield replace(step, args={**step.args, "serial": self._serial})

    def _how(self, what: str) -> Mapping[str, object]:
        """How long it lasts, and which of its forms it takes."""
        chance = self._chance
        for_s = round(chance.choice(self._mix.for_s) * chance.uniform(0.8, 1.2), 3)
        args: dict[str, object] = {"for": for_s, "draw": chance.randrange(1 << 30)}
        forms: dict[str, Sequence[object]] = {**FORMS, **self._mix.forms}
        if what in forms:
            args["form"] = chance.choice(forms[what])
        if what == "docker-answers":
            args["where"] = chance.choice(WHERE)
        if what == "docker-old-list":
            youngest, oldest = self._mix.old_s
            args["age"] = round(chance.uniform(youngest, oldest), 2)
            args["for"] = round(chance.uniform(1.0, 6.0), 2)
        return args
