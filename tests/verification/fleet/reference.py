"""A host that books over the store, as small as it can be: what the campaign is tried on.

A process of its own, so that it can be killed between two steps. It has the protocol of the fleet
and nothing else of ds01d, and makes the mistakes of `BUGS` on demand.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socketserver
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.verification.fleet.keys import HeldKey
from tests.verification.fleet.reference_store import (
    BUGS,
    LEASE_DEAD,
    NO_RESTORE,
    STORE_RULES,
    UNDER_LOCK,
    WITHDRAW_UNREADABLE,
    Away,
    Contents,
    Held,
    Json,
    Store,
)

PASS_S: Final = 0.3
LEASE_S: Final = 2
ATTEMPTS: Final = 20


class Unreadable(Exception):
    """The books cannot be read."""


class Books:
    """The bookings of this host, in one file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "books" / "bookings.json"

    def read(self) -> dict[str, Json]:
        """By container. Raises `Unreadable`."""
        try:
            found: dict[str, Json] = json.loads(self._file.read_bytes())
        except (OSError, ValueError) as error:
            raise Unreadable(str(error)) from error
        return found

    def write(self, bookings: dict[str, Json]) -> None:
        written = self._file.with_suffix(".new")
        try:
            written.write_text(json.dumps(bookings), encoding="utf-8")
            written.replace(self._file)
        except OSError as error:
            raise Unreadable(str(error)) from error


