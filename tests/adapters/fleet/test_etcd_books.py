"""The fleet's store in a real etcd: who gets what, and what comes late, twice or spoilt."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec
import pytest

from ds01d.adapters.fleet import etcd_contents, etcd_store, kept_values
from ds01d.adapters.fleet.etcd_books import EtcdBooks
from ds01d.adapters.fleet.etcd_contents import WHOLE_EVERY
from ds01d.model.fleet_books import (
    Absent,
    Changed,
    Conflict,
    ConflictKind,
    EntryChange,
    NameEntry,
    NodeId,
    Revision,
)
from ds01d.model.primitives import ContainerName, Source, Unknown, UserName
from simulation.etcd import EtcdCluster
from tests.support.fleet_store import (
    books_of,
    confirmed,
    empty_store,
    make_entry,
    make_identity,
    read_contents,
    read_user,
    reserve,
    started_etcd,
)

ROOT = "/ds01/v1"


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    with started_etcd() as made:
        yield made


@pytest.fixture
def etcd(cluster: EtcdCluster) -> EtcdCluster:
    empty_store(cluster)
    return cluster


@pytest.fixture
def books(etcd: EtcdCluster) -> EtcdBooks:
    return books_of(etcd)


def keys(etcd: EtcdCluster) -> dict[str, str]:
    """Every key below the root, with its value."""
    lines = etcd.run_etcdctl("get", "--prefix", f"{ROOT}/").splitlines()
    return {
        key.removeprefix(f"{ROOT}/"): value
        for key, value in zip(lines[::2], lines[1::2], strict=True)
    }


def test_an_empty_store(books: EtcdBooks) -> None:
    found = read_user(books)
    assert (found.entries, found.fence, found.malformed) == ((), 0, {})
    contents = read_contents(books)
    assert (contents.entries, contents.names, contents.settings) == ((), {}, None)
    assert contents.revision > 0
    assert int(contents.cluster, 16) > 0


def test_a_reservation_is_one_revision_with_fence_and_name(
    etcd: EtcdCluster, books: EtcdBooks
) -> None:
    entry = make_entry()
    revision = reserve(books, entry)
    found = read_user(books)
    assert (found.entries, found.fence) == ((entry,), revision)
    assert read_contents(books).names == {
        entry.container: NameEntry(
            container=entry.container, node=entry.node, booking=entry.booking
        )
    }
    assert keys(etcd) == {
        "names/train-b1": '{"v":1,"node":"n1","booking":"b1"}',
        "users/alice/fence": '{"v":1}',
        "users/alice/held/n1/b1": (
            '{"v":1,"phase":"reserved","container":"train-b1","count":1,"sevenths":7,"slots":[],'
            '"since":1700000000.0}'
        ),
    }


def test_who_counted_before_another_reservation_counts_again(
    etcd: EtcdCluster, books: EtcdBooks
) -> None:
    other = books_of(etcd, "n2")
    fence = read_user(books).fence
    reserve(other, make_entry("b2", node=NodeId("n2")))
    assert books.reserve_entry(make_entry(), fence) == Conflict(kind=ConflictKind.FENCE)
    assert len(read_user(books).entries) == 1
    reserve(books, make_entry())
    assert len(read_user(books).entries) == 2


def test_the_last_of_a_quota_goes_to_one_of_many_hosts(etcd: EtcdCluster) -> None:
    hosts = [books_of(etcd, f"n{number}") for number in range(6)]
    fence = read_user(hosts[0]).fence
    answers: list[object] = []

    def ask(number: int) -> None:
        entry = make_entry(f"b{number}", node=NodeId(f"n{number}"))
        answers.append(hosts[number].reserve_entry(entry, fence))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(answer, Changed) for answer in answers) == 1
    assert answers.count(Conflict(kind=ConflictKind.FENCE)) == 5
    assert len(read_user(hosts[0]).entries) == 1


def test_no_name_is_taken_twice(etcd: EtcdCluster, books: EtcdBooks) -> None:
    mine = make_entry(container=ContainerName("train"))
    reserve(books, mine)
    other = books_of(etcd, "n2")
    theirs = replace(make_entry("b2", node=NodeId("n2")), container=mine.container)
    theirs = replace(theirs, user=UserName("bob"))
    holder = NameEntry(container=mine.container, node=mine.node, booking=mine.booking)
    conflict = Conflict(kind=ConflictKind.NAME, holder=holder)
    assert other.reserve_entry(theirs, Revision(0)) == conflict
    assert read_user(other, "bob").entries == ()
    # What is real already is reported all the same, without the name.
    assert other.report_entry(theirs) == conflict
    assert read_user(other, "bob").entries == (theirs,)
    # Nor does its end free the name of another.
    assert isinstance(other.withdraw_entry(theirs), Changed)
    assert read_contents(books).names == {mine.container: holder}


def test_asking_twice_is_as_asking_once(books: EtcdBooks) -> None:
    """Its answer was lost, so it asks again; or a member that was frozen carries it out late."""
    entry = make_entry()
    fence = read_user(books).fence
    first = books.reserve_entry(entry, fence)
    assert books.reserve_entry(entry, fence) == first
    larger = replace(entry, count=2)
    assert books.reserve_entry(larger, fence) == Conflict(kind=ConflictKind.FENCE)
    assert isinstance(books.withdraw_entry(entry), Changed)
    assert books.withdraw_entry(entry) == Absent()
    # The reservation that comes now was decided before: the fence is another.
    late = read_user(books).fence
    assert late > fence
    assert books.reserve_entry(entry, fence) == Conflict(kind=ConflictKind.FENCE)
    assert read_user(books).entries == ()


def test_confirm_and_withdraw_concern_one_booking_only(books: EtcdBooks) -> None:
    old, new = make_entry("old", container=ContainerName("train")), make_entry("new")
    new = replace(new, container=old.container)
    reserve(books, old)
    assert isinstance(books.withdraw_entry(old), Changed)
    reserve(books, new)
    # The same host and the same name, and yet another booking.
    assert books.confirm_entry(confirmed(old, "0")) == Absent()
    assert books.withdraw_entry(old) == Absent()
    assert read_user(books).entries == (new,)
    assert isinstance(books.confirm_entry(confirmed(new, "1.0")), Changed)
    assert read_user(books).entries == (confirmed(new, "1.0"),)


def test_a_confirmation_bumps_the_fence_only_where_the_entry_counts_otherwise(
    books: EtcdBooks,
) -> None:
    entry = make_entry()
    reserve(books, entry)
    fence = read_user(books).fence
    assert isinstance(books.confirm_entry(confirmed(entry, "0")), Changed)
    assert read_user(books).fence == fence
    larger = replace(confirmed(entry, "0", "1"), count=2, sevenths=14)
    assert isinstance(books.confirm_entry(larger), Changed)
    grown = read_user(books).fence
    assert grown > fence
    # Who counted the larger one and leaves out the rest, as it is in a shared slot, counts again.
    shrunk = replace(larger, count=0, sevenths=0)
    assert isinstance(books.confirm_entry(shrunk), Changed)
    assert books.reserve_entry(make_entry("b2"), grown) == Conflict(kind=ConflictKind.FENCE)
    assert read_user(books).entries == (shrunk,)


def test_a_confirmation_follows_a_rename(books: EtcdBooks) -> None:
    entry = make_entry()
    reserve(books, entry)
    renamed = replace(confirmed(entry, "0"), container=ContainerName("renamed"))
    assert isinstance(books.confirm_entry(renamed), Changed)
    assert list(read_contents(books).names) == ["renamed"]
    assert isinstance(books.withdraw_entry(entry), Changed)
    assert read_contents(books).names == {}


def test_the_name_stays_with_a_booking_that_is_another_users_now(
    etcd: EtcdCluster, books: EtcdBooks
) -> None:
    entry = make_entry()
    reserve(books, entry)
    theirs = replace(confirmed(entry, "0"), user=UserName("bob"))
    assert isinstance(books.report_entry(theirs), Changed)
    assert isinstance(books.withdraw_entry(entry, keeps_names=True), Changed)
    assert read_contents(books).entries == (theirs,)
    other = books_of(etcd, "n2")
    late = replace(make_entry("b2", node=NodeId("n2")), container=entry.container)
    answer = other.reserve_entry(late, read_user(other).fence)
    assert isinstance(answer, Conflict)
    assert answer.kind is ConflictKind.NAME


def test_only_a_name_that_the_entry_has_not_is_freed_beside_it(
    etcd: EtcdCluster, books: EtcdBooks
) -> None:
    entry = confirmed(make_entry(), "0")
    assert isinstance(books.report_entry(entry), Changed)
    etcd.run_etcdctl("put", f"{ROOT}/names/former", '{"v":1,"node":"n1","booking":"b1"}')
    etcd.run_etcdctl("put", f"{ROOT}/names/theirs", '{"v":1,"node":"n2","booking":"b1"}')
    assert books.free_name(entry) == Absent()
    assert books.free_name(replace(entry, container=ContainerName("theirs"))) == Absent()
    former = replace(entry, container=ContainerName("former"))
    assert isinstance(books.free_name(former), Changed)
    assert books.free_name(former) == Absent()
    contents = read_contents(books)
    assert (set(contents.names), contents.entries) == ({entry.container, "theirs"}, (entry,))


def test_what_is_real_is_reported_and_bumps_the_fence(books: EtcdBooks) -> None:
    fence = reserve(books, make_entry())
    entry = confirmed(make_entry("b2"), "1")
    assert isinstance(books.report_entry(entry), Changed)
    assert read_user(books).entries == (make_entry(), entry)
    assert read_user(books).fence > fence
    assert isinstance(books.report_entry(replace(entry, count=3)), Changed)
    assert read_user(books).entries[1].count == 3


def test_half_of_a_booking_is_no_obstacle(etcd: EtcdCluster, books: EtcdBooks) -> None:
    entry = make_entry()
    reserve(books, entry)
    etcd.run_etcdctl("del", f"{ROOT}/users/alice/held/n1/b1")
    reserve(books, entry)
    assert read_user(books).entries == (entry,)
    etcd.run_etcdctl("del", f"{ROOT}/users/alice/held/n1/b1")
    assert isinstance(books.withdraw_entry(entry), Changed)
    assert read_contents(books).names == {}
    reserve(books, entry)
    etcd.run_etcdctl("del", f"{ROOT}/names/{entry.container}")
    assert isinstance(books.confirm_entry(confirmed(entry, "0")), Changed)
    assert list(read_contents(books).names) == [entry.container]


def test_fields_of_a_newer_version_are_written_back(etcd: EtcdCluster, books: EtcdBooks) -> None:
    entry = make_entry()
    reserve(books, entry)
    key = f"{ROOT}/users/alice/held/n1/b1"
    value = json.loads(etcd.run_etcdctl("get", key, "--print-value-only"))
    etcd.run_etcdctl("put", key, json.dumps({**value, "v": 2, "team": ["x"]}))
    (found,) = read_user(books).entries
    assert json.loads(msgspec.json.encode(found.extra)) == {"team": ["x"]}
    assert isinstance(books.confirm_entry(confirmed(entry, "0")), Changed)
    (found,) = read_user(books).entries
    assert found.slots == ("0",)
    value = json.loads(etcd.run_etcdctl("get", key, "--print-value-only"))
    assert (value["phase"], value["team"]) == ("held", ["x"])


@pytest.mark.parametrize(
    "value",
    [
        "",
        "null",
        "[]",
        "{",
        '{"v":1}',
        '{"v":0,"phase":"held","container":"c","count":1,"sevenths":7}',
        '{"v":1,"phase":"held","container":"c","count":-1,"sevenths":7}',
        '{"v":1,"phase":"held","container":"c","count":1e99,"sevenths":7}',
        '{"v":1,"phase":"held","container":"c","count":"1","sevenths":7}',
        '{"v":1,"phase":"held","container":"","count":1,"sevenths":7}',
        "[" * 5000,
        '{"v":1,"x":"' + "x" * 70_000 + '"}',
    ],
)
def test_an_entry_that_makes_no_sense_is_never_taken_for_nothing(
    etcd: EtcdCluster, books: EtcdBooks, value: str
) -> None:
    key = f"{ROOT}/users/alice/held/n2/b2"
    etcd.run_etcdctl("put", key, value)
    reserve(books, make_entry())
    found = read_user(books)
    assert found.entries == (make_entry(),)
    assert list(found.malformed) == [key]
    assert list(read_contents(books).malformed) == [key]


@pytest.mark.parametrize("bound", ["time", "size", "memory"])
def test_of_whom_there_is_too_much_no_more_is_read_and_the_store_is_not_away(
    etcd: EtcdCluster, books: EtcdBooks, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    for number in range(8):
        value = '{"v":1,"phase":"held","container":"c","count":1,"sevenths":7}'
        etcd.run_etcdctl("put", f"{ROOT}/users/alice/held/n2/b{number}", value)
    reserve(books, replace(make_entry(), user=UserName("bob")))
    assert len(read_user(books).entries) == 8
    monkeypatch.setattr(etcd_store, "PAGE", 3)
    match bound:
        case "time":
            monkeypatch.setattr(etcd_contents, "USER_S", 0.0)
        case "size":
            monkeypatch.setattr(etcd_store, "MAX_BYTES", 300)
        case _:
            monkeypatch.setattr(kept_values, "MAX_KEPT_BYTES", 3000)
    found = read_user(books)
    assert found.uncounted.startswith("too much in etcd: ")
    assert (found.entries, found.fence) == ((), 0)
    (entry,) = read_user(books, "bob").entries
    assert isinstance(books.withdraw_entry(entry), Changed)


def test_what_serves_for_display_only_does_not_spoil_an_entry(
    etcd: EtcdCluster, books: EtcdBooks
) -> None:
    value = '{"v":1,"phase":"later","container":"c","count":2,"sevenths":7,"slots":5,"since":"x"}'
    etcd.run_etcdctl("put", f"{ROOT}/users/alice/held/n2/b2", value)
    (found,) = read_user(books).entries
    assert (found.count, found.phase, found.slots, found.since) == (2, "held", (), 0.0)


def test_the_host_repairs_its_own_spoilt_entry(etcd: EtcdCluster, books: EtcdBooks) -> None:
    entry = make_entry()
    reserve(books, entry)
    for key in (f"users/alice/held/n1/{entry.booking}", f"names/{entry.container}"):
        etcd.run_etcdctl("put", f"{ROOT}/{key}", "spoilt")
    assert isinstance(books.confirm_entry(confirmed(entry, "0")), Changed)
    assert read_user(books).entries == (confirmed(entry, "0"),)
    # A name that nobody can be asked about is free for nobody.
    assert read_contents(books).names[entry.container].node == ""
    conflict = books.reserve_entry(
        replace(make_entry("b2"), container=entry.container), read_user(books).fence
    )
    assert isinstance(conflict, Conflict)
    assert conflict.kind is ConflictKind.NAME


def test_odd_names_keep_to_their_keys(etcd: EtcdCluster, books: EtcdBooks) -> None:
    names = ("a/held/n1", "../..", "ä\x00 \x1b[31m", "%61lice", "x" * 500)
    entries = [
        replace(make_entry(f"b{number}"), user=UserName(name), container=ContainerName(name))
        for number, name in enumerate(names)
    ]
    for entry in entries:
        reserve(books, entry)
    for entry in entries:
        (found,) = read_user(books, entry.user).entries
        assert (found.user, found.booking) == (entry.user, entry.booking)
    contents = read_contents(books)
    assert (len(contents.entries), set(contents.names), contents.malformed) == (
        len(names),
        set(names),
        {},
    )
    for entry in entries:
        assert isinstance(books.withdraw_entry(entry), Changed)
    assert all("fence" in key for key in keys(etcd))


def test_a_second_spelling_of_a_name_is_reported(etcd: EtcdCluster, books: EtcdBooks) -> None:
    reserve(books, make_entry())
    value = keys(etcd)["users/alice/held/n1/b1"]
    for key in ("users/%61lice/held/n1/b1", "users/%ff/held/n1/b1", "names/%2f"):
        etcd.run_etcdctl("put", f"{ROOT}/{key}", value)
    etcd.run_etcdctl("put", f"{ROOT}/later/thing", "of a newer version")
    contents = read_contents(books)
    assert len(contents.entries) == 1
    assert len(contents.malformed) == 3


# --- who a host is --------------------------------------------------------------------------------


def test_an_identity_is_counted_up_by_one_host_only(etcd: EtcdCluster, books: EtcdBooks) -> None:
    first = make_identity()
    answer = books.take_identity(first, None)
    assert isinstance(answer, Changed)
    assert books.take_identity(first, None) == answer  # the first answer was lost
    assert read_contents(books).identities == {first.node: first}
    # A copy of this host, from an image of it: the same incarnation, and made up elsewhere.
    clone = books_of(etcd)
    second = make_identity(incarnation=2)
    assert isinstance(clone.take_identity(second, 1), Changed)
    conflict = Conflict(kind=ConflictKind.INCARNATION, identity=second)
    assert books.take_identity(make_identity(incarnation=2, nonce="other"), 1) == conflict
    assert books.take_identity(make_identity(incarnation=2, nonce="other"), None) == conflict


def test_a_host_that_was_cloned_or_forgotten_changes_no_entry(
    etcd: EtcdCluster, books: EtcdBooks
) -> None:
    books.take_identity(make_identity(), None)
    entry = make_entry()
    reserve(books, entry)
    clone = books_of(etcd)
    second = make_identity(incarnation=2)
    clone.take_identity(second, 1)
    fence = read_user(books).fence
    conflict = Conflict(kind=ConflictKind.INCARNATION, identity=second)
    assert books.reserve_entry(make_entry("b2"), fence) == conflict
    assert books.report_entry(make_entry("b2")) == conflict
    assert books.confirm_entry(confirmed(entry, "0")) == conflict
    assert books.withdraw_entry(entry) == conflict
    assert read_user(books).entries == (entry,)
    assert isinstance(books_of(etcd, "admin").forget_node(entry.node), Changed)
    assert clone.withdraw_entry(entry) == Conflict(kind=ConflictKind.INCARNATION)
    assert isinstance(
        clone.take_identity(make_identity(incarnation=3), None, rejoins=True), Changed
    )
    assert isinstance(clone.report_entry(entry), Changed)


def test_a_copy_becomes_a_host_of_its_own(etcd: EtcdCluster, books: EtcdBooks) -> None:
    books.take_identity(make_identity(), None)
    reserve(books, make_entry())
    clone = books_of(etcd)
    assert clone.keep_alive(60) is None
    assert isinstance(clone.take_identity(make_identity("n2"), None), Changed)
    reserve(clone, make_entry("b2", node=NodeId("n2")))
    assert clone.keep_alive(60) is None
    assert clone.publish_summary({"free": 1}) is None
    contents = read_contents(clone)
    assert set(contents.alive) == {"n1", "n2"}
    assert set(contents.summaries) == {"n2"}
    with pytest.raises(ValueError, match="n1"):
        clone.withdraw_entry(make_entry())
    assert isinstance(books.withdraw_entry(make_entry()), Changed)


def test_a_host_is_marked_as_forgotten_until_it_takes_part_again(
    etcd: EtcdCluster, books: EtcdBooks
) -> None:
    books.take_identity(make_identity(), None)
    admin = books_of(etcd, "admin")
    before = admin.forget_node(NodeId("n1"))
    again = admin.forget_node(NodeId("n1"))
    assert isinstance(before, Changed)
    assert isinstance(again, Changed)
    assert again.revision > before.revision
    assert read_contents(books).forgotten == {"n1": again.revision}
    assert read_contents(admin).identities == {}
    second = make_identity(incarnation=2)
    assert books.take_identity(second, None) == Conflict(kind=ConflictKind.INCARNATION)
    assert isinstance(books.take_identity(second, None, rejoins=True), Changed)
    assert read_contents(books).forgotten == {}
    # An older ds01d leaves the key when it rejoins: the identity tells.
    etcd.run_etcdctl("put", f"{ROOT}/forgotten/n1", "{}")
    assert isinstance(books.take_identity(make_identity(incarnation=3), 2), Changed)
    assert "forgotten/n1" not in keys(etcd)


def test_forgetting_a_host_takes_all_of_it_and_nothing_else(
    etcd: EtcdCluster, books: EtcdBooks
) -> None:
    other = books_of(etcd, "n2")
    for host, node in ((books, "n1"), (other, "n2")):
        host.take_identity(make_identity(node), None)
        assert host.keep_alive(60) is None
        assert host.publish_summary({"free": 3, "state": "member"}) is None
    for number in range(150):
        books.report_entry(replace(make_entry(f"b{number}"), user=UserName(f"u{number % 7}")))
    kept = replace(make_entry("kept", node=NodeId("n2")), container=ContainerName("theirs"))
    reserve(other, kept)
    contents = read_contents(other)
    assert len(contents.entries) == 151
    assert set(contents.alive) == {"n1", "n2"}
    assert contents.summaries[NodeId("n1")] == {"state": "member", "synced": None}
    assert isinstance(other.forget_node(NodeId("n1")), Changed)
    contents = read_contents(other)
    assert (contents.entries, set(contents.names)) == ((kept,), {"theirs"})
    for nodes in (contents.identities, contents.alive, contents.summaries):
        assert set(nodes) == {"n2"}


def test_alive_is_written_once_and_comes_back(etcd: EtcdCluster, books: EtcdBooks) -> None:
    assert books.keep_alive(30) is None
    before = read_contents(books)
    assert before.alive == {"n1"}
    assert books.keep_alive(30) is None
    assert read_contents(books).revision == before.revision
    empty_store(etcd)
    assert books.keep_alive(30) is None
    assert read_contents(books).alive == {"n1"}
    for lease in etcd.run_etcdctl("lease", "list").split("leases")[-1].split():
        etcd.run_etcdctl("lease", "revoke", lease)
    assert read_contents(books).alive == frozenset()
    assert books.keep_alive(30) is None
    assert read_contents(books).alive == {"n1"}


# --- which store it is ----------------------------------------------------------------------------


def test_a_store_that_was_restored_reserves_nothing(etcd: EtcdCluster, books: EtcdBooks) -> None:
    books.take_identity(make_identity(), None)
    first = make_entry()
    reserve(books, first)
    backup = etcd.folder / "backup"
    backup.unlink(missing_ok=True)
    etcd.save_snapshot(backup)
    reserve(books, make_entry("b2"))
    contents = read_contents(books)
    books.expect_store(contents.cluster, contents.revision)
    fence = read_user(books).fence

    etcd.restore_snapshot(backup, same_id=True)
    answers = [
        books.read_user(UserName("alice")),
        books.reserve_entry(make_entry("b3"), fence),
        books.withdraw_entry(first),
    ]
    assert all(isinstance(answer, Unknown) for answer in answers), answers
    assert "restored from a backup" in str(answers[0])
    assert read_contents(books).entries == (first,)

    etcd.restore_snapshot(backup)
    answer = books.read_user(UserName("alice"))
    assert isinstance(answer, Unknown)
    assert "another etcd answers" in answer.reason
    contents = read_contents(books)
    books.expect_store(contents.cluster, contents.revision)
    assert isinstance(books.take_identity(make_identity(incarnation=2), 1), Changed)
    assert isinstance(books.report_entry(make_entry("b2")), Changed)
    assert len(read_user(books).entries) == 2


# --- sizes and streams ----------------------------------------------------------------------------


def test_many_entries_are_read_at_one_revision(
    etcd: EtcdCluster, books: EtcdBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds01d.adapters.fleet.etcd_store.PAGE", 7)
    entries = [make_entry(f"b{number:02}") for number in range(20)]
    for entry in entries:
        reserve(books, entry)
    assert read_user(books).entries == tuple(entries)
    # Values so large that a page of them is more than is read at once.
    for number in range(7):
        key = f"{ROOT}/users/alice/held/n2/b{number}"
        etcd.programs.run(
            "etcdctl",
            f"--endpoints={etcd.endpoints[0]}",
            *("put", key, "--", "x" * 120_000),
        )
    monkeypatch.setattr("ds01d.adapters.fleet.etcd_connections.MAX_REPLY_BYTES", 400_000)
    found = read_user(books)
    assert found.entries == tuple(entries)
    assert len(found.malformed) == 7


def test_what_is_kept_and_brought_up_to_date_is_what_is_there(
    etcd: EtcdCluster, books: EtcdBooks
) -> None:
    """After the first time only what changed is read, and what was deleted is noticed."""
    entries = [make_entry(f"b{number}") for number in range(8)]
    for entry in entries:
        reserve(books, entry)
    changes: list[Callable[[], object]] = [
        lambda: books.confirm_entry(confirmed(entries[0], "0")),
        lambda: books.withdraw_entry(entries[1]),
        lambda: (books.withdraw_entry(entries[2]), books.report_entry(make_entry("new"))),
        lambda: books.take_identity(make_identity(), None),
        lambda: books.keep_alive(60),
        lambda: books.publish_summary({"free": 1}),
        lambda: etcd.run_etcdctl("put", f"{ROOT}/users/alice/held/n1/b3", "spoilt"),
        lambda: etcd.run_etcdctl("put", f"{ROOT}/names/{entries[4].container}", "spoilt"),
        lambda: etcd.run_etcdctl("put", f"{ROOT}/users/%61/held/n1/b3", "another spelling"),
        lambda: etcd.run_etcdctl("put", f"{ROOT}/fleet", '{"v":1,"name":"lab"}'),
        lambda: etcd.run_etcdctl("put", "/elsewhere", "not ours"),
        lambda: books.confirm_entry(confirmed(entries[3], "3")),
        lambda: etcd.run_etcdctl("del", f"{ROOT}/users/%61/held/n1/b3"),
        lambda: etcd.run_etcdctl("put", f"{ROOT}/fleet", "{}"),
        lambda: books.forget_node(NodeId("n1")),
    ]
    reader = books_of(etcd)
    first = read_contents(reader)
    assert len(first.entries) == 8
    for change in changes:
        change()
        assert read_contents(reader) == read_contents(books_of(etcd))
    assert reader._contents._reads_left == WHOLE_EVERY - len(changes)
    assert len(first.entries) == 8  # what was given away stays as it was


def test_another_store_and_an_older_one_are_read_as_a_whole(
    etcd: EtcdCluster, books: EtcdBooks
) -> None:
    reserve(books, make_entry())
    backup = etcd.folder / "whole"
    etcd.save_snapshot(backup)
    reserve(books, make_entry("b2"))
    assert len(read_contents(books).entries) == 2
    for same_id in (True, False):
        etcd.restore_snapshot(backup, same_id=same_id)
        assert read_contents(books).entries == (make_entry(),)
    revision = reserve(books, make_entry("b3"))
    books.withdraw_entry(make_entry("b3"))
    etcd.run_etcdctl("compact", str(revision))
    assert read_contents(books).entries == (make_entry(),)


def test_a_watch_shows_what_happens_to_entries(etcd: EtcdCluster, books: EtcdBooks) -> None:
    start = read_contents(books).revision
    entry = make_entry()
    reserve(books, entry)
    books.confirm_entry(confirmed(entry, "0"))
    etcd.run_etcdctl("put", f"{ROOT}/users/alice/held/n2/b2", "spoilt")
    books.withdraw_entry(entry)
    changes: list[EntryChange | Unknown] = []
    for change in books.watch_entries(start):
        changes.append(change)
        if len(changes) == 4:
            books.close()
    entries = [change.entry for change in changes if isinstance(change, EntryChange)]
    assert entries == [entry, confirmed(entry, "0"), None, None]
    third, last = changes[2], changes[-1]
    assert isinstance(third, EntryChange)
    assert third.malformed
    assert isinstance(last, Unknown)
    assert last.source is Source.FLEET


def test_a_watch_from_a_revision_that_is_gone_says_so(etcd: EtcdCluster, books: EtcdBooks) -> None:
    # A new store begins with revision 1, and what it is compacted to is still there itself.
    etcd.run_etcdctl("put", "other", "1")
    revision = reserve(books, make_entry())
    etcd.run_etcdctl("compact", str(revision))
    (answer,) = books.watch_entries(Revision(1))
    assert isinstance(answer, Unknown)
    assert "compacted" in answer.reason


def test_another_hosts_entries_are_not_changed(books: EtcdBooks) -> None:
    theirs = make_entry("b2", node=NodeId("n2"))
    with pytest.raises(ValueError, match="n2"):
        books.withdraw_entry(theirs)
