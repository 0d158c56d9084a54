"""Operators do through the socket what root does directly; others see what status.json shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from ds01d.cli.ctl.main import main as ds01ctl
from ds01d.config import Config
from ds01d.model.containers import State
from ds01d.reconcile.reconciler import Reconciler
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import serve_call
from ds01d.service.exchange import ServiceRefused
from ds01d.service.interface import read_description
from ds01d.service.operations_calls import PLAN_EVERY_S, OperationCalls
from ds01d.service.operations_client import RemoteOperations
from ds01d.service.reconciling import ReconcileCalls
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer
from ds01d.service.varlink import MethodCall
from tests.support.build import record
from tests.support.commands import Desk
from tests.support.sample_host import GONE, REST, TRAIN, a_host, container
from tests.support.world import Host

OLGA = Peer(uid=1009, login="olga", pid=9, is_operator=True)
ALICE = Peer(uid=1001, login="alice", pid=7, is_operator=False)


@dataclass
class Daemon:
    """Serves calls over a host in memory, as the worker does."""

    host: Host
    config: Config
    peer: Peer
    replies: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        world = self.host.world()
        self.reconciles = ReconcileCalls(self.config, world.clock)
        self.calls = OperationCalls(self.config, world, lambda _: (None, ""), self.reconciles)

    def serve(self, method: str, parameters: Mapping[str, object]) -> Iterator[dict[str, Any]]:
        """Each reply. Raises `ServiceRefused`."""
        sent: list[bytes] = []
        raw = msgspec.Raw(json.dumps(dict(parameters)).encode())
        call = MethodCall(method=f"{INTERFACE}.{method}", parameters=raw, more=True)
        request = PendingCall(self.peer, call, lambda message, _: sent.append(message))
        serve_call(request, self.calls.handlers)
        while request.is_open:
            self.host.pass_time(self.reconciles.wait_s())
            reconciler = Reconciler(self.host.world(), self.config)
            self.reconciles.end_sweep(self.reconciles.begin_sweep(reconciler).run())
        for message in sent:
            reply = json.loads(message.rstrip(b"\0"))
            if "error" in reply:
                raise ServiceRefused(reply["error"], reply["parameters"])
            self.replies.append(reply["parameters"])
            yield reply["parameters"]


class Remote(RemoteOperations):
    """A client of such a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(Path("unused"))
        self.daemon = daemon

    def stream(
        self,
        method: str,
        parameters: Mapping[str, object],
        *,
        more: bool = True,
        repeats: int = 0,
    ) -> Iterator[dict[str, Any]]:
        given = {key: value for key, value in parameters.items() if value is not None}
        return self.daemon.serve(method, given)


@dataclass
class RemoteDesk(Desk):
    """Somebody whose commands ask the daemon."""

    peer: Peer = OLGA

    def __post_init__(self) -> None:
        super().__post_init__()
        self.daemon = Daemon(self.host, self.config, self.peer)

    def call(self, *words: str, **_: Any) -> Result:
        environment = replace(self.environment(), find_operations=lambda _: Remote(self.daemon))
        return CliRunner().invoke(ds01ctl, list(words), obj=environment)


def remote_desk(tmp_path: Path, peer: Peer = OLGA) -> RemoteDesk:
    return RemoteDesk(host=a_host(), state_dir=tmp_path, peer=peer)


STORY = (
    ("plan",),
    ("plan", "--json"),
    ("plan", "-v"),
    ("explain", TRAIN),
    ("explain", TRAIN, "--json"),
    ("explain", "1.2"),
    ("explain", "1.1", "--json"),
    ("explain", "trian"),
    ("reconcile",),
    ("thaw",),
    ("thaw", "--engine"),
    ("freeze", "nobody"),
    ("freeze", "1.1", "--for", "1h", "--reason", "a fan"),
    ("explain", "1.1"),
    ("thaw", "1.1"),
    ("reconcile", "--wait"),
    ("explain", GONE),
    ("undo", "no-such-entry"),
    ("undo", "LAST", "--dry-run"),
    ("undo", "LAST", "--json"),
    ("explain", GONE, "--json"),
)


