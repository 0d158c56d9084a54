"""Asking hosts over a real sshd: what answers is known, all else is a failure in time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from ds01d.adapters.fleet import look as look_module
from ds01d.adapters.fleet.look import DEADLINE_S, FleetLook
from ds01d.model.fleet import HostAnswer, HostFailure, HostName
from simulation.sshd import SshHost
from tests.support.books import until
from tests.support.fleet import FleetSite, fleet_site


@pytest.fixture(scope="module")
def site() -> Iterator[FleetSite]:
    with fleet_site() as made:
        for name in ("good", "odd", "slow"):
            made.add_host(name)
        yield made


@pytest.fixture
def look(site: FleetSite, monkeypatch: pytest.MonkeyPatch) -> FleetLook:
    monkeypatch.setenv("PATH", site.environ["PATH"])
    good, odd, slow = (site.ssh.hosts[name] for name in ("good", "odd", "slow"))
    site.publish(good, free=2, held=1)
    for host in (odd, slow):
        site.publish(host, free=1)
    return FleetLook(site.state_dir, site.environ)


def ask(look: FleetLook, *names: str, within_s: float = 30) -> dict[str, HostAnswer | HostFailure]:
    answers = look.ask_hosts([HostName(name) for name in names], within_s)
    return {str(name): answer for name, answer in answers.items()}


def failure(answer: HostAnswer | HostFailure) -> str:
    assert isinstance(answer, HostFailure), answer
    return answer.reason


def test_a_host_answers_with_its_status_and_its_clock(look: FleetLook) -> None:
    answer = ask(look, "good")["good"]
    assert isinstance(answer, HostAnswer)
    assert [slot.is_free for slot in answer.status.slots] == [True, True, False]
    assert answer.status.doubt == ""
    assert abs(answer.clock - time.time()) < 60
    assert answer.clock - answer.status.published_at > -2


def test_a_connection_is_shared_by_the_next_call_and_its_end_is_not_waited_for(
    look: FleetLook, site: FleetSite
) -> None:
    good = site.ssh.hosts["good"]
    good.cut_connections()
    started = time.monotonic()
    assert isinstance(ask(look, "good")["good"], HostAnswer)
    assert isinstance(ask(look, "good")["good"], HostAnswer)
    assert time.monotonic() - started < 45, "the master in the background holds stderr for 60 s"
    until(lambda: len(good.list_sessions()) == 1)
    # A master whose host is gone must not make the next call fail.
    good.cut_connections()
    assert isinstance(ask(look, "good")["good"], HostAnswer)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no status of ds01d there"),
        (b"\x00\xff\x1b[2J", "its status is not one of ds01d"),
        (b"{}", "missing required field"),
        (b"[" * 100_000, "its status is not one of ds01d"),
        (b'{"written_at": 1e300, "version": "1", "ready": true}', "Expected `float`"),
        (b'{"written_at": 1, "version": "\\ud800", "ready": true}', "its status is not one"),
        (b'{"written_at": 1, "version": "1", "ready": true, "slots": [{"id": 1}]}', "`str`"),
    ],
)
def test_a_status_that_is_none(look: FleetLook, site: FleetSite, data: bytes, reason: str) -> None:
    site.write_status(site.ssh.hosts["odd"], data)
    assert reason in failure(ask(look, "odd")["odd"])


def make_large_status(*, slots: int, holders: int, text: str = "") -> bytes:
    """Each slot with so many containers, and `text` in the name of each."""
    holder = {"container": f"train{text}._.1001", "user": "alice", "state": "running"}
    slot = {"id": "0.1", "type": "mig", "holders": [holder] * holders}
    status = {"written_at": time.time(), "version": "1", "ready": True, "slots": [slot] * slots}
    return json.dumps({**status, "sources": {"docker": {"ok": True}}}).encode()


@pytest.mark.parametrize(
    ("slots", "holders", "text", "reason"),
    [
        # 16 GPUs with seven slots each, and 10,000 containers in them.
        (112, 90, "", ""),
        (1001, 0, "", "its status has 1001 slots, at most 1000 are read"),
        (5, 4001, "", "its status has 20005 containers in slots, at most 20000 are read"),
        (1, 3, "x" * 700_000, "characters of names, at most 2097152 are read"),
    ],
)
def test_a_status_has_as_much_as_a_host_can(
    look: FleetLook, site: FleetSite, slots: int, holders: int, text: str, reason: str
) -> None:
    data = make_large_status(slots=slots, holders=holders, text=text)
    site.write_status(site.ssh.hosts["odd"], data)
    answer = ask(look, "odd")["odd"]
    if reason:
        assert reason in failure(answer)
    else:
        assert isinstance(answer, HostAnswer)
        assert sum(len(slot.holders) for slot in answer.status.slots) == 112 * 90


def test_a_host_without_ds01d(look: FleetLook, site: FleetSite) -> None:
    (site.state_of(site.ssh.hosts["odd"]) / "status.json").unlink()
    reason = failure(ask(look, "odd")["odd"])
    assert reason.startswith("no status of ds01d there: head: ")
    assert reason.endswith("No such file or directory")


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"ready": False}, "has not completed a sweep"),
        ({"passes": {"failing_since": 1, "reason": "disk"}}, "passes of ds01d there fail: disk"),
        ({"sources": {}}, "has not asked Docker"),
        ({"sources": {"docker": {"ok": False, "reason": "x"}}}, "cannot read docker: x"),
        (
            {"sources": {"docker": {"ok": True}, "state": {"ok": False, "reason": "y"}}},
            "cannot read state: y",
        ),
        ({"sources": {"docker": {"ok": True}, "new": {"ok": False}}, "more": [1]}, ""),
    ],
)
def test_what_a_ds01d_itself_doubts(
    look: FleetLook, site: FleetSite, changes: dict[str, object], doubt: str
) -> None:
    odd = site.ssh.hosts["odd"]
    path = site.state_of(odd) / "status.json"
    site.write_status(odd, json.dumps(json.loads(path.read_bytes()) | changes).encode())
    answer = ask(look, "odd")["odd"]
    assert isinstance(answer, HostAnswer)
    assert doubt in answer.status.doubt
    assert bool(doubt) == bool(answer.status.doubt)


def test_a_clock_that_no_time_can_be_is_no_answer(look: FleetLook, site: FleetSite) -> None:
    """Its ages would be out of range wherever they are kept."""
    future = with_settings(site, "future")
    site.publish(future, free=1)
    for clock, reason in (("99999999999", ""), ("999999999999", "its clock cannot be read")):
        site.add_command(future, "date", f"#!/bin/sh\necho {clock}\n")
        answer = ask(look, "future")["future"]
        assert (answer.reason if isinstance(answer, HostFailure) else "") == reason


def test_more_than_a_status_can_be_is_cut_there(
    look: FleetLook, site: FleetSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_module, "MAX_STATUS_BYTES", 1000)
    site.write_status(site.ssh.hosts["odd"], b" " * 100_000 + b"{}")
    assert "no status" in failure(ask(look, "odd")["odd"])


def with_settings(site: FleetSite, name: str, *settings: str) -> SshHost:
    if name in site.ssh.hosts:
        return site.ssh.hosts[name]
    return site.add_host(name, settings)


def test_a_shell_that_writes_without_end_and_one_that_writes_anything(
    look: FleetLook, site: FleetSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_module, "MAX_STATUS_BYTES", 1 << 20)
    with_settings(site, "endless", "ForceCommand yes")
    with_settings(site, "noise", "ForceCommand head -c 5000 /dev/urandom; echo; exit 7")
    answers = ask(look, "endless", "noise", "good")
    assert failure(answers["endless"]) == "more than 1 MiB of answer"
    assert failure(answers["noise"]).startswith("ssh: ")
    assert isinstance(answers["good"], HostAnswer)


def test_words_of_a_login_shell_before_the_answer_do_no_harm(
    look: FleetLook, site: FleetSite
) -> None:
    greeting = "ForceCommand echo welcome; echo '{}' ; eval \"$SSH_ORIGINAL_COMMAND\""
    host = with_settings(site, "greeting", greeting)
    site.publish(host, free=3)
    answer = ask(look, "greeting")["greeting"]
    assert isinstance(answer, HostAnswer)
    assert len(answer.status.slots) == 3


def test_a_frozen_host_a_dead_one_and_one_whose_key_is_wrong_are_failures_in_time(
    look: FleetLook, site: FleetSite
) -> None:
    dead = with_settings(site, "dead")
    dead.stop()
    slow = site.ssh.hosts["slow"]
    impostor = with_settings(site, "impostor")
    key = (site.ssh.hosts["good"].folder / "host_key.pub").read_text()
    (impostor.folder / "host_key.pub").write_text(key)
    site.ssh.write_client()
    slow.freeze()
    try:
        started = time.monotonic()
        answers = ask(look, "slow", "dead", "impostor", "good", within_s=DEADLINE_S)
        took_s = time.monotonic() - started
        # On a busy machine a login may take as long as that; the frozen one never ends.
        answers |= ask(look, "dead", "impostor", "good", within_s=60)
    finally:
        slow.thaw()
    assert "no answer within 5 s" in failure(answers["slow"]) or "timed out" in failure(
        answers["slow"]
    )
    assert "Connection refused" in failure(answers["dead"])
    assert failure(answers["impostor"]) == "ssh: Host key verification failed."
    assert isinstance(answers["good"], HostAnswer)
    assert took_s < DEADLINE_S + 30, "it waits for one after the other, or for ever"


def test_many_slow_hosts_take_no_longer_and_the_first_are_asked_first(
    look: FleetLook, site: FleetSite
) -> None:
    slow = site.ssh.hosts["slow"]
    extra = "\n".join(
        f"Host slow{number}\n  HostName 127.0.0.1\n  Port {slow.port}\n  HostKeyAlias slow"
        for number in range(20)
    )
    site.ssh.write_client(extra)
    slow.freeze()
    try:
        started = time.monotonic()
        answers = ask(look, "good", *(f"slow{n}" for n in range(20)), within_s=15)
        took_s = time.monotonic() - started
    finally:
        slow.thaw()
        site.ssh.write_client()
    assert isinstance(answers.pop("good"), HostAnswer)
    assert len(answers) == 20
    assert all(isinstance(answer, HostFailure) for answer in answers.values())
    assert "not asked in time" in failure(answers["slow19"])
    assert took_s < 45, "one after the other they would take minutes"


def test_without_ssh(look: FleetLook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert failure(ask(look, "good")["good"]).endswith("(install openssh-client)")
