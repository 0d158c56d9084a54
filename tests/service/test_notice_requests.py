"""Who wants a notice is told once when there is room, also after a restart, and by nobody else."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ds01d.adapters.state_dir import StateDirectory
from ds01d.config import AllocatorConfig
from ds01d.decide.notice_requests import LASTS_S
from ds01d.errors import WriteFailed
from ds01d.model.notice import Notice, SpooledNotice
from ds01d.model.primitives import Source, UserName
from ds01d.reconcile.docker_books import with_current_books
from ds01d.service.booking import BookingService
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import serve_call
from ds01d.service.free_notices import LOOK_EVERY_S, FreeNotices
from ds01d.service.notice_calls import NoticeCalls
from ds01d.service.notice_requests import FILE, NoticeRequests
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer
from ds01d.service.varlink import MethodCall
from ds01d.service.waiting import WaitingQueue
from tests.reconcile.test_docker_books import fresh_life
from tests.service.test_status_calls import status
from tests.support import notices
from tests.support.build import LIMITS, Life, config, four_slots

ALICE = Peer(uid=1001, login="alice", pid=7, is_operator=False)
BOB = Peer(uid=1002, login="bob", pid=8, is_operator=False)
OLGA = Peer(uid=1009, login="olga", pid=9, is_operator=True)
FULL = {"_0_0": "a._.1003", "_0_1": "b._.1003", "_1_0": "c._.1003", "_1_1": "d._.1003"}
Json = dict[str, Any]


@dataclass
class BrokenFiles:
    """A full disk."""

    content: bytes = b""

    def load(self, name: str) -> bytes:
        assert name == FILE
        return self.content

    def save(self, name: str, data: bytes, *, durable: bool = False) -> None:
        assert durable
        raise WriteFailed(f"{name} was not written: no space left on device")


@dataclass
class Desk:
    """A full host, its service, and the notices that it gives; `seconds` is its clock."""

    files: Any
    life: Life
    given: list[Notice] = field(default_factory=list)
    spool: list[SpooledNotice] = field(default_factory=list)
    seconds: float = 0.0
    failure: str = ""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        world = self.life.host.world()
        if self.life.config.books.kind == "docker":
            world = with_current_books(world, self.life.config)
        self.requests = NoticeRequests(self.files, lambda: self.life.host.wall)
        self.free = FreeNotices(
            self.life.config, world, self.requests, self.given.append, lambda: self.seconds
        )
        service = BookingService(
            self.life.config,
            world,
            lambda: status(1),
            WaitingQueue(),
            notice_requests=self.requests,
        )
        calls = NoticeCalls(lambda user: [n for n in self.spool if n.user == user], self.requests)
        self.handlers = {**service.handlers, **calls.handlers}

    def ask(self, peer: Peer, method: str, **parameters: object) -> Json:
        replies: list[bytes] = []
        raw = msgspec.Raw(json.dumps(parameters).encode())
        call = MethodCall(method=f"{INTERFACE}.{method}", parameters=raw)
        request = PendingCall(peer, call, lambda data, _: replies.append(data))
        assert request.take()
        serve_call(request, self.handlers)
        reply: Json = json.loads(replies[-1].rstrip(b"\0"))
        return reply

    def look(self) -> list[tuple[str, set[str]]]:
        """What a pass makes it give."""
        self.free.note_change()
        self.seconds += LOOK_EVERY_S
        self.failure = self.free.look_if_due()
        given, self.given[:] = [(str(n.user), {*map(str, n.slots)}) for n in self.given], []
        return given

    def list_wishes(self, peer: Peer) -> list[tuple[str | None, int, str | None]]:
        listed = self.ask(peer, "Notices")["parameters"]["requests"]
        return [(one["slot"], one["count"], one["profile"]) for one in listed]


def make_desk(files: Any) -> Desk:
    settings = msgspec.structs.replace(config(), allocator=AllocatorConfig(sharing="never"))
    limits = replace(LIMITS, default_quota=None)
    return Desk(files, Life(settings, state=four_slots(**FULL), limits=limits))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    files = StateDirectory(tmp_path, 1.0)
    files.make()
    return make_desk(files)


def test_who_was_refused_gets_one_notice_once_a_slot_is_free(desk: Desk) -> None:
    refused = desk.ask(ALICE, "Allocate", notify=True)["parameters"]
    assert refused["code"] == "NO_GPU_AVAILABLE"
    assert refused["notify_until"] == desk.life.host.wall + LASTS_S
    assert desk.look() == []
    desk.life.host.state = four_slots(**{**FULL, "_1_0": ""})
    desk.restart()
    before = (desk.life.host.state, dict(desk.life.host.records), len(desk.life.host.history))
    assert desk.look() == [("alice", {"1.0"})]
    # Nothing is booked or entered by it, and the request is over, for the next ds01d as well.
    after = (desk.life.host.state, dict(desk.life.host.records), len(desk.life.host.history))
    assert after == before
    assert desk.look() == []
    desk.restart()
    assert desk.look() == []
    assert desk.list_wishes(ALICE) == []


def test_without_notify_or_without_a_request_nothing_is_kept_or_looked_at(
    desk: Desk, tmp_path: Path
) -> None:
    assert "notify_until" not in desk.ask(ALICE, "Allocate")["parameters"]
    desk.life.fail(Source.DOCKER, Source.NVML, Source.STATE)
    assert desk.look() == []
    assert desk.free.wait_s() == float("inf")
    assert not (tmp_path / FILE).exists()


def test_a_user_at_the_limit_gets_it_once_the_limit_has_room(desk: Desk) -> None:
    limits = replace(desk.life.host.limits, default_quota=1)
    desk.life.host.limits, desk.life.host.state = limits, four_slots()
    desk.life.book("1.0", name="a._.1001")
    refused = desk.ask(ALICE, "Allocate", notify=True, profile="1g.10gb")["parameters"]
    assert refused["code"] == "USER_AT_LIMIT"
    assert desk.list_wishes(ALICE) == [(None, 1, "1g.10gb")]
    assert desk.look() == []
    desk.life.host.limits = replace(limits, default_quota=2)
    assert [user for user, _ in desk.look()] == ["alice"]


def test_several_slots_are_free_only_together(desk: Desk) -> None:
    desk.ask(ALICE, "Allocate", notify=True, count=2)
    desk.ask(BOB, "Allocate", notify=True, slot="0.0")
    desk.life.host.state = four_slots(**{**FULL, "_1_0": ""})
    assert desk.look() == []
    desk.life.host.state = four_slots(**{**FULL, "_1_0": "", "_0_0": ""})
    assert desk.look() == [("alice", {"0.0", "1.0"}), ("bob", {"0.0"})]


def test_a_look_comes_after_the_queue_and_twice_a_minute_at_most(desk: Desk) -> None:
    desk.ask(ALICE, "Allocate", notify=True)
    desk.free.note_change()
    assert 1.0 < desk.free.wait_s() <= 2.0  # those who wait are served after one
    desk.look()
    desk.free.note_change()
    assert desk.free.wait_s() == LOOK_EVERY_S


def test_a_source_that_fails_costs_one_look_and_no_request(desk: Desk) -> None:
    desk.ask(ALICE, "Allocate", notify=True)
    desk.life.host.state = four_slots()
    desk.life.fail(Source.STATE)
    assert desk.look() == []
    assert desk.failure.startswith("no notice of free slots is given: ")
    assert desk.free.wait_s() == float("inf")
    desk.life.mend()
    assert [user for user, _ in desk.look()] == ["alice"]


def test_in_mode_observe_nobody_is_called(desk: Desk) -> None:
    desk.ask(ALICE, "Allocate", notify=True)
    desk.life.host.state = four_slots()
    daemon = msgspec.structs.replace(desk.life.config.daemon, mode="observe")
    desk.life.config = msgspec.structs.replace(desk.life.config, daemon=daemon)
    desk.restart()
    assert desk.look() == []


def test_who_gets_the_slot_meanwhile_is_not_called_for_it(desk: Desk) -> None:
    desk.ask(ALICE, "Allocate", notify=True)
    desk.ask(ALICE, "Allocate", notify=True, count=2)
    desk.life.host.state = four_slots(**{**FULL, "_1_0": ""})
    assert "error" not in desk.ask(ALICE, "Allocate")
    assert desk.list_wishes(ALICE) == [(None, 2, None)]


def test_ones_own_are_listed_and_withdrawn_and_nobody_elses(desk: Desk) -> None:
    desk.ask(ALICE, "Allocate", notify=True)
    desk.ask(ALICE, "Allocate", notify=True, slot="1.0")
    desk.ask(BOB, "Allocate", notify=True)
    desk.spool = [notices.notice(user="alice"), notices.notice(user="bob", message="of bob")]
    assert desk.list_wishes(ALICE) == [(None, 1, None), ("1.0", 1, None)]
    shown = desk.ask(ALICE, "Notices")["parameters"]["notices"]
    assert [(one["container"], one["slots"]) for one in shown] == [("train._.1001", ["1.0"])]
    for method in ("Notices", "WithdrawNotices"):
        assert desk.ask(ALICE, method, user="bob")["error"].endswith(".NotPermitted")
    ended = desk.ask(ALICE, "WithdrawNotices")["parameters"]["requests"]
    assert [one["slot"] for one in ended] == [None, "1.0"]
    assert desk.ask(ALICE, "WithdrawNotices")["parameters"]["requests"] == []
    assert desk.list_wishes(BOB) == [(None, 1, None)]
    desk.restart()
    assert (desk.list_wishes(ALICE), len(desk.list_wishes(BOB))) == ([], 1)
    listed = desk.ask(OLGA, "Notices", user="bob")["parameters"]
    assert [one["message"] for one in listed["notices"]] == ["of bob"]


def test_more_than_is_kept_is_refused_with_the_reason(desk: Desk) -> None:
    for count in range(1, 5):
        desk.ask(ALICE, "Allocate", notify=True, count=count)
    desk.ask(ALICE, "Allocate", notify=True, slot="1.0")
    refused = desk.ask(ALICE, "Allocate", notify=True, slot="1.1")["parameters"]
    assert "notify_until" not in refused
    assert refused["warnings"] == ["no notice will come: alice has 5 requests for a notice already"]


def test_what_does_not_end_by_itself_gets_none(desk: Desk) -> None:
    for parameters, code in (
        ({"count": 9}, "NO_GPU_AVAILABLE"),
        ({"profile": "7g.80gb"}, "NO_SUCH_PROFILE"),
        ({"slot": "9.9"}, "NO_SUCH_SLOT"),
    ):
        refused = desk.ask(ALICE, "Allocate", notify=True, **parameters)["parameters"]
        assert refused["code"] == code
        assert "does not end by itself" in refused["warnings"][0]
    assert desk.list_wishes(ALICE) == []


@pytest.mark.parametrize(("how", "is_kept"), [({"count": 3}, False), ({"count": 2}, True)])
def test_more_than_the_limit_itself_is_nothing_to_wait_for(
    desk: Desk, how: Json, is_kept: bool
) -> None:
    desk.life.host.limits = replace(desk.life.host.limits, default_quota=2)
    desk.life.book("1.0", name="a._.1001")
    refused = desk.ask(ALICE, "Allocate", notify=True, **how)["parameters"]
    assert refused["code"] == "USER_AT_LIMIT"
    assert ("notify_until" in refused) is is_kept
    # Nor does a call wait for it.
    if not is_kept:
        assert (
            desk.ask(ALICE, "Allocate", wait=True, **how)["parameters"]["code"] == "USER_AT_LIMIT"
        )


@pytest.mark.parametrize("also", ["wait", "another"])
def test_it_goes_with_no_other_way_to_wait(desk: Desk, also: str) -> None:
    reply = desk.ask(ALICE, "Allocate", notify=True, **{also: True})
    assert reply["parameters"] == {"parameter": "notify"}


def test_where_no_notice_is_given_nothing_is_booked_for_who_relies_on_one(desk: Desk) -> None:
    desk.life.host.state = four_slots()
    service = BookingService(
        desk.life.config, desk.life.host.world(), lambda: status(1), WaitingQueue()
    )
    desk.handlers = {**service.handlers, **NoticeCalls(lambda _: (), None).handlers}
    refused = desk.ask(ALICE, "Allocate", notify=True)["parameters"]
    assert (refused["code"], "[notify]" in refused["detail"]) == ("NOT_POSSIBLE", True)
    assert desk.life.host.history == []
    assert desk.ask(ALICE, "Notices")["parameters"] == {"notices": [], "requests": []}
    assert desk.ask(ALICE, "WithdrawNotices")["parameters"] == {"requests": []}


def test_with_a_full_disk_the_refusal_stands_and_names_it() -> None:
    desk = make_desk(BrokenFiles())
    refused = desk.ask(ALICE, "Allocate", notify=True)["parameters"]
    assert refused["code"] == "NO_GPU_AVAILABLE"
    assert "no space left" in refused["warnings"][0]
    assert desk.list_wishes(ALICE) == []


def test_a_notice_that_was_given_is_not_repeated_while_the_disk_is_full(desk: Desk) -> None:
    desk.ask(ALICE, "Allocate", notify=True)
    desk.files = BrokenFiles(desk.files.load(FILE))
    desk.restart()
    refused = desk.ask(ALICE, "WithdrawNotices")
    assert refused["error"].endswith(".Unavailable")
    desk.life.host.state = four_slots()
    assert [user for user, _ in desk.look()] == ["alice"]
    assert "no space left" in desk.failure
    assert desk.look() == []


@pytest.mark.parametrize(
    "content",
    [
        b"[",
        b'{"no": "list"}',
        b'[{"user": "alice"}]',
        b"\xff",
        b"[" * 100_000,
        b'[{"user":"alice","count":0,"since":0,"until":9e99}]',
        b'[{"user":"alice","count":-5,"since":0,"until":1}]',
    ],
)
def test_a_damaged_file_is_dropped_and_written_again(desk: Desk, content: bytes) -> None:
    desk.files.save(FILE, content)
    desk.restart()
    assert desk.look() == []
    assert desk.list_wishes(ALICE) == []
    desk.ask(ALICE, "Allocate", notify=True)
    desk.restart()
    assert desk.list_wishes(ALICE) == [(None, 1, None)]
    assert UserName("alice") in {request.user for request in desk.requests.list_current()}


def test_a_request_ends_after_a_week(desk: Desk) -> None:
    desk.ask(ALICE, "Allocate", notify=True)
    desk.life.host.pass_time(LASTS_S)
    desk.life.host.state = four_slots()
    assert desk.look() == []
    assert desk.list_wishes(ALICE) == []


def test_with_docker_as_the_books_a_container_that_is_gone_makes_room(tmp_path: Path) -> None:
    files = StateDirectory(tmp_path, 1.0)
    files.make()
    life = fresh_life()
    life.config = msgspec.structs.replace(life.config, allocator=AllocatorConfig(sharing="never"))
    for number in range(3):
        life.run(f"GPU-{number}", name=f"job{number}._.1002")
    life.after(60)
    desk = Desk(files, life)
    refused = desk.ask(ALICE, "Allocate", notify=True)["parameters"]
    assert (refused["code"], "notify_until" in refused) == ("NO_GPU_AVAILABLE", True)
    assert desk.look() == []
    life.remove("job1._.1002").after(300)
    assert desk.look() == [("alice", {"1"})]