def play(desk: Desk) -> list[tuple[tuple[str, ...], int, str]]:
    """Every command of the story, with exit code and output."""
    shown: list[tuple[tuple[str, ...], int, str]] = []
    for story_words in STORY:
        words: tuple[str, ...] = story_words
        if "LAST" in words:
            first = str(json.loads(desk.host.history[0])["id"])
            words = tuple(first if word == "LAST" else word for word in words)
        result = desk.call(*words)
        shown.append((words, result.exit_code, f"{result.stdout}{result.stderr}"))
    return shown


def test_an_operator_sees_and_does_what_root_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds01d.cli.ctl.operations.caller_name", lambda: "olga")
    make_world = Host.world
    monkeypatch.setattr(Host, "world", lambda host: replace(make_world(host), actor=OLGA.actor))
    direct = play(Desk(host=a_host(), state_dir=tmp_path))
    remote = play(remote_desk(tmp_path))
    assert remote == direct
    assert {code for _, code, _ in direct} == {0, 1, 2}


def test_what_an_operator_does_names_them(tmp_path: Path) -> None:
    desk = remote_desk(tmp_path)
    desk.call("reconcile", "--wait")
    (released, *_), last = desk.host.history, desk.host.operations[-1]
    assert json.loads(released)["actor"] == {
        "uid": 1009,
        "login": "olga",
        "pid": 9,
        "sudo_uid": None,
        "sudo_login": "",
    }
    desk.call("freeze")
    last = desk.host.operations[-1]
    assert (last.operation, last.user, str(last.actor)) == (
        "freeze",
        "olga",
        "by olga (uid 1009, pid 9)",
    )
    desk.call("undo", json.loads(released)["id"])
    undo = next(line for line in map(json.loads, desk.host.history) if line.get("action") == "undo")
    assert (undo["by"], undo["actor"]["login"]) == ("olga", "olga")


def test_waits_of_reconcile_are_announced(tmp_path: Path) -> None:
    desk = remote_desk(tmp_path)
    result = desk.call("reconcile", "--wait")
    assert result.exit_code == 0
    assert "waiting until " in result.stderr
    assert f"stale-allocation {GONE} (" in result.stderr
    assert (GONE, "1.1") not in desk.host.bookings()


@pytest.mark.parametrize(
    "words",
    [("reconcile",), ("freeze",), ("thaw",), ("thaw", "--engine"), ("undo", "x", "--dry-run")],
)
def test_who_is_no_operator_changes_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    desk = remote_desk(tmp_path, ALICE)
    before = desk.host.bookings()
    result = desk.call(*words)
    assert result.exit_code == 1
    assert result.stderr == ("ds01ctl: permission denied: needs root or group ds01-operators\n")
    assert not desk.host.history
    assert desk.host.memory is None
    assert desk.host.bookings() == before


def test_the_owner_sees_everything_of_a_container(tmp_path: Path) -> None:
    mine = remote_desk(tmp_path, ALICE).json("explain", TRAIN)
    assert mine == remote_desk(tmp_path).json("explain", TRAIN)
    assert mine["processes"]
    assert mine["docker"]["labels"]


def test_a_short_name_is_that_of_who_asks(tmp_path: Path) -> None:
    def explain(peer: Peer) -> Result:
        desk = remote_desk(tmp_path, peer)
        desk.host.run(container("train._.1002", 9, "bob", State.RUNNING, "MIG-1-3"))
        return desk.call("explain", "train", "--json")

    assert json.loads(explain(ALICE).stdout)["subject"] == TRAIN
    assert "is ambiguous" in explain(OLGA).stderr


def test_others_see_what_status_shows(tmp_path: Path) -> None:
    theirs = remote_desk(tmp_path, ALICE).json("explain", REST)
    assert theirs.keys() == {
        "subject",
        "type",
        "verdict",
        "drifts",
        "findings",
        "books",
        "freezes",
        "troubles",
        "sources",
    }
    assert theirs["verdict"]["evidence"] == []
    assert theirs["verdict"]["words"].startswith("holds 1.2 as carol")


def test_processes_on_a_slot_are_for_its_holder(tmp_path: Path) -> None:
    desk = remote_desk(tmp_path, ALICE)
    assert desk.json("explain", "1.0")["processes"]
    assert "processes" not in desk.json("explain", "1.2")
    assert "processes" not in desk.json("explain", "1.3")  # it has no holder


