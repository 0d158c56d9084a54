"""The proxies around a real etcd: each fault is what it says, between hosts and between members."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from simulation.etcd import EtcdCluster, EtcdUnavailable, etcd_cluster
from simulation.etcd_links import PeerLinks
from simulation.etcd_proxy import Fault, HostLinks, Moment
from simulation.etcd_steps import Step, read_step
from tests.support.books import until
from tests.verification.fleet.watcher import ask, encode

SETTINGS = ("--heartbeat-interval=50", "--election-timeout=500")
KEY = encode("/ds01/v1/users/alice/fence")
PUT = {"request_put": {"key": KEY, "value": encode('{"v": 1}')}}
FAILURES = (OSError, http.client.HTTPException, ValueError)


class Setting:
    def __init__(self, cluster: EtcdCluster, peers: PeerLinks) -> None:
        self.cluster, self.peers = cluster, peers
        self.ports = [member.client_port for member in cluster.members]

    def version(self) -> int:
        """How often the key was put, by the store itself."""
        rows = ask(self.ports[0], "/v3/kv/range", {"key": KEY}, 30).get("kvs", [{"version": 0}])
        return int(rows[0]["version"])


@pytest.fixture(scope="module")
def setting() -> Iterator[Setting]:
    try:
        with (
            PeerLinks() as peers,
            etcd_cluster(3, settings=SETTINGS, prepare=peers.prepare) as cluster,
        ):
            peers.learn_ids(cluster)
            yield Setting(cluster, peers)
    except EtcdUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def links(setting: Setting) -> Iterator[HostLinks]:
    with HostLinks(setting.ports) as links:
        yield links


def put(links: HostLinks, timeout: float = 30.0) -> dict[str, Any]:
    """A transaction over the first member."""
    port = int(links.endpoints[0].rpartition(":")[2])
    return ask(port, "/v3/kv/txn", {"success": [PUT]}, timeout)


def test_what_is_not_spoilt_goes_through(setting: Setting, links: HostLinks) -> None:
    before = setting.version()
    assert put(links)["succeeded"]
    assert setting.version() == before + 1


@pytest.mark.parametrize(
    ("fault", "puts"),
    [
        (Fault.SWALLOW, 0),
        (Fault.UNAVAILABLE, 0),
        (Fault.GARBAGE, 0),
        (Fault.NONSENSE, 0),
        (Fault.LOSE_REPLY, 1),
        (Fault.HANG, 1),
        (Fault.HALF, 1),
    ],
)
def test_without_an_answer_the_change_was_made_or_not(
    setting: Setting, links: HostLinks, fault: Fault, puts: int
) -> None:
    before = setting.version()
    links.fault(fault, first=1)
    with pytest.raises(FAILURES):
        put(links, timeout=1.0)
    until(lambda: setting.version() == before + puts)
    put(links)  # the next one is well
    assert setting.version() == before + puts + 1


def test_a_late_request_comes_when_its_sender_has_given_up(
    setting: Setting, links: HostLinks
) -> None:
    before = setting.version()
    links.fault(Fault.LATE)
    given_up = threading.Event()

    def try_to_put() -> None:
        with pytest.raises(FAILURES):
            put(links, timeout=10.0)
        given_up.set()

    sender = threading.Thread(target=try_to_put)
    sender.start()
    until(lambda: links.waiting == [Step.OTHER])
    assert setting.version() == before
    until(lambda: setting.version() == before + 1)
    sender.join()
    assert given_up.is_set()


def test_a_request_comes_twice(setting: Setting, links: HostLinks) -> None:
    before = setting.version()
    links.again_after_s = 0.1
    links.fault(Fault.AGAIN, first=1)
    put(links)
    until(lambda: setting.version() == before + 2)


def test_only_the_steps_that_are_meant_are_spoilt(setting: Setting, links: HostLinks) -> None:
    links.fault(Fault.UNAVAILABLE, Step.RESERVE)
    assert put(links)["succeeded"]


def test_every_moment_of_a_request_can_be_met(setting: Setting, links: HostLinks) -> None:
    met: list[tuple[Step, Moment]] = []
    before = setting.version()
    versions: list[int] = []

    def note(step: Step, moment: Moment) -> None:
        met.append((step, moment))
        versions.append(setting.version())

    links.on_step = note
    put(links)
    until(lambda: len(versions) == 3)
    assert met == [(Step.OTHER, moment) for moment in Moment]
    assert versions == [before, before + 1, before + 1]


def test_a_host_that_is_cut_off(setting: Setting, links: HostLinks) -> None:
    links.refuse()
    with pytest.raises(ConnectionRefusedError):
        put(links)
    links.clear()
    assert put(links)["succeeded"]


def test_a_watch_goes_through_as_it_comes(setting: Setting, links: HostLinks) -> None:
    port = int(links.endpoints[0].rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v3/watch", json.dumps({"create_request": {"key": KEY}}))
    with connection.getresponse() as response:
        assert json.loads(response.readline())["result"]["created"]
        put(links)
        assert json.loads(response.readline())["result"]["events"]
    connection.close()
    assert links.counts[Step.WATCH] == 1


def test_a_member_that_is_cut_off_answers_with_what_it_knew(setting: Setting) -> None:
    alone, *others = setting.cluster.members

    def count(port: int) -> int:
        message = {"key": KEY, "serializable": True}
        return int(ask(port, "/v3/kv/range", message, 30)["kvs"][0]["version"])

    ask(others[0].client_port, "/v3/kv/txn", {"success": [PUT]}, 30)
    until(lambda: count(alone.client_port) == count(others[0].client_port))
    setting.peers.cut_off(alone)
    try:
        before = count(alone.client_port)
        until(_succeeds(lambda: ask(others[0].client_port, "/v3/kv/txn", {"success": [PUT]}, 5)))
        assert count(others[0].client_port) > before
        assert count(alone.client_port) == before
    finally:
        setting.peers.heal()
    until(lambda: count(alone.client_port) > before)
    setting.cluster.wait_until_healthy()


def _succeeds(call: Callable[[], object]) -> Callable[[], bool]:
    def try_it() -> bool:
        try:
            call()
        except FAILURES:
            return False
        return True

    return try_it


def _txn(*operations: dict[str, Any]) -> bytes:
    return json.dumps({"compare": [], "success": operations}).encode()


def _put(key: str, value: str = "{}") -> dict[str, Any]:
    return {"request_put": {"key": encode(f"/ds01/v1/{key}"), "value": encode(value)}}


HELD = "users/alice/held/n1/r-1"
FENCE = _put("users/alice/fence")


@pytest.mark.parametrize(
    ("path", "body", "step"),
    [
        ("/v3/watch", b"{}", Step.WATCH),
        ("/v3/kv/txn", _txn(_put(HELD, '{"phase": "reserved"}'), FENCE), Step.RESERVE),
        ("/v3/kv/txn", _txn(_put(HELD, '{"phase": "held"}'), FENCE), Step.REPORT),
        ("/v3/kv/txn", _txn(_put(HELD, '{"phase": "held"}')), Step.CONFIRM),
        (
            "/v3/kv/txn",
            _txn({"request_delete_range": {"key": encode(f"/ds01/v1/{HELD}")}}),
            Step.WITHDRAW,
        ),
        ("/v3/kv/txn", _txn(_put("nodes/n1/identity")), Step.IDENTITY),
        (
            "/v3/kv/range",
            json.dumps({"key": encode("/ds01/v1/users/alice/")}).encode(),
            Step.READ,
        ),
        (
            "/v3/kv/txn",
            _txn({"request_range": {"key": encode("/ds01/v1/users/alice/")}}),
            Step.READ,
        ),
        (
            "/v3/kv/txn",
            _txn({"request_range": {"key": encode(f"/ds01/v1/{HELD}")}}),
            Step.LOOK,
        ),
        ("/v3/kv/range", json.dumps({"key": encode("/ds01/v1/")}).encode(), Step.CONTENTS),
        ("/v3/lease/grant", b'{"TTL": 30}', Step.OTHER),
        ("/v3/kv/txn", b"[", Step.OTHER),
        ("/v3/kv/txn", b"[1]", Step.OTHER),
    ],
)
def test_a_request_is_named_by_what_it_changes(path: str, body: bytes, step: Step) -> None:
    assert read_step(path, body) is step
