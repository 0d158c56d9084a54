"""The client of etcd: members that are frozen, dead or hostile, TLS, users, and how long it takes.

Against a real etcd, but for the hostile ones.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ds01d.adapters.fleet.circuit_breaker import CircuitBreaker
from ds01d.adapters.fleet.deadline_http import CallLimits
from ds01d.adapters.fleet.etcd_books import EtcdBooks
from ds01d.adapters.fleet.etcd_client import EtcdClient
from ds01d.adapters.fleet.etcd_members import look_at_members
from ds01d.adapters.fleet.etcd_messages import (
    RangeReply,
    StatusReply,
    TxnReply,
    put_key,
    range_of,
    txn,
)
from ds01d.adapters.fleet.etcd_settings import TlsFiles, parse_endpoint
from ds01d.adapters.fleet.name_lookup import NameLookup
from ds01d.decide.store_versions import find_flaws, parse_version
from ds01d.errors import StoreFailed, StoreRefused
from ds01d.model.fleet_books import Changed, NodeId
from ds01d.model.primitives import Unknown, UserName
from simulation.etcd import EtcdCluster
from simulation.etcd_certificates import EtcdAuthority
from simulation.ports import find_free_port
from tests.support.books import until
from tests.support.fleet_store import (
    books_of,
    empty_store,
    etcd_settings,
    make_entry,
    read_contents,
    read_user,
    reserve,
    started_etcd,
)
from tests.support.notices import Server, read_request, serving
from tests.support.proofs import PROOFS

USERS = (
    ("role", "add", "root"),
    ("user", "add", "root:admin"),
    ("user", "grant-role", "root", "root"),
    ("role", "add", "ds01"),
    ("role", "grant-permission", "ds01", "--prefix=true", "readwrite", "/ds01/v1/"),
    ("user", "add", "gpu01:first"),
    ("user", "grant-role", "gpu01", "ds01"),
    ("auth", "enable"),
)
"""Words of etcdctl after which `gpu01` may do everything below the root of ds01d, and no more."""
ANY = range_of(b"/ds01/v1/any")


@pytest.fixture(scope="module")
def three() -> Iterator[EtcdCluster]:
    with started_etcd(3) as made:
        yield made


@pytest.fixture
def cluster(three: EtcdCluster) -> Iterator[EtcdCluster]:
    """Three members, all healthy again after each test."""
    empty_store(three)
    yield three
    for member in three.members:
        if member.is_running():
            member.thaw()
    three.start()


def client_of(cluster: EtcdCluster, timeout_s: float = 20.0) -> EtcdClient:
    return EtcdClient(etcd_settings(cluster.endpoints, timeout_s=timeout_s))


def read(client: EtcdClient) -> RangeReply:
    return client.call("/kv/range", ANY, RangeReply)


def first_member(client: EtcdClient) -> str:
    """The member that is asked next."""
    return str(client._order_members()[0])


# --- members that do not answer -------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["freeze", "kill"])
def test_the_next_member_answers_for_one_that_cannot(cluster: EtcdCluster, fault: str) -> None:
    client = client_of(cluster, timeout_s=6.0)
    assert read(client).header.revision
    member = cluster.members[0]
    assert first_member(client) == member.client_url
    getattr(member, fault)()
    # If it led the others they choose another one first.
    until(lambda: answers(client))
    # From now on it is not asked first, so that a frozen one costs its share once.
    assert first_member(client) != member.client_url
    assert not client.breaker.is_open


def test_without_an_answer_a_call_ends_in_time_and_the_next_one_at_once(
    cluster: EtcdCluster,
) -> None:
    client = client_of(cluster, timeout_s=1.0)
    for member in cluster.members:
        member.freeze()
    began = time.monotonic()
    with pytest.raises(StoreFailed, match="timed out"):
        read(client)
    assert time.monotonic() - began < 10
    assert client.breaker.is_open
    cpu = time.process_time()
    for _ in range(100):
        with pytest.raises(StoreFailed, match="not asked again yet"):
            read(client)
    assert time.process_time() - cpu < 0.5
    for member in cluster.members:
        member.thaw()
    until(lambda: answers(client))
    assert not client.breaker.is_open


def answers(client: EtcdClient) -> bool:
    try:
        return bool(read(client).header.revision)
    except StoreFailed:
        return False


def test_a_member_without_a_majority_answers_nothing(cluster: EtcdCluster) -> None:
    """It has all the keys, and may be behind: what it has is no answer."""
    books = books_of(cluster, timeout_s=3.0)
    reserve(books_of(cluster), make_entry())
    for member in cluster.members[1:]:
        member.kill()
    answer = books.read_user(UserName("alice"))
    assert isinstance(answer, Unknown)
    assert isinstance(books.read_contents(), Unknown)
    cluster.start()
    patient = books_of(cluster)
    assert len(read_user(patient).entries) == 1


@pytest.mark.parametrize("frozen", [1, 2])
def test_a_watch_ends_by_itself_where_nothing_could_come_any_more(
    cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch, frozen: int
) -> None:
    """Its own member is frozen; or the others are, so that it has no leader."""
    monkeypatch.setattr("ds01d.adapters.fleet.etcd_client.WATCH_IDLE_S", 0.5)
    client = client_of(cluster, timeout_s=2.0)
    watch = client.watch(b"a", b"b", 1)
    assert next(watch).created
    watched = first_member(client)
    others = [member for member in cluster.members if member.client_url != watched]
    own = [member for member in cluster.members if member.client_url == watched]
    for member in own if frozen == 1 else others:
        member.freeze()
    with pytest.raises(StoreFailed, match=r"timed out|no leader|deadline"):
        next(watch)


def test_what_a_frozen_member_carries_out_late_comes_too_late(cluster: EtcdCluster) -> None:
    """A reservation whose caller has given it up, and has withdrawn it elsewhere."""
    entry = make_entry()
    frozen, *others = cluster.members
    fence = read_user(books_of(cluster)).fence
    frozen.freeze()
    at_frozen = etcd_settings([frozen.client_url])
    impatient = books_of_client(EtcdClient(replace(at_frozen, timeout_s=0.5)))
    assert isinstance(impatient.reserve_entry(entry, fence), Unknown)
    books = books_of_client(EtcdClient(etcd_settings([member.client_url for member in others])))
    books.withdraw_entry(entry)
    frozen.thaw()
    frozen.wait_until_healthy()
    # Its queue is worked off: what came after it is answered.
    assert read_user(books_of_client(EtcdClient(at_frozen))).entries == ()
    assert read_contents(books).names == {}


def test_close_ends_what_waits(cluster: EtcdCluster) -> None:
    client = client_of(cluster, timeout_s=60.0)
    for member in cluster.members:
        member.freeze()
    failures: list[StoreFailed] = []

    def call() -> None:
        try:
            read(client)
        except StoreFailed as error:
            failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: client._connections._open)
    client.close()
    thread.join(60)
    assert "closed by ds01d" in str(failures[0])


# --- certificates and users -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> EtcdAuthority:
    return EtcdAuthority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secured(authority: EtcdAuthority) -> Iterator[EtcdCluster]:
    """An etcd with TLS and users: `gpu01` may do everything below the root of ds01d."""
    with started_etcd(tls=authority.make_server_tls()) as made:
        for words in USERS:
            made.run_etcdctl(*words)
        yield made


@pytest.fixture
def files(authority: EtcdAuthority) -> TlsFiles:
    certificate, key = authority.sign("client")
    return TlsFiles(authority=authority.certificate, certificate=certificate, key=key)


def log_in(cluster: EtcdCluster, files: TlsFiles, word: str = "first") -> EtcdClient:
    settings = etcd_settings(cluster.endpoints, tls=files, user="gpu01", read_password=lambda: word)
    return EtcdClient(settings)


def test_a_client_with_a_certificate_is_served(
    secured: EtcdCluster, authority: EtcdAuthority, files: TlsFiles
) -> None:
    client = log_in(secured, files)
    assert read(client).header.revision
    reserve(books_of_client(client), make_entry())
    assert next(client.watch(b"/ds01/v1/a", b"/ds01/v1/b", 0)).created
    # A certificate that was renewed counts from the next call on.
    assert files.certificate is not None
    files.certificate.write_bytes(b"")
    with pytest.raises(StoreFailed):
        read(client)
    authority.sign("client")
    client.breaker.record_success()
    assert read(client).header.revision


def test_a_certificate_with_a_common_name_is_refused_in_words(
    secured: EtcdCluster, authority: EtcdAuthority
) -> None:
    certificate, key = authority.sign("named", common_name="gpu01")
    named = TlsFiles(authority=authority.certificate, certificate=certificate, key=key)
    with pytest.raises(StoreRefused, match=r"common name \(CN\): make one without"):
        read(log_in(secured, named))


def test_neither_side_is_believed_without_a_certificate(
    secured: EtcdCluster, authority: EtcdAuthority, tmp_path: Path
) -> None:
    # The server ends the connection; whether its reason arrives before that is chance.
    with pytest.raises(StoreFailed, match=r"TLS failed: .*certificate|reset|closed|Broken pipe"):
        read(log_in(secured, TlsFiles(authority=authority.certificate)))
    other = EtcdAuthority(tmp_path, "other")
    certificate, key = other.sign("client")
    stranger = TlsFiles(authority=authority.certificate, certificate=certificate, key=key)
    with pytest.raises(StoreFailed, match=r"TLS failed|reset|closed|Broken pipe"):
        read(log_in(secured, stranger))
    with pytest.raises(StoreFailed, match="its certificate is not valid"):
        read(log_in(secured, TlsFiles(authority=other.certificate)))
    with pytest.raises(StoreFailed, match="No such file"):
        read(log_in(secured, TlsFiles(authority=tmp_path / "none.pem")))
    plain = etcd_settings([secured.endpoints[0].replace("https", "http")])
    with pytest.raises(StoreFailed):
        read(EtcdClient(plain))


def test_a_user_logs_in_and_again_when_the_token_is_forgotten(
    secured: EtcdCluster, files: TlsFiles
) -> None:
    books = books_of_client(log_in(secured, files))
    books.report_entry(make_entry())
    # Simple tokens are in the memory of the member.
    secured.members[0].stop()
    secured.start()
    assert len(read_user(books).entries) == 1
    assert books.keep_alive(30) is None
    # Any change of users makes the tokens old that were given before.
    secured.run_etcdctl("--user=root:admin", "user", "add", "gpu02:other")
    assert read_contents(books).alive == {NodeId("n1")}


def test_a_wrong_password_is_named_and_not_shown(secured: EtcdCluster, files: TlsFiles) -> None:
    books = books_of_client(log_in(secured, files, "a secret"))
    answer = books.read_user(UserName("alice"))
    assert isinstance(answer, Unknown)
    assert "authentication failed" in answer.reason
    assert "secret" not in answer.reason
    answer = books_of(secured, tls=files).read_user(UserName("alice"))
    assert isinstance(answer, Unknown)
    assert "permission denied: fleet.user needs" in answer.reason


def test_an_etcd_with_users_names_what_is_missing() -> None:
    body = b'{"code":3,"message":"etcdserver: user name is empty"}'
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body)
    with serving(answer_with(head, body)) as server:
        client = EtcdClient(etcd_settings([f"http://127.0.0.1:{server.port}"]))
        with pytest.raises(StoreRefused, match=r"expects a user and a password \(fleet.user\)"):
            read(client)


def test_a_user_may_not_leave_its_prefix(secured: EtcdCluster, files: TlsFiles) -> None:
    with pytest.raises(StoreRefused, match="permission denied"):
        log_in(secured, files).call("/kv/range", range_of(b"/other"), RangeReply)


def test_a_user_where_etcd_asks_for_none(cluster: EtcdCluster) -> None:
    books = books_of(cluster, user="gpu01", read_password=lambda: "first")
    assert isinstance(books.report_entry(make_entry()), Changed)


# --- what doctor asks -----------------------------------------------------------------------------


def test_how_each_member_is(cluster: EtcdCluster) -> None:
    client = client_of(cluster, timeout_s=20.0)

    def is_well() -> bool:
        return all(
            state.has_leader and not state.problem and not state.errors
            for state in look_at_members(client)
        )

    until(is_well)  # the tests before end members, and one more election is no harm
    states = look_at_members(client)
    assert [state.endpoint for state in states] == list(cluster.endpoints)
    assert {state.version for state in states} == {cluster.programs.version}
    assert len({state.cluster for state in states}) == 1
    for member in cluster.members[1:]:
        member.kill()
    first, second, _ = look_at_members(client)
    assert (first.version, first.problem) == (cluster.programs.version, "")
    assert "refused" in second.problem


RELEASES = [("trixie", True), ("bookworm", True), ("forky", False)]


@pytest.mark.proof
@pytest.mark.parametrize(("release", "is_flawed"), RELEASES if PROOFS else RELEASES[:1])
def test_where_users_of_etcd_protect_nothing(release: str, is_flawed: bool) -> None:
    """The advisory's claim, tried: a user of one prefix writes another key."""
    with started_etcd(release=release) as made:
        for words in USERS:
            made.run_etcdctl(*words)
        settings = etcd_settings(made.endpoints, user="gpu01", read_password=lambda: "first")
        client = EtcdClient(settings)
        inner = {"request_txn": txn([], [put_key(b"/other", b"")])}
        try:
            can_write = client.call("/kv/txn", txn([], [inner]), TxnReply).succeeded
        except StoreRefused:
            can_write = False
        version = parse_version(made.programs.version)
    assert version is not None
    assert can_write is is_flawed
    assert any("CVE-2026-33343" in flaw for flaw in find_flaws(version)) is is_flawed


