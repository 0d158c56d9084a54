"""The campaign with Docker as the books: `make soak ARGS='--books docker'`.

Users book over the socket, run, stop, start and remove containers, by hand too, while Docker's
answers are spoilt, NVML fails, GPUs are renumbered and ds01d is killed. The oracle keeps from when
to when each container certainly lived, and with which device; it shares no code with what decides.
Containers request devices in many forms, under labels that may name somebody else (`docker_forms`):
some hold nothing whatever they ask for, some nothing once they have stopped.

False grants: a slot was handed out that somebody had from before the question until after the
answer. Lost reservations: granted, and not in the file right after the answer. False refusals: who
has nothing was told to be at the limit. Lasting drift: when all is well again, the status does not
come to say what is. Each has to be 0.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import docker.errors

from simulation import nvml
from simulation.fake_engine import FakeEngine
from simulation.proxy import Mode, Proxy
from tests.support.callers import Caller
from tests.support.daemon import RunningDaemon, Site
from tests.verification.campaign.docker_forms import (
    STRANGER,
    Form,
    choose_empty_form,
    choose_form,
)

WORLD = nvml.full(3)  # fewer than there are users
GRACE_S, CALM_S = 4.0, 30.0
ROUND_S = 12.0
# Logins of every Debian: whom a name means has to be known. HASTY's containers hold for a second.
USERS = {"daemon": 1, "bin": 2, "sys": 3}
HASTY = "sys"
STRANGER_UID = 5
LIMITS = f"""\
defaults: {{gpu_hold_after_stop_h: null, max_gpu_equivalents: 50, max_gpu_slots_per_container: 9,
  allow_full_gpu: true}}
default_group: student
groups:
  student: {{members: [daemon, bin]}}
  hasty: {{members: [{HASTY}], gpu_hold_after_stop_h: 0.0003}}
  strict: {{members: [{STRANGER}], max_gpu_equivalents: 1}}
