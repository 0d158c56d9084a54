"""Carries out what users and writers do by the plan. What fails under a fault has failed."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import docker.errors
import requests

from tests.verification.campaign.foreign import Failed, NewAllocator, Notes, OldAllocator
from tests.verification.campaign.ground import Ground
from tests.verification.campaign.plan import UIDS, Step, user_of

ENGINE_BACK_S = 15.0


class Users:
    """All users. Each container's operations come one after the other."""

    def __init__(self, ground: Ground, notes: Notes, *, shim_for_all: bool = False) -> None:
        self._ground = ground
        self._old = OldAllocator(ground.site, notes)
        self._new = NewAllocator(ground.site, notes, ground.shim.env if shim_for_all else {})
        self._notes = notes
        self._turns: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def do(self, step: Step) -> None:
        """Do it. Raises `Failed`."""
        args: Mapping[str, Any] = step.args
        ways: Mapping[str, Callable[[Step], None]] = {
            "create": self._create,
            "create-mlc": self._create_mlc,
            "claim": self._claim,
            "book-only": self._book_only,
            "again": self._again,
            "rename": self._rename,
            "sprawl": self._sprawl,
            "legacy-release": lambda s: self._old.release(s.name, args["pause"]),
            "legacy-stopped": lambda s: self._old.mark_stopped(s.name),
            "legacy-touch": lambda _: self._old.touch(args["pause"]),
            "ours-release": lambda s: self._new.release(s.name),
            "ours-stopped": lambda s: self._new.mark_stopped(s.name),
        }
        with self._turns[step.name]:
            try:
                if step.what in ways:
                    ways[step.what](step)
                else:
                    self._simple(step)
            except (docker.errors.DockerException, requests.RequestException, OSError) as error:
                raise Failed(f"{type(error).__name__}: {error}"[:300]) from error

    # --- containers

    def _simple(self, step: Step) -> None:
        self._engine_is_up()
        client, name = self._ground.engine.client, step.name
        match step.what:
            case "start":
                client.start(name)
            case "stop":
                client.stop(name, timeout=0)
            case "pause":
                client.pause(name)
            case "unpause":
                client.unpause(name)
            case "remove":
                self._ground.engine.remove(name)
            case other:
                raise AssertionError(other)

    def _rename(self, step: Step) -> None:
        self._engine_is_up()
        to = str(step.args["to"])
        self._notes.rename(step.name, to)
        self._ground.engine.client.rename(step.name, to)

    def _sprawl(self, step: Step) -> None:
        """A process of it uses one device more, and that is booked for it.

        The process ends at the end of the storm, whatever becomes of the container before.
        """
        self._engine_is_up()
        ground = self._ground
        args: Mapping[str, Any] = step.args
        told = ground.engine.client.inspect_container(step.name)
        if not told["State"]["Running"]:
            raise Failed("it does not run")
        slots = ground.gpus.slots()
        uuid = slots[sorted(slots)[args["device"] % len(slots)]]
        stray = ground.strays.start(told["Id"], uuid, args["form"])
        ground.gpus.use(uuid, stray.process.pid)
        self._old.allocate(step.name, user_of(step.name), uuid, args["pause"])

    def _create(self, step: Step) -> None:
        slot, uuid = self._book(step)
        self._run(step, slot, uuid)

    def _create_mlc(self, step: Step) -> None:
        """Booked, run without labels, removed, a gap, made again with labels."""
        slot, uuid = self._book(step, anyhow=True)
        self._engine_is_up()
        engine = self._ground.engine
        first = engine.run(step.name, devices=uuid, command=("true",))
        with suppress(requests.RequestException):
            engine.client.wait(first, timeout=10)
        engine.client.remove_container(first, force=True)
        time.sleep(float(step.args["gap"]))  # type: ignore[arg-type]
        self._run(step, slot, uuid)

    def _claim(self, step: Step) -> None:
        """Slots are reserved under another name; a label makes them the container's."""
        args: Mapping[str, Any] = step.args
        held, count = f"held-{step.name}", 1 + args["device"] % 2
        booking, slots = self._new.reserve(held, args["user"], count)
        devices = self._ground.gpus.slots()
        if missing := set(slots) - devices.keys():
            raise Failed(f"{missing} have no device now")
        self._engine_is_up()
        self._notes.claim(held)
        self._notes.finishes(step.name)
        self._ground.engine.run(
            step.name,
            devices=[devices[slot] for slot in slots],
            labels={"ds01.managed": "true", "ds01.user": args["user"], "ds01.booking": booking},
            restart="always" if args["restarts"] else "no",
            start=args["start"],
        )

    def _book_only(self, step: Step) -> None:
        self._book(step, anyhow=True)

    def _again(self, step: Step) -> None:
        """Another container under the same name, on another device."""
        self._engine_is_up()
        with suppress(docker.errors.NotFound):
            self._ground.engine.remove(step.name)
        self._create(step)

    def _book(self, step: Step, *, anyhow: bool = False) -> tuple[str, str]:
        """Book as the plan says; the slot and the device for the container."""
        args: Mapping[str, Any] = step.args
        slots = self._ground.gpus.slots()
        slot = sorted(slots)[args["device"] % len(slots)]
        if args["attempt"]:
            self._old.attempt(step.name, args["user"], slot)
        if args["booking"] == "ours":
            slot = self._new.allocate(step.name, args["user"])
        elif args["booking"] == "legacy" or anyhow:
            slot = self._old.allocate(step.name, args["user"], slots[slot], args["pause"])
        if slot not in slots:
            raise Failed(f"slot {slot} has no device now")
        return slot, slots[slot]

    def _run(self, step: Step, slot: str, uuid: str) -> None:
        """Create the container that stays, and start it."""
        self._engine_is_up()
        args: Mapping[str, Any] = step.args
        asked = {
            "uuid": uuid,
            "index": slot.replace(".", ":"),
            "all": "all",
            "none": None,
        }[args["request"]]
        others = sorted(set(self._ground.gpus.slots().values()) - {uuid})
        claimed = others[args["device"] % len(others)] if args["lies"] and others else uuid
        others_user = next(user for user in UIDS if user != args["user"])
        engine = self._ground.engine
        self._notes.finishes(step.name)
        made = engine.run(
            step.name,
            devices=asked,
            labels={
                "aime.mlc": args["user"],
                "aime.mlc.USER": args["user"],
                "aime.mlc.NAME": step.name,
                "aime.mlc.GPUS": f"device={claimed}",
                "ds01.managed": "true",
                "ds01.gpu.uuid": claimed,
                "ds01.user": others_user if args["lies"] else args["user"],
            },
            restart="always" if args["restarts"] else "no",
            start=args["start"],
        )
        if args["start"] and asked == uuid and args["device"] % 3 == 0:
            pid = int(engine.client.inspect_container(made)["State"]["Pid"])
            if pid:
                self._ground.gpus.use(uuid, pid)

    def _engine_is_up(self) -> None:
        """A user waits until the docker command works again, for a while."""
        if not self._ground.engine_up.wait(ENGINE_BACK_S):
            raise Failed("dockerd is not there")
