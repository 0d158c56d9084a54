"""A host in memory with its accounting in a real file, and all that may happen to both."""

from __future__ import annotations

import sqlite3
import weakref
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ds01d.adapters.accounting_database import NAME
from ds01d.adapters.accounting_file import AccountingFile
from ds01d.config import AllocatorConfig, BooksConfig
from ds01d.daemon.accounting import Accounting, AccountingParts
from ds01d.decide.history_outcomes import join_entries
from ds01d.errors import Ds01Error
from ds01d.model.books import Record
from ds01d.model.containers import State
from ds01d.model.primitives import ContainerName, UserName, Wall
from ds01d.model.reservation import BOOKING_LABEL
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.booking_history import BookingHistory
from ds01d.reconcile.history import read_entries
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.undo import Undoer
from tests.support.accounting_replay import Booked, Clocks, replay
from tests.support.build import LIMITS, Life, config

NAMES = ("train._.1001", "eval._.1001", "infer._.1002", "tune._.1002")
USERS = {1001: "alice", 1002: "bob"}


class Accounted:
    """A host that ds01d repairs, and its accounting in a real file."""

    def __init__(self, folder: Path) -> None:
        writer = BooksConfig(writers="service")
        self.config = msgspec.structs.replace(
            config(), books=writer, allocator=AllocatorConfig(sharing="never")
        )
        self.life = Life(self.config, limits=replace(LIMITS, default_quota=None))
        self.life.host.passwd |= USERS
        self.folder = folder
        self.seen: list[Clocks] = []
        self.real_s = 0.0
        self._store = self._open_store()
        self.restart()

    def _open_store(self) -> AccountingFile:
        store = AccountingFile(self.folder, keep_days=1000)
        weakref.finalize(self, store.close)  # Python 3.13 warns of what is only dropped
        return store

    def restart(self) -> None:
        self._store.close()
        store = self._store = self._open_store()
        parts = AccountingParts(store=store, find_record_user=self.find_user)
        self.accounting = Accounting(parts, self.life.host.world().state_dir, self.config)

    def find_user(self, text: str) -> UserName | None:
        record = self.life.host.records_told.get(text)
        return record.user if isinstance(record, Record) else None

    def sweep(self, names: frozenset[ContainerName] | None = None) -> None:
        host = self.life.host
        self.seen.append(Clocks(host.boot_id, host.boot, host.wall))
        report = Reconciler(host.world(), self.config).run(names)
        failure = self.accounting.record_pass(report)
        assert not failure
        host.pass_time(0.25)

    def watch(self, minutes: int) -> None:
        for _ in range(minutes):
            self.life.host.pass_time(60.0)
            self.sweep()

    def save(self) -> None:
        assert not self.accounting.save(self.life.host.world().clock.now())

    def rows(self) -> list[Booked]:
        with sqlite3.connect(self.folder / NAME) as database:
            rows = database.execute(
                "SELECT container, slot, user, begun, ended, IFNULL(reason, '')"
                " FROM bookings ORDER BY id"
            ).fetchall()
        database.close()
        return [Booked(*row) for row in rows]

    def replayed(self) -> list[Booked]:
        return replay(self.life.host.history, self.seen, self.find_user)

    def allocator(self) -> Allocator:
        world = self.life.host.world()
        return Allocator(world, self.config, BookingHistory(world, {}))

    # --- what happens

    def book(self, name: str, count: int) -> None:
        user = UserName(USERS[int(name.rpartition(".")[2])])
        self.allocator().allocate(user, ContainerName(name), count=count)

    def reserve(self) -> None:
        self.allocator().allocate(UserName("alice"), None)

    def release(self, name: str) -> None:
        with suppress(Ds01Error):
            self.allocator().release(ContainerName(name))

    def run(self, name: str) -> None:
        slots = self.life.host.state.find_slots(ContainerName(name))  # type: ignore[union-attr]
        if slots:
            self.life.start_now(*(f"MIG-{slot.replace('.', '-')}" for slot in slots), name=name)

    def claim(self, name: str) -> None:
        """A container claims the reservation of its owner, by its label."""
        for record in [*self.life.host.records.values()]:
            if isinstance(record, Record) and record.container.startswith("r-"):
                device = f"MIG-{str(record.gpu_id).replace('.', '-')}"
                labels = {BOOKING_LABEL: str(record.booking)}
                self.life.start_now(device, name=name, labels=labels)
                return

    def stop(self, name: str) -> None:
        if self._has(name):
            self.life.stop(name)

    def remove(self, name: str, *, told: bool) -> None:
        if self._has(name):
            self.life.remove(name, told=told)

    def rename(self, before: str, after: str) -> None:
        if self._has(before) and before != after:
            free = not self._has(after)
            if free:
                self.life.rename(before, after)
            else:  # they exchange their names
                self.life.rename(before, "between")
                self.life.rename(after, before)
                self.life.rename("between", after)

    def _has(self, name: str) -> bool:
        return any(c.name == name for c in self.life.host.containers.values())

    def undo(self, back: int) -> None:
        done = [d for d in join_entries(read_entries(self.life.host.history)) if d.done]
        if len(done) > back:
            with suppress(Ds01Error):
                Undoer(self.life.host.world(), self.config).undo(done[-1 - back].entry.id, "ada")

    def set_clock(self, seconds: float) -> None:
        self.life.set_wall(seconds)

    def reboot(self) -> None:
        host = self.life.host
        host.boot_id, host.boot = f"boot-{len(self.seen)}-{len(host.history)}", 20.0
        host.since = 20.0
        for one in [*host.containers.values()]:
            if one.state is State.RUNNING:
                self.life.change(one.name, started=Wall(host.wall))
        self.restart()

    def lose(self) -> None:
        """The file is gone, and with it what passes saw of the clocks."""
        self.accounting.close()
        self.seen.clear()
        for file in self.folder.glob(f"{NAME}*"):
            file.unlink()
        self.restart()


def assert_agrees(accounted: list[Booked], replayed: list[Booked]) -> None:
    """They are the same bookings. A user whom the history does not name, a pass may have seen."""
    accounted, replayed = sorted(accounted, key=key), sorted(replayed, key=key)
    assert [(b.container, b.slot, b.why) for b in accounted] == [
        (b.container, b.slot, b.why) for b in replayed
    ]
    for ours, theirs in zip(accounted, replayed, strict=True):
        assert theirs.user in (None, ours.user)
        assert ours.begin == pytest.approx(theirs.begin, abs=0.01)
        assert (ours.end is None) is (theirs.end is None)
        assert (ours.end or 0.0) == pytest.approx(theirs.end or 0.0, abs=0.01)


def key(booked: Booked) -> tuple[object, ...]:
    return (booked.container, booked.slot, round(booked.begin), booked.why)