"""
UNKNOWN_ERROR = 999
BY_SCRIPT = "reservation of a script"
NEVER = float("inf")


@dataclass
class Life:
    """A container or a reservation: certainly `device` is its own from `since` to `until`."""

    name: str
    what: str
    device: str
    since: float
    until: float = NEVER


@dataclass
class Lab:
    """The host, and what happened on it."""

    folder: Path
    engine: FakeEngine
    proxy: Proxy
    site: Site
    world: Path
    socket: Path
    lives: list[Life] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    uuids: dict[str, str] = field(default_factory=dict)
    shown: nvml.World = WORLD
    processes: dict[int, str] = field(default_factory=dict)
    hasty: set[str] = field(default_factory=set)

    def show(self, world: nvml.World) -> None:
        """Put a world in force, with the processes that there are."""
        with self.lock:
            self.shown = world
            self._write()

    def compute(self, pid: int, device: str | None) -> None:
        """A process uses a device from now on; None: none any more."""
        with self.lock:
            self.processes.pop(pid, None)
            if device is not None:
                self.processes[pid] = device
            self._write()

    def _write(self) -> None:
        world, slots = self.shown, {uuid: slot for slot, uuid in self.shown.slots().items()}
        for pid, device in self.processes.items():
            world = world.with_process(slots[device], pid)
        world.write(self.world)

    def violate(self, kind: str, what: str) -> None:
        with self.lock:
            self.counts[kind] += 1
            self.violations.append(f"{kind}: {what}")

    def begin(self, name: str, what: str, device: str) -> Life:
        life = Life(name=name, what=what, device=device, since=time.monotonic())
        with self.lock:
            self.lives.append(life)
        return life

    def judge(self, name: str, device: str, asked: float, answered: float) -> None:
        """Nobody else had the device from before the question until after the answer."""
        with self.lock:
            owners = [
                f"{life.name} ({life.what}, for {asked - life.since:.2f} s,"
                f" for {life.until - answered:.2f} s more)"
                for life in self.lives
                if life.device == device
                and life.name != name
                and life.since < asked
                and life.until > answered
            ]
        if owners:
            self.violate("false grants", f"{name} got {device} of {owners}")


def call(path: Path, method: str, **parameters: object) -> dict[str, Any]:
    """Call the booking service; {} where nobody answers."""
    request = {"method": f"io.github.ds01.Booking.{method}", "parameters": parameters}
    reply = b""
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(60)
        peer.connect(str(path))
        peer.sendall(json.dumps(request).encode() + b"\0")
        while not reply.endswith(b"\0") and (data := peer.recv(1 << 16)):
            reply += data
        answer: dict[str, Any] = json.loads(reply.rstrip(b"\0") or b"{}")
        return answer
    return {}


class User(threading.Thread):
    """Books, runs, stops, starts and removes, one container after the other."""

    def __init__(self, lab: Lab, seed: int, ends: float) -> None:
        super().__init__(daemon=True)
        self._lab, self._random, self._ends = lab, random.Random(seed), ends
        self._number = seed * 1000
        self._client = docker.APIClient(base_url=lab.engine.url, version="1.41", timeout=60)

    def run(self) -> None:
        while time.monotonic() < self._ends:
            self._number += 1
            user = self._random.choice([*USERS])
            name = f"job{self._number}._.{USERS[user]}"
            acts = (
                *[self._book_and_run] * 5,
                *[self._ask_by_script] * 2,
                self._run_by_hand,
                self._run_empty,
                self._compute,
            )
            act = self._random.choice(acts)
            with suppress(docker.errors.APIError):
                act(user, name)
            time.sleep(self._random.uniform(0.0, 0.3))

    def _book_and_run(self, user: str, name: str) -> None:
        lab, asked = self._lab, time.monotonic()
        count = self._random.choice((1, 1, 1, 2, 3))
        reply = call(lab.socket, "Allocate", container=name, user=user, most=99, count=count)
        answered = time.monotonic()
        if "booking" not in reply.get("parameters", {}):
            refused = str(reply.get("error", "")).endswith(".Refused")
            lab.counts["refused" if refused else "refused by a fault"] += 1
            return
        lab.counts["granted"] += 1
        devices = [slot["device"] for slot in reply["parameters"]["booking"]["slots"]]
        for device in devices:
            lab.judge(name, device, asked, answered)
        if name not in reserved(lab.site):
            lab.violate("lost reservations", f"{name} on {devices}")
        reservations = [lab.begin(name, "reservation", device) for device in devices]
        # Their end is counted from the grant at the earliest.
        _end(reservations, asked + GRACE_S)
        what = self._random.random()
        if what < 0.15:  # nobody comes
            return
        if what < 0.3:
            _end(reservations, time.monotonic())
            call(lab.socket, "Release", container=name)
            return
        form = choose_form(self._random, user, *devices)
        self._live(name, user, form, reservations)

    def _ask_by_script(self, user: str, name: str) -> None:
        """Reserved as long as the script lives, which makes a container of any name, or dies."""
        lab, asked = self._lab, time.monotonic()
        caller = Caller(lab.folder, lab.socket, user)
        try:
            if (booking := caller.booking) is None:
                return
            device, reserved_name = booking["device"], booking["container"]
            lab.judge(name, device, asked, time.monotonic())
            lab.counts["granted to a script"] += 1
            if reserved_name not in reserved(lab.site):
                lab.violate("lost reservations", f"{reserved_name} on {device}")
            reservation = lab.begin(name, BY_SCRIPT, device)
            time.sleep(self._random.uniform(0.0, 2 * GRACE_S))
            if self._random.random() < 0.4:
                reservation.until = time.monotonic()
                return
            form = choose_form(self._random, user, device)
            self._live(name.partition("._.")[0], user, form, [reservation])
        finally:
            caller.end(kill=self._random.random() < 0.5)

    def _run_by_hand(self, user: str, name: str) -> None:
        """On some devices, whoever has them: whose it is does not matter to the oracle."""
        uuids = [*self._lab.uuids.values()]
        devices = self._random.sample(uuids, self._random.choice((1, 1, 2)))
        plain = f"by-hand-{name.partition('._.')[0]}"
        name = self._random.choice((name, plain))
        self._live(name, user, choose_form(self._random, user, *devices), [])

    def _run_empty(self, user: str, name: str) -> None:
        """A container that holds nothing."""
        device = self._random.choice([*self._lab.uuids.values()])
        form = choose_empty_form(self._random, user, device)
        self._live(name.partition("._.")[0], user, form, [])

    def _compute(self, user: str, name: str) -> None:
        """A process of nobody who is known uses a device: that counts, whatever is booked."""
        del user
        lab, device = self._lab, self._random.choice([*self._lab.uuids.values()])
        with subprocess.Popen(["/bin/sleep", "60"]) as process:
            lab.compute(process.pid, device)
            life = lab.begin(name, "process", device)
            time.sleep(self._random.uniform(0.2, 1.0))
            life.until = time.monotonic()
            lab.compute(process.pid, None)
            process.kill()
        lab.counts["processes"] += 1

    def _live(self, name: str, user: str, form: Form, reservations: list[Life]) -> None:
        lab = self._lab
        config = {
            "Image": "image",
            "Cmd": ["sleep"],
            "Env": [*form.env],
            "Labels": {**form.labels},
            "HostConfig": {"NetworkMode": "none", **form.host},
        }
        if user == HASTY:
            lab.hasty.add(name)
        # Whoever has the device by then may have been given what a script reserved.
        _end([life for life in lab.lives if _is_by_script(life, form.devices)], time.monotonic())
        made = self._client.create_container_from_config(config, name)  # type: ignore[no-untyped-call]
        self._client.start(made["Id"])
        lives = [lab.begin(name, "container", device) for device in form.devices]
        _end(reservations, time.monotonic())
        lab.counts["containers" if lives else "containers that hold nothing"] += 1
        time.sleep(self._random.uniform(0.2, 2.0))
        if self._random.random() < 0.5:
            if user == HASTY or form.ends_by_stop:  # all others hold it until they are removed
                _end(lives, time.monotonic())
            self._client.stop(made["Id"], timeout=0)
            time.sleep(self._random.uniform(0.0, 2.0))
        if time.monotonic() > self._ends:
            return  # what is left shows whether the status says what is
        _end(lives, time.monotonic())
        self._client.remove_container(made["Id"], force=True)


def _is_by_script(life: Life, devices: Collection[str]) -> bool:
    return life.what == BY_SCRIPT and life.device in devices


def _end(lives: list[Life], at: float) -> None:
    for life in lives:
        life.until = min(life.until, at)


class Stranger(threading.Thread):
    """Has nothing, whatever others write on their containers, and may have one slot."""

    def __init__(self, lab: Lab, seed: int, ends: float) -> None:
        super().__init__(daemon=True)
        self._lab, self._number, self._ends = lab, seed * 1000, ends

    def run(self) -> None:
        lab = self._lab
        while time.monotonic() < self._ends:
            self._number += 1
            name = f"own{self._number}._.{STRANGER_UID}"
            asked = time.monotonic()
            reply = call(lab.socket, "Allocate", container=name, user=STRANGER)
            answered = time.monotonic()
            parameters = reply.get("parameters", {})
            if parameters.get("code") == "USER_AT_LIMIT":
                lab.violate("false refusals", f"{parameters}")
            if "booking" in parameters:
                device = parameters["booking"]["device"]
                lab.judge(name, device, asked, answered)
                lab.counts["granted to the stranger"] += 1
                # What a fault keeps from being released ends by itself.
                if call(lab.socket, "Release", container=name).get("error", "no reply"):
                    self._wait_gone(name)
            time.sleep(0.2)

    def _wait_gone(self, name: str) -> None:
        """Until neither the file nor what ds01d published has it."""
        while time.monotonic() < self._ends and (
            name in reserved(self._lab.site)
            or any(name == holder for holder, _ in holders(self._lab.site))
        ):
            time.sleep(0.1)


class Trouble(threading.Thread):
    """Faults, one after the other, until `ends`; each is over before the next."""

    def __init__(self, lab: Lab, daemon: RunningDaemon, seed: int, ends: float) -> None:
        super().__init__(daemon=True)
        self._lab, self._daemon, self._ends = lab, daemon, ends
        self._random = random.Random(seed)

    def run(self) -> None:
        faults: tuple[Callable[[], None], ...] = (
            *(self._spoil, self._refuse, self._cut, self._fail_nvml, self._hang_nvml),
            *(self._fail_one_gpu, self._renumber, self._kill, self._stand_still),
        )
        while time.monotonic() < self._ends:
            fault = self._random.choice(faults)
            self._lab.counts["faults"] += 1
            fault()
            self.heal()
            time.sleep(self._random.uniform(0.1, 1.0))

    def heal(self) -> None:
        self._lab.proxy.clear()
        self._lab.proxy.accept()
        self._lab.show(WORLD)

    def _wait(self) -> None:
        time.sleep(self._random.uniform(0.2, 1.5))

    def _spoil(self) -> None:
        modes = (Mode.RESET, Mode.ERROR, Mode.GARBAGE, Mode.NONSENSE, Mode.HALF, Mode.HANG)
        path = self._random.choice(("/containers/json", "/json", "/events", "/info"))
        self._lab.proxy.fault(path, self._random.choice(modes))
        self._wait()

    def _refuse(self) -> None:
        self._lab.proxy.refuse()
        self._wait()

    def _cut(self) -> None:
        self._lab.proxy.cut()

    def _fail_nvml(self) -> None:
        self._lab.show(WORLD.with_fault("*", UNKNOWN_ERROR))
        self._wait()

    def _hang_nvml(self) -> None:
        self._lab.show(WORLD.with_fault("nvmlDeviceGetCount", hang=True))
        self._wait()

    def _fail_one_gpu(self) -> None:
        self._lab.show(WORLD.with_fault("*", UNKNOWN_ERROR, gpu=self._random.randrange(3)))
        self._wait()

    def _renumber(self) -> None:
        self._lab.show(WORLD.renumbered((1, 2, 0)))
        self._wait()

    def _kill(self) -> None:
        self._daemon.kill()
        time.sleep(self._random.uniform(0.0, 1.0))
        self._daemon.start()

    def _stand_still(self) -> None:
        os.kill(self._daemon.pid, signal.SIGSTOP)
        self._wait()
        os.kill(self._daemon.pid, signal.SIGCONT)


def reserved(site: Site) -> set[str]:
    """Who is in the file of reservations; read by code of its own."""
    path = site.state_dir / "reservations.json"
    if not path.exists():
        return set()
    slots = json.loads(path.read_bytes())["gpus"].values()
    return {name for slot in slots for name in slot["containers"]}


def holders(site: Site) -> set[tuple[str, str]]:
    slots = site.status().get("slots", ())
    return {(holder["container"], slot["uuid"]) for slot in slots for holder in slot["holders"]}


def calm_down(lab: Lab) -> float:
    """How long it takes until the status says what is, and nothing is left to do."""
    client = docker.APIClient(base_url=lab.engine.url, version="1.41", timeout=60)
    for row in client.containers(all=True):
        if row["Names"][0].removeprefix("/") in lab.hasty:  # its hold may end at any moment
            client.remove_container(row["Id"], force=True)
    began = time.monotonic()
    found: object = None
    there: set[tuple[str, str]] = set()
    while time.monotonic() < began + CALM_S:
        names = {row["Names"][0].removeprefix("/") for row in client.containers(all=True)}
        there = {
            (life.name, life.device)
            for life in lab.lives
            if life.until == NEVER and life.name in names
        }
        status = lab.site.status()
        found = there ^ holders(lab.site), reserved(lab.site), status.get("open_drifts")
        if found == (set(), set(), []) and not status["passes"]["failing_since"]:
            lab.counts["left to see"] += len(there)
            _remove_all(lab, client)
            return time.monotonic() - began
        time.sleep(0.1)
    lab.violate("lasting drift", f"{found}; {_describe_odd(lab, client, there)}")
    _remove_all(lab, client)
    return CALM_S


def _describe_odd(lab: Lab, client: docker.APIClient, there: set[tuple[str, str]]) -> list[str]:
    """Of what should be otherwise: the container, its lives, and what the history has of it."""
    lines = []
    for name, device in there ^ holders(lab.site):
        lines.append(f"{'missing' if (name, device) in there else 'too much'}: {name} {device}")
        lines += [repr(life) for life in lab.lives if life.name == name]
        with suppress(docker.errors.APIError):
            seen = client.inspect_container(name)
            lines.append(str((seen["State"], seen["Config"]["Labels"], seen["HostConfig"])))
        history = lab.site.state_dir / "history.jsonl"
        if history.exists():
            lines += [line for line in history.read_text().splitlines()[-400:] if name in line]
        lines.append(lab.site.ctl("explain", name).stdout)
    return lines


def _remove_all(lab: Lab, client: docker.APIClient) -> None:
    for life in lab.lives:
        life.until = min(life.until, time.monotonic())
    for row in client.containers(all=True):
        client.remove_container(row["Id"], force=True)


@contextmanager
def open_lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ds01-docker-")))
        engine = stack.enter_context(FakeEngine(folder / "docker.sock"))
        proxy = stack.enter_context(Proxy(folder / "proxy.sock", engine.socket))
        world = folder / "nvml-world"
        WORLD.write(world)
        service = folder / "booking.sock"
        site = Site(
            folder / "site",
            proxy.url,
            books=None,
            env=os.environ | nvml.env(nvml.build(), world),
            gpu={"source": "nvml", "timeout": "600ms"},
            service={"socket": str(service)},
            policy={"creation_grace": f"{GRACE_S:g}s"},
            allocator={"sharing": "never"},
        )
        site.configure(books={"kind": "docker"})
        site.limits.write_text(LIMITS, encoding="utf-8")
        lab = Lab(folder, engine, proxy, site, world, service)
        lab.uuids = WORLD.slots()
        yield lab


def main(seed: int, minutes: float) -> int:
    ends = time.monotonic() + 60 * minutes
    with open_lab() as lab, RunningDaemon(lab.site) as daemon:
        number, longest = 0, 0.0
        while time.monotonic() < ends:
            number += 1
            over = time.monotonic() + ROUND_S
            users = [User(lab, seed + 100 * number + one, over) for one in range(6)]
            trouble = Trouble(lab, daemon, seed + number, over)
            threads = (*users, Stranger(lab, seed + number, over), trouble)
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
            trouble.heal()
            if not daemon.running:
                lab.violate("deaths", "ds01d ended by itself")
                break
            longest = max(longest, calm_down(lab))
        bugs = [e for e in daemon.entries if "internal error" in str(e) or "Traceback" in str(e)]
        for entry in bugs[:5]:
            lab.violate("errors in the log", str(entry)[:500])
    sys.stdout.write(f"seed {seed}, {number} rounds, right after {longest:.1f} s at most\n")
    must = (
        *("false grants", "lost reservations", "false refusals", "lasting drift", "deaths"),
        "errors in the log",
    )
    for kind in must:
        sys.stdout.write(f"{kind:<22}{lab.counts[kind]:>8}\n")
    for kind in sorted(lab.counts.keys() - set(must)):
        sys.stdout.write(f"  {kind:<20}{lab.counts[kind]:>8}\n")
    sys.stdout.write("".join(f"{one}\n" for one in lab.violations[:40]))
    return 1 if lab.violations else 0