def test_who_books_a_container_of_nobody_sees_no_more_of_it(tmp_path: Path) -> None:
    desk = remote_desk(tmp_path, ALICE)
    plain = replace(container("plain", 4, "", State.RUNNING, "MIG-1-3"), labels={})
    desk.host.run(plain)
    desk.host.records[plain.name] = record(plain.name, "1.3")
    shown = desk.json("explain", plain.name)
    assert shown["books"]["user"] == "alice"
    assert plain.id not in json.dumps(shown)


def test_evidence_of_a_drift_is_for_its_owner(tmp_path: Path) -> None:
    (drift,) = remote_desk(tmp_path).json("plan")["drifts"]
    assert drift["evidence"]
    (shown,) = remote_desk(tmp_path, ALICE).json("plan")["drifts"]
    assert shown == drift | {"evidence": []}
    bob = Peer(uid=1002, login="bob", pid=8, is_operator=False)
    assert remote_desk(tmp_path, bob).json("plan")["drifts"] == [drift]


def test_the_sources_are_not_asked_for_each_call_of_a_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = remote_desk(tmp_path, ALICE)
    clock = [1000.0]
    monkeypatch.setattr("ds01d.service.operations_calls.time.monotonic", lambda: clock[0])
    first = desk.json("plan")["at"]
    desk.host.pass_time(60)
    assert desk.json("plan")["at"] == first
    clock[0] += PLAN_EVERY_S + 0.1
    assert desk.json("plan")["at"] != first


@pytest.mark.parametrize("subject", ["x" * 257, "\0" * 257])
def test_a_subject_without_measure_is_refused(tmp_path: Path, subject: str) -> None:
    result = remote_desk(tmp_path, ALICE).call("explain", subject)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "InvalidParameter" in result.stderr


@pytest.mark.parametrize("subject", ["", "\x1b[31m", "../../etc/shadow", "a" * 256, "trai"])
def test_a_hostile_subject_is_only_a_name(tmp_path: Path, subject: str) -> None:
    result = remote_desk(tmp_path, ALICE).call("explain", subject)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith('ds01ctl: no slot or container "')
    assert result.stderr.strip().isprintable()


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("Explain", {}),
        ("Explain", {"subject": 7}),
        ("Reconcile", {"wait": True, "timeout_s": 0}),
        ("Reconcile", {"wait": True, "timeout_s": 1e300}),
        ("Freeze", {"seconds": -1}),
        ("Freeze", {"reason": "two\nlines"}),
        ("Freeze", {"reason": "x" * 201}),
        ("Thaw", {"engine": True, "subject": "1.0"}),
        ("Undo", {"entry": None}),
        ("Plan", {"more": True}),
    ],
)
def test_invalid_parameters(tmp_path: Path, method: str, parameters: dict[str, object]) -> None:
    desk = remote_desk(tmp_path)
    with pytest.raises(ServiceRefused) as refusal:
        list(desk.daemon.serve(method, parameters))
    assert refusal.value.error == "org.varlink.service.InvalidParameter"
    assert desk.host.memory is None


def test_every_method_is_described(tmp_path: Path) -> None:
    methods = {name.rpartition(".")[2] for name in remote_desk(tmp_path).daemon.calls.handlers}
    assert methods == {"Plan", "Explain", "Reconcile", "Freeze", "Thaw", "Undo"}
    assert all(f"\nmethod {method}(" in read_description(INTERFACE) for method in methods)


def test_a_failed_sweep_is_the_answer(tmp_path: Path) -> None:
    daemon = remote_desk(tmp_path).daemon
    sent: list[bytes] = []
    call = MethodCall(method=f"{INTERFACE}.Reconcile", more=True)
    serve_call(PendingCall(OLGA, call, lambda m, _: sent.append(m)), daemon.calls.handlers)
    daemon.reconciles.begin_sweep(Reconciler(daemon.host.world(), daemon.config))
    daemon.reconciles.fail_sweep("no lock")
    assert b"Unavailable" in sent[0]
    assert b"no lock" in sent[0]


def test_nobody_waits_for_the_sweep_of_a_peer_who_is_gone(tmp_path: Path) -> None:
    daemon = remote_desk(tmp_path).daemon
    request = PendingCall(OLGA, MethodCall(method=f"{INTERFACE}.Reconcile"), lambda *_: None)
    serve_call(request, daemon.calls.handlers)
    request.withdraw()
    reconciler = Reconciler(daemon.host.world(), daemon.config)
    assert daemon.reconciles.begin_sweep(reconciler) is reconciler
    assert daemon.reconciles.wait_s() > 1e9