# --- whoever else may listen there ----------------------------------------------------------------


def answer_with(head: bytes, body: bytes = b"") -> Callable[[socket.socket, Server], None]:
    def answer(connection: socket.socket, server: Server) -> None:
        server.requests.append(read_request(connection))
        connection.sendall(head + body)

    return answer


def ok(body: bytes) -> Callable[[socket.socket, Server], None]:
    return answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)


def drip(connection: socket.socket, server: Server) -> None:
    """A byte now and then: each is in time, and all of them never."""
    server.requests.append(read_request(connection))
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def flood(connection: socket.socket, server: Server) -> None:
    server.requests.append(read_request(connection))
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n%s\r\n" % (b"x" * 0x10000))


def reset(connection: socket.socket, server: Server) -> None:
    server.requests.append(read_request(connection))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up(connection: socket.socket, server: Server) -> None:
    connection.recv(1)


REFUSED = b'{"error":"\\u001b[31mno","code":7,"message":"\\u001b[31mno"}'


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (drip, "timed out"),
        (flood, "too large"),
        (
            answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000000000\r\n\r\n"),
            "too large|Incomplete",
        ),
        (reset, "reset"),
        (hang_up, "closed|reset|Remote"),
        (answer_with(b"\x16\x03\x01\x02garbage\r\n\r\n"), "garbage"),
        (answer_with(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000 + b"\r\n"), "headers"),
        (answer_with(b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n"), "HTTP 302"),
        (
            answer_with(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\n", b"no\x1b"),
            r"no\\x1b",
        ),
        (
            answer_with(
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(REFUSED), REFUSED
            ),
            r"\\x1b\[31mno",
        ),
        (ok(b""), "invalid answer"),
        (ok(b"null"), "invalid answer"),
        (ok(b"[" * 100_000), "invalid answer"),
        (ok(b'{"kvs":5}'), "invalid answer"),
        (ok(b'{"header":{"revision":"-1"}}'), "invalid answer"),
        (ok(b'{"kvs":[{"key":"not base64!"}]}'), "invalid answer"),
        (ok(b'{"kvs":[{"key":"\xff"}]}'), "invalid answer"),
    ],
)
def test_whatever_answers_is_a_failure_in_words_and_in_time(
    answer: Callable[[socket.socket, Server], None], words: str
) -> None:
    with serving(answer) as server:
        client = EtcdClient(etcd_settings([f"http://127.0.0.1:{server.port}"], timeout_s=3.0))
        with pytest.raises(StoreFailed, match=words) as caught:
            read(client)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_server_that_never_comes_to_an_end_is_left() -> None:
    body = b'{"header":{"revision":"5"},"more":true,"count":"9","kvs":[{"key":"YQ=="}]}'
    with serving(ok(body)) as server:
        client = EtcdClient(etcd_settings([f"http://127.0.0.1:{server.port}"]))
        books = books_of_client(client)
        answer = books.read_contents()
    assert isinstance(answer, Unknown)
    assert "no end after" in answer.reason


def books_of_client(client: EtcdClient) -> EtcdBooks:
    return EtcdBooks(client, NodeId("n1"))


def test_an_address_of_another_etcd_is_noticed_in_the_middle() -> None:
    replies = [
        b'{"header":{"revision":"5","cluster_id":"1"},"more":true,"kvs":[{"key":"YQ=="}]}',
        b'{"header":{"revision":"5","cluster_id":"2"},"kvs":[{"key":"Yg=="}]}',
    ]

    def answer(connection: socket.socket, server: Server) -> None:
        ok(replies[min(1, len(server.requests))])(connection, server)

    with serving(answer) as server:
        client = EtcdClient(etcd_settings([f"http://127.0.0.1:{server.port}"]))
        reason = books_of_client(client).read_contents()
    assert isinstance(reason, Unknown)
    assert "more than one etcd" in reason.reason


def test_what_is_sent(cluster: EtcdCluster) -> None:
    with serving(ok(b'{"header":{"revision":"5"}}')) as server:
        client = EtcdClient(etcd_settings([f"http://127.0.0.1:{server.port}"], timeout_s=60.0))
        assert read(client).header.revision == 5
    (request,) = server.requests
    head = request.partition(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"post /v3/kv/range http/1.1")
    assert b"grpc-metadata-hasleader: true" in head
    assert b"grpc-timeout: " in head
    assert b"authorization" not in head


# --- names ----------------------------------------------------------------------------------------


def test_a_resolver_that_is_silent_costs_no_more_than_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent = threading.Event()
    calls: list[str] = []

    def look_up(host: str, port: int, **_: object) -> list[object]:
        calls.append(host)
        if len(calls) > 1:
            silent.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    lookup = NameLookup()
    soon = time.monotonic() + 10
    expected = ((socket.AF_INET, ("192.0.2.1", 1)),)
    assert lookup.find_addresses("etcd1", 1, soon) == expected
    # Older addresses serve while the resolver is silent.
    assert lookup.find_addresses("etcd1", 1, soon) == expected
    with pytest.raises(TimeoutError, match="etcd2"):
        lookup.find_addresses("etcd2", 1, time.monotonic() + 0.05)
    with pytest.raises(TimeoutError, match="etcd2"):
        lookup.find_addresses("etcd2", 1, time.monotonic() + 0.05)
    assert calls == ["etcd1", "etcd1", "etcd2"]  # one question for each name is under way
    silent.set()


def test_addresses_need_no_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    lookup = NameLookup()
    assert lookup.find_addresses("127.0.0.1", 1, 0) == ((socket.AF_INET, ("127.0.0.1", 1)),)
    assert lookup.find_addresses("::1", 2, 0) == ((socket.AF_INET6, ("::1", 2, 0, 0)),)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example"])
def test_a_name_that_is_none(host: str) -> None:
    endpoint = replace(parse_endpoint("http://localhost:1"), host=host)
    client = EtcdClient(replace(etcd_settings([]), endpoints=(endpoint,)))
    with pytest.raises(StoreFailed, match=host):
        read(client)


def test_localhost_by_name_and_nobody_there() -> None:
    client = EtcdClient(etcd_settings([f"http://localhost:{find_free_port()}"]), CircuitBreaker())
    with pytest.raises(StoreFailed, match="refused"):
        read(client)
    with pytest.raises(StoreFailed, match="refused"):
        client.call_member(client.endpoints[0], "/maintenance/status", {}, StatusReply)


def test_limits_of_a_call() -> None:
    with pytest.raises(TimeoutError):
        CallLimits(deadline=time.monotonic() - 1, bytes_left=1).find_left_s()