class ReferenceHost:
    """Books, releases, and keeps its entries in the store true."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._host, self._slots = options.host, options.slots
        self._may_book_away = options.when_away == "local"
        self._bugs = frozenset(options.bug)
        self._quotas = {user: int(n) for user, _, n in (q.partition("=") for q in options.quota)}
        folder = Path(options.folder)
        self.books = Books(folder)
        self._file = folder / "node.json"
        self._known = _load_node(self._file)
        self.store = _make_store(options, self._known["node"])
        self._lock = threading.Lock()
        """Of the books: nobody waits for the network under it."""
        self._booking = threading.Lock()
        """One booking at a time reserves: what is under way counts for the next."""
        self._under_way: dict[str, str] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._lease = ""

    def start(self) -> None:
        for run in (self._run_passes, self._run_watch):
            threading.Thread(target=run, daemon=True).start()

    # --- calls

    def answer(self, call: Json) -> Json:
        match call:
            case {"do": "book", "user": user, "container": name, "count": count}:
                with self._booking:
                    if UNDER_LOCK in self._bugs:
                        with self._lock:
                            return self._book(user, name, count, threading.Lock())
                    return self._book(user, name, count, self._lock)
            case {"do": "release", "container": name}:
                return self._release(name)
            case {"do": "status"}:
                return {"fleet": self.store.is_watching}
            case _:
                return {"error": "unknown call"}

    def _book(self, user: str, name: str, count: int, lock: threading.Lock) -> Json:
        key = HeldKey(user, self._known["node"], f"r-{secrets.token_hex(6)}")
        self._under_way[key.booking] = name
        try:
            with lock:
                if refusal := self._check(user, name, count, 0):
                    return {"refused": refusal}
            try:
                refusal = self._reserve(key, name, count)
            except Away as error:
                say(f"{name}: {error}")
                if not self._may_book_away:
                    return {"refused": "STORE_AWAY"}
                refusal = ""
            if refusal:
                return {"refused": refusal}
            with lock:
                refusal = self._check(user, name, count, 0)
                if not refusal:
                    booking = {"booking": key.booking, "user": user, "count": count}
                    self.books.write({**self.books.read(), name: booking})
        except Unreadable:
            refusal = "BOOKS_UNREADABLE"
        finally:
            del self._under_way[key.booking]
            self._wake.set()
        return {"refused": refusal} if refusal else {"granted": key.booking, "slots": count}

    def _check(self, user: str, name: str, count: int, elsewhere: int) -> str:
        bookings = self.books.read()
        own = sum(one["count"] for one in bookings.values() if one["user"] == user)
        if name in bookings:
            return "NAME_IN_USE"
        if sum(one["count"] for one in bookings.values()) + count > self._slots:
            return "NO_GPU_AVAILABLE"
        return "USER_AT_LIMIT" if own + elsewhere + count > self._quotas[user] else ""

    def _reserve(self, key: HeldKey, name: str, count: int) -> str:
        if self.store.is_broken:
            raise Away("it failed a moment ago")
        for _ in range(ATTEMPTS):
            known = self._known["revision"]
            rows = self.store.read_user(key.user)
            if self._is_restored(rows.cluster, rows.revision, known):
                raise Away("it was restored, and not everybody has reported yet")
            others = [one for one in rows.held if one.key.node != key.node]
            elsewhere = sum(one.value["count"] for one in others)
            if refusal := self._check(key.user, name, count, elsewhere):
                return refusal
            value = self._entry(name, count, "reserved")
            conflict = self.store.reserve(key, value, rows.fence)
            if conflict != "fence":
                return "NAME_IN_USE" if conflict else ""
        return "USER_AT_LIMIT"

    def _release(self, name: str) -> Json:
        with self._lock:
            try:
                bookings = self.books.read()
                if name not in bookings:
                    return {"refused": "NOT_ALLOCATED"}
                released = bookings.pop(name)
                self.books.write(bookings)
            except Unreadable:
                return {"refused": "BOOKS_UNREADABLE"}
        self._wake.set()
        return {"released": released["booking"]}

    @staticmethod
    def _entry(name: str, count: int, phase: str) -> Json:
        slots = {"slots": [], "sevenths": 7 * count, "since": 0}
        return {"v": 1, "phase": phase, "container": name, "count": count, **slots}

    # --- the pass

    def _run_passes(self) -> None:
        with suppress(Away):
            self._take_identity()
        while not self._stopping.is_set():
            try:
                self._make_pass()
            except (Away, Unreadable) as error:
                say(f"pass: {error}")
            self._wake.wait(PASS_S)
            self._wake.clear()

    def _take_identity(self) -> None:
        self._known["incarnation"] += 1
        self._save_node()

    def _make_pass(self) -> None:
        self._lease = self.store.keep_alive(self._lease, LEASE_S)
        under_way = set(self._under_way)
        before = self._read_books()
        contents = self.store.read_contents()
        self._note_restore(contents)
        self.store.expect(contents)
        identity = {"v": 1, "host": self._host, "reported": self._known["cluster"]}
        identity["incarnation"] = self._known["incarnation"]
        self.store.prepare(contents, identity)
        under_way |= set(self._under_way)
        after = self._read_books()
        self._report(contents, before, after)
        if under_way and self._known["settled"] != self._known["cluster"]:
            return  # reserved in the store that was, and not in the books yet
        # Only now the others may count on what this host has told.
        if contents.identities.get(self._known["node"]) != identity:
            self.store.put_identity(identity)
        if self._is_settled(contents):
            self._known["settled"] = self._known["cluster"]
            self._save_node()
            self._withdraw(contents, after, under_way)
        if LEASE_DEAD in self._bugs:
            for entry in contents.held:
                if entry.key.node not in contents.alive:
                    self.store.withdraw(entry.key, entry.value["container"])

    def _read_books(self) -> dict[str, Json]:
        try:
            return {one["booking"]: {**one, "name": n} for n, one in self.books.read().items()}
        except Unreadable:
            if WITHDRAW_UNREADABLE in self._bugs:
                return {}
            raise

    def _report(self, contents: Contents, before: dict[str, Json], after: dict[str, Json]) -> None:
        mine = {one.key.booking: one for one in contents.held if one.key.node == self.store.node}
        for booking in before.keys() & after.keys():
            one = after[booking]
            value = self._entry(one["name"], one["count"], "held")
            if booking not in mine and STORE_RULES in self._bugs:
                self._release(one["name"])
            elif booking not in mine or one["name"] not in contents.names:
                self.store.report(HeldKey(one["user"], self.store.node, booking), value)
            elif mine[booking].value != value:
                self.store.confirm(mine[booking], value)

    def _withdraw(self, contents: Contents, books: dict[str, Json], under_way: set[str]) -> None:
        for entry in contents.held:
            if self._is_stale(entry, books, under_way):
                self.store.withdraw(entry.key, entry.value["container"])

    def _is_stale(self, entry: Held, books: dict[str, Json], under_way: set[str]) -> bool:
        booking = entry.key.booking
        return (
            entry.key.node == self.store.node and booking not in books and booking not in under_way
        )

    # --- a store that was restored

    def _is_restored(self, cluster: str, revision: int, known: int) -> bool:
        """It is not the store that this host knew, or not everybody has reported to it yet."""
        if NO_RESTORE in self._bugs:
            return False
        return revision < known or cluster != self._known["settled"]

    def _note_restore(self, contents: Contents) -> None:
        is_new = contents.cluster != self._known["cluster"]
        if is_new or contents.revision < self._known["revision"]:
            self._known |= {"cluster": contents.cluster, "settled": ""}
        self._known["revision"] = contents.revision
        self._known["nodes"] = sorted({*self._known["nodes"], *contents.identities})
        self._save_node()

    def _is_settled(self, contents: Contents) -> bool:
        told = {n for n, one in contents.identities.items() if one["reported"] == contents.cluster}
        return self._known["settled"] == contents.cluster or told >= set(self._known["nodes"])

    def _save_node(self) -> None:
        _save_node(self._file, self._known)

    # --- the watch

    def _run_watch(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError, ValueError):
                self.store.watch(self._stopping)
            self.store.is_watching = False
            self._stopping.wait(0.2)


def say(what: str) -> None:
    """For people who look into it."""
    sys.stderr.write(f"{time.monotonic():.2f} {what}\n")


def _make_store(options: argparse.Namespace, node: str) -> Store:
    if not options.client:
        return Store(options.etcd, node, options.bug)
    # Only here: the campaign itself shares no code with ds01d.
    from tests.verification.fleet.client_store import ClientStore  # noqa: PLC0415

    return ClientStore(options.etcd, node)


def _load_node(file: Path) -> Json:
    if file.exists():
        found: Json = json.loads(file.read_bytes())
        return found
    node = {"node": f"n-{secrets.token_hex(4)}", "incarnation": 0, "nodes": []}
    return {**node, "cluster": "", "settled": "", "revision": 0}


def _save_node(file: Path, known: Json) -> None:
    written = file.with_suffix(f".{threading.get_ident()}")
    written.write_text(json.dumps(known), encoding="utf-8")
    written.replace(file)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64
    host: ReferenceHost


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        for line in self.rfile:
            answer = self.server.host.answer(json.loads(line))
            self.wfile.write(json.dumps(answer).encode() + b"\n")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--etcd", type=int, nargs="+", required=True, help="ports of loopback")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--quota", action="append", default=[], help="USER=SLOTS")
    parser.add_argument("--when-away", choices=("local", "refuse"), default="local")
    parser.add_argument("--client", action="store_true", help="with ds01d's own client of etcd")
    parser.add_argument("--bug", action="append", default=[], choices=BUGS)
    options = parser.parse_args(words)
    Path(options.socket).unlink(missing_ok=True)
    host = ReferenceHost(options)
    with _Server(options.socket, _Handler) as server:
        server.host = host
        host.start()
        server.serve_forever()


if __name__ == "__main__":
    main()
