"""Passes over the store of a fleet: what is repaired there, when, and who may take part."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ds01d.errors import Refused
from ds01d.model.books import Record
from ds01d.model.fleet_books import (
    MAX_INCARNATION,
    EntryPhase,
    FleetContents,
    FleetEntry,
    NameEntry,
    NodeId,
    NodeIdentity,
)
from ds01d.model.fleet_drift import OwnBooking
from ds01d.model.primitives import BookingId, ContainerName, Source, UserName, Wall
from tests.support.fleet_hosts import FilesInMemory, FleetHost, refusal
from tests.support.fleet_memory_store import StoreInMemory, StoreView

A, B = "a._.1001", "b._.1001"


@pytest.fixture
def store() -> StoreInMemory:
    return StoreInMemory()


def start(
    store: StoreInMemory, name: str, files: FilesInMemory | None = None, **how: object
) -> FleetHost:
    host = FleetHost(name, StoreView(store), files=files, **how)  # type: ignore[arg-type]
    host.sweep()
    host.sync()
    return host


def restart(host: FleetHost) -> FleetHost:
    """Another ds01d on the same host."""
    view = host.book
    assert isinstance(view, StoreView)
    again = FleetHost(host.name, StoreView(view.store), files=host.files, life=host.life)
    again.sweep()
    again.sync()
    return again


def left_entry(node: NodeId, container: str = A) -> FleetEntry:
    return FleetEntry(
        user=UserName("alice"),
        node=node,
        booking=BookingId("r-000000000000"),
        container=ContainerName(container),
        phase=EntryPhase.RESERVED,
        count=1,
        sevenths=7,
        since=Wall(0.0),
    )


def put(store: StoreInMemory, entry: FleetEntry) -> None:
    StoreView(store).report_entry(entry)


def shown(store: StoreInMemory) -> dict[str, tuple[str, int]]:
    return {str(e.container): (str(e.phase), e.count) for e in store.entries.values()}


# --- own entries


def test_the_status_of_a_host_is_new_only_with_what_it_shows(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    put(store, left_entry(host.worker.node))
    host.sync()
    before = host.session.find_status()
    assert before.drifts[0].first_seen is not None
    # As clocks do that are read one after the other: else the daemon would publish all the time.
    host.life.host.wall += 0.000_001
    assert host.session.find_status() == before
    host.life.host.pass_time(60)
    host.sync()
    assert host.session.find_status() != before


def test_a_left_reservation_is_withdrawn_once_a_sweep_has_not_found_it(
    store: StoreInMemory,
) -> None:
    host = start(store, "gpu01")
    put(store, left_entry(host.worker.node))
    host.sync()
    assert host.kinds() == {("stale-reservation", "waiting")}
    host.life.host.pass_time(60)
    host.sync()
    assert host.kinds() == {("stale-reservation", "waiting")}  # settled, and no sweep since
    host.sweep()
    host.sync()
    assert host.kinds() == {("stale-reservation", "done")}
    assert (store.entries, store.names) == ({}, {})


def test_what_was_booked_beside_the_store_is_reported(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    host.life.book("0", "1", name=A, user="alice")
    host.settle()
    assert shown(store) == {A: ("held", 2)}
    host.sync()
    assert host.kinds() == set()


def test_also_above_the_quota_and_never_undone(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    host.life.book("0", "1", "2", name=A, user="alice")
    host.settle()
    assert host.findings() == {"over-quota alice": "3 of 2 slots over all hosts"}
    assert len(host.booked) == 3


def test_an_entry_that_is_wrong_is_made_right(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    host.allocate(A)
    ((key, entry),) = store.entries.items()
    store.entries[key] = replace(entry, count=9, slots=(), extra={"note": "kept"})
    host.settle()
    assert shown(store) == {A: ("held", 1)}


def test_a_booking_that_changes_hands_keeps_its_name_all_the_time(store: StoreInMemory) -> None:
    host, other = start(store, "gpu01"), start(store, "gpu02")
    host.life.book("0", name=A, user="alice")
    host.settle()
    # Its owner was corrected in the record, or `usermod --login` renamed the user.
    simulated = host.life.host
    name = ContainerName(A)
    record = simulated.records[name]
    assert isinstance(record, Record)
    simulated.records[name] = replace(record, user=UserName("bob"))
    host.sweep()
    for step in range(8):
        # The new entry is due before the former one is withdrawn, which waits for a sweep.
        if step in (4, 6):
            host.sweep()
        host.sync()
        assert refusal(other.allocate(A)) == f"NAME_TAKEN ({A} on gpu01)"
        simulated.pass_time(60)
    assert {(e.user, e.container) for e in store.entries.values()} == {("bob", A)}
    assert host.kinds() == set()


def test_a_former_name_of_a_booking_that_lives_is_freed(store: StoreInMemory) -> None:
    host, other = start(store, "gpu01"), start(store, "gpu02")
    host.allocate(A)
    host.settle()
    (entry,) = store.entries.values()
    for name in (ContainerName("old"), ContainerName("older")):
        store.names[name] = NameEntry(container=name, node=entry.node, booking=entry.booking)
    assert refusal(other.allocate("old")) == "NAME_TAKEN (old on gpu01)"
    host.sync()
    assert host.kinds() == {("stale-reservation", "waiting")}
    host.settle()
    assert (set(store.names), shown(store)) == ({A}, {A: ("held", 1)})
    assert "booking" in other.allocate("old")["parameters"]


def test_a_rename_is_one_difference_and_takes_the_name_along(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    host.life.book("0", name=A, user="alice")
    host.settle()
    ((key, entry),) = store.entries.items()
    store.entries[key] = replace(entry, container=ContainerName("old"))
    store.names[ContainerName("old")] = replace(
        store.names.pop(ContainerName(A)), container=ContainerName("old")
    )
    host.sync()
    assert host.kinds() == {("wrong-entry", "waiting")}
    host.settle()
    assert (set(store.names), shown(store)) == ({A}, {A: ("held", 1)})


def test_unreadable_books_change_nothing_in_the_store(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    host.allocate(A)
    changes = len(store.changes)
    for source in (Source.STATE, Source.METADATA):
        host.life.fail(source)
        host.settle()
        host.life.mend()
    assert len(store.changes) == changes
    assert shown(store) == {A: ("held", 1)}


def test_a_name_that_another_host_has_is_a_finding(store: StoreInMemory) -> None:
    one, two = start(store, "gpu01"), start(store, "gpu02")
    one.allocate(A)
    two.life.book("0", name=A, user="alice")
    two.settle()
    assert two.findings()[f"duplicate-name {A}"] == "gpu01 has a container of that name, too"
    one.release(A)
    one.sync()
    two.settle()
    assert {taken.node for taken in store.names.values()} == {two.worker.node}
    assert not two.findings()


def test_a_host_without_a_sign_goes_on_counting(store: StoreInMemory) -> None:
    one, two = start(store, "gpu01"), start(store, "gpu02")
    one.allocate(A)
    one.allocate(B)
    store.alive.discard(one.worker.node)
    two.life.host.pass_time(3600)
    two.sync()
    assert two.findings()["node-unknown gpu01"].endswith("its 2 slots go on counting")
    assert refusal(two.allocate("c._.1001")) == "USER_AT_LIMIT (2/2 on gpu01)"


# --- who takes part


def test_each_start_counts_one_up(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    for _ in range(3):
        host = restart(host)
    ((identity, _),) = store.identities.values()
    assert (identity.incarnation, identity.host) == (4, "gpu01")
    assert json.loads(host.files.files["fleet.json"])["incarnation"] == 4


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_at_the_start_makes_no_copy(store: StoreInMemory, when: str) -> None:
    view, files = StoreView(store), FilesInMemory()
    view.failures = [when]
    host = FleetHost("gpu01", view, files=files)
    host.sweep()
    host.sync()
    assert host.session.find_status().state == "away"
    host = restart(host)
    assert host.session.find_status().state == "member"


def test_a_host_put_back_from_an_image_is_fenced_until_it_rejoins(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    image = FilesInMemory()
    image.files = dict(host.files.files)
    host = restart(host)
    host.allocate(A)
    host.files = image
    back = restart(host)
    assert back.session.find_status().state == "fenced"
    back.settle()
    assert (shown(store), back.booked) == ({A: ("held", 1)}, {(A, "0")})
    assert "booking" in back.allocate(B)["parameters"]  # by its own limits
    assert refusal(call_admin(back, "FleetRejoin", by="alice")).startswith("NotPermitted")
    assert "takes part again as" in str(call_admin(back, "FleetRejoin")["done"])
    back.settle()
    assert shown(store) == {A: ("held", 1), B: ("held", 1)}
    assert len(store.identities) == 1


def test_a_host_without_a_higher_incarnation_rejoins_as_another(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    host.allocate(A)
    ((node, (identity, _)),) = store.identities.items()
    for incarnation in (MAX_INCARNATION - 1, MAX_INCARNATION):
        made_up = replace(identity, incarnation=incarnation, nonce="")
        store.identities[node] = (made_up, store.raise_revision().revision)
        host = restart(host)
        assert host.session.find_status().state == "fenced"
        # The last one may be had once.
        if incarnation < MAX_INCARNATION:
            assert "done" in call_admin(host, "FleetRejoin")
    said = refusal(call_admin(host, "FleetRejoin"))
    assert "none is higher: ds01ctl fleet rejoin --as-new" in said
    assert host.session.find_status().state == "fenced"
    assert store.identities[node][0].incarnation == MAX_INCARNATION
    assert "a new host" in str(call_admin(host, "FleetRejoin", as_new=True)["done"])
    assert restart(host).session.find_status().state == "member"


def test_after_the_last_incarnation_a_start_is_fenced(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    kept = json.loads(host.files.files["fleet.json"])
    kept["incarnation"] = MAX_INCARNATION
    host.files.files["fleet.json"] = json.dumps(kept).encode()
    ((node, (identity, _)),) = store.identities.items()
    last = replace(identity, incarnation=MAX_INCARNATION)
    store.identities[node] = (last, store.raise_revision().revision)
    host = restart(host)
    assert host.session.find_status().state == "fenced"
    assert "rejoin --as-new" in host.session.find_status().reason
    assert store.identities[node][0] == last


def test_a_copy_of_a_host_becomes_another_one(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    host.allocate(A)
    copied = FilesInMemory()
    copied.files = dict(host.files.files)
    copy = start(store, "gpu02", copied)  # the first to start after it was copied
    assert copy.session.find_status().state == "member"
    host.sync()
    assert host.session.find_status().state == "fenced"
    assert host.findings()[f"cloned-node {host.worker.node}"].startswith("gpu02 took part as")
    assert host.booked == {(A, "0")}
    call_admin(host, "FleetRejoin")
    host.settle()
    copy.settle()
    assert len(store.identities) == 2
    assert shown(store) == {A: ("held", 1)}
    assert {entry.node for entry in store.entries.values()} == {host.worker.node}


def test_a_forgotten_host_counts_no_more_and_returns_fenced(store: StoreInMemory) -> None:
    one, two = start(store, "gpu01"), start(store, "gpu02")
    one.allocate(A)
    two.sync()
    assert "takes part right now" in refusal(call_admin(two, "FleetForget", host="gpu01"))
    assert "that is this host" in refusal(call_admin(two, "FleetForget", host="gpu02"))
    assert "there are gpu01, gpu02" in refusal(call_admin(two, "FleetForget", host="gpu9"))
    store.alive.discard(one.worker.node)
    assert call_admin(two, "FleetForget", host="gpu01") == {"done": "gpu01 (1 slots)"}
    assert store.entries == {}
    one.sync()
    assert one.session.find_status().state == "fenced"
    assert one.booked == {(A, "0")}
    call_admin(one, "FleetRejoin")
    one.settle()
    assert shown(store) == {A: ("held", 1)}


def call_admin(
    asking: FleetHost, method: str, *, by: str = "root", **given: object
) -> dict[str, object]:
    """What an operator asks of the thread of passes."""
    asked = asking.begin(method, by=by, **given)  # type: ignore[arg-type]
    asking.worker._serve_admin_jobs()
    reply = asked.last
    if "error" in reply and "needs" in reply["parameters"]:
        return {"parameters": {"reason": f"NotPermitted: {reply['parameters']['needs']}"}}
    return reply if "error" in reply else dict(reply["parameters"])


# --- a store that was put back


def test_after_a_restore_nothing_is_reserved_until_all_have_reported(store: StoreInMemory) -> None:
    one, two = start(store, "gpu01"), start(store, "gpu02")
    one.allocate(A)
    backup = store.copy()
    one.release(A)
    one.settle()
    two.allocate(B)
    two.settle()
    store.restore(backup)
    one.sync()
    assert one.session.find_status().state == "restored"
    assert "gpu02" in one.session.find_status().reason
    changes = len(store.changes)
    assert one.allocate("c._.1001")["parameters"]["booking"]["slot"] == "0"  # by its own limits
    assert "reserve" not in [what for what, _ in store.changes[changes:]]
    one.settle()
    assert shown(store)[A] == ("held", 1)  # of the backup, and not withdrawn yet
    for _ in range(3):
        two.settle()
        one.settle()
    assert (one.session.find_status().state, two.session.find_status().state) == (
        "member",
        "member",
    )
    assert shown(store) == {B: ("held", 1), "c._.1001": ("held", 1)}


def test_a_host_that_will_never_report_is_not_waited_for_after_a_thaw(
    store: StoreInMemory,
) -> None:
    one, two = start(store, "gpu01"), start(store, "gpu02")
    backup = store.copy()
    two.allocate(B)
    one.allocate(A)
    one.sync()
    store.restore(backup)
    one.settle()
    one.settle()
    assert one.session.find_status().state == "restored"
    one = restart(one)  # a restart forgets nothing of it
    assert one.session.find_status().state == "restored"
    assert "as it is" in str(call_admin(one, "FleetThaw")["done"])
    assert one.session.find_status().state == "member"
    assert "trusted already" in refusal(call_admin(one, "FleetThaw"))
    assert "booking" in one.allocate("c._.1001")["parameters"]


@pytest.mark.parametrize("as_new", [False, True])
def test_after_keys_were_deleted_nothing_is_reserved_until_all_have_rejoined(
    store: StoreInMemory, *, as_new: bool
) -> None:
    one, two = start(store, "gpu01"), start(store, "gpu02")
    one.sync()
    two.allocate(A)
    two.allocate(B)
    # etcdctl del --prefix /ds01/v1/
    for kept in (store.entries, store.names, store.identities, store.summaries, store.alive):
        kept.clear()
    store.raise_revision()
    for host in (one, two):
        host.sync()
        assert host.session.find_status().state == "fenced"
    changes = len(store.changes)
    former = one.worker.node
    call_admin(one, "FleetRejoin", as_new=as_new)
    assert one.session.find_status().state == "restored"
    one.settle()
    # Its own limits let it; the store is not asked, as if it was away.
    assert "booking" in one.allocate("c._.1001")["parameters"]
    assert "reserve" not in [what for what, _ in store.changes[changes:]]
    one.release("c._.1001")
    one = restart(one)
    assert "not reported yet: gpu02" in one.session.find_status().reason
    call_admin(two, "FleetRejoin")
    for host in (one, two) * 3:
        host.settle()
    # Who has another ID now cannot report for the former one: it might be a copy's.
    if as_new:
        assert f"not reported yet: gpu01 ({former}): wait" in two.session.find_status().reason
        store.alive.discard(former)  # its lease has run out
        assert "done" in call_admin(two, "FleetForget", host=former)
        two.settle()
    assert {host.session.find_status().state for host in (one, two)} == {"member"}
    assert refusal(one.allocate("c._.1001")) == "USER_AT_LIMIT (2/2 on gpu02)"


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_host_that_is_gone_for_good_is_forgotten_in_a_store_that_was_put_back(
    store: StoreInMemory, *, is_empty: bool
) -> None:
    one, two, gone = (start(store, name) for name in ("gpu01", "gpu02", "gpu03"))
    backup = StoreInMemory() if is_empty else store.copy()
    for host in (one, two, gone, one, two):
        host.settle()
    store.restore(backup)
    store.alive.clear()
    for host in (one, two) * 3:
        host.settle()
    reason = one.session.find_status().reason
    assert one.session.find_status().state == "restored"
    assert "not reported yet: gpu03: wait" in reason
    assert "ds01ctl fleet forget" in reason
    # An empty store has never heard of it; whoever waits for it knows its name.
    assert call_admin(one, "FleetForget", host="gpu03") == {"done": "gpu03 (0 slots)"}
    one = restart(one)
    for host in (one, two) * 2:
        host.settle()
    assert {host.session.find_status().state for host in (one, two)} == {"member"}
    assert "there are gpu01, gpu02" in refusal(call_admin(one, "FleetForget", host="gpu03"))
    assert gone.worker.node in store.forgotten


@pytest.mark.parametrize("was_off", [False, True])
def test_a_host_that_is_forgotten_after_a_restore_returns_fenced(
    store: StoreInMemory, *, was_off: bool
) -> None:
    one, gone = start(store, "gpu01"), start(store, "gpu02")
    gone.allocate(A)
    backup = store.copy()
    for host in (one, gone):
        host.settle()
    store.restore(backup)
    one.sync()
    # It may have seen the restore itself, which explains whatever the store has of it.
    if not was_off:
        gone.sync()
        assert gone.session.find_status().state == "restored"
    store.alive.clear()
    call_admin(one, "FleetForget", host="gpu02")
    again = restart(gone)
    assert again.session.find_status().state == "fenced"
    again.settle()
    assert (store.entries, again.booked) == ({}, {(A, "0")})
    call_admin(again, "FleetRejoin")
    for host in (again, one) * 3:
        host.settle()
    assert {host.session.find_status().state for host in (again, one)} == {"member"}
    assert (shown(store), store.forgotten) == ({A: ("held", 1)}, {})


def test_who_is_forgotten_while_it_joins_is_fenced(store: StoreInMemory) -> None:
    one, gone = start(store, "gpu01"), start(store, "gpu02")
    for host in (one, gone):
        host.settle()
    store.restore(StoreInMemory())
    contents = store_contents(gone)
    store.alive.clear()
    one.sync()
    assert "done" in call_admin(one, "FleetForget", host="gpu02")
    # It read the store before that.
    gone.worker._member.observe_store(contents)
    assert gone.session.find_status().state == "fenced"
    assert gone.worker.node not in store.identities


def test_what_was_forgotten_before_the_backup_is_waited_for(store: StoreInMemory) -> None:
    """It may have rejoined since, and have bookings that count."""
    one, back = start(store, "gpu01"), start(store, "gpu02")
    store.alive.clear()
    call_admin(one, "FleetForget", host="gpu02")
    backup = store.copy()
    back.sync()
    call_admin(back, "FleetRejoin")
    for host in (back, one):
        host.settle()
    assert store.forgotten == {}
    store.restore(backup)
    one.settle()
    assert one.session.find_status().state == "restored"
    assert "not reported yet: gpu02" in one.session.find_status().reason


def test_of_two_hosts_of_one_name_an_admin_gives_the_id(store: StoreInMemory) -> None:
    one, two = start(store, "gpu01"), start(store, "gpu02")
    new = start(store, "gpu02")  # installed anew, without its state_dir
    store.alive.discard(two.worker.node)
    said = refusal(call_admin(one, "FleetForget", host="gpu02"))
    ids = " or ".join(sorted((two.worker.node, new.worker.node)))
    assert f"several hosts are called 'gpu02': give the ID of one, {ids}" in said
    call_admin(one, "FleetForget", host=two.worker.node)
    assert set(store.identities) == {one.worker.node, new.worker.node}


@pytest.mark.parametrize("name", ["gpu\n09\x1b[2J", "x" * 1000])
def test_no_host_in_the_store_damages_the_file_of_another(store: StoreInMemory, name: str) -> None:
    host = start(store, "gpu01")
    odd = NodeIdentity(
        node=NodeId("n" * 300 if len(name) > 300 else "n9"),
        host=name,
        incarnation=1,
        boot_id="",
        engine_id="",
        version="1",
        protocols=(1,),
    )
    store.identities[odd.node] = (odd, store.raise_revision().revision)
    host.sync()
    assert len(host.files.files["fleet.json"]) < 1000
    again = restart(host)
    assert again.session.find_status().state == "member"
    assert again.worker.node == host.worker.node


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_host_shows_may_change_while_answers_are_lost(
    store: StoreInMemory, when: str
) -> None:
    host = start(store, "gpu01")
    host.session._engine_id = "another"
    assert isinstance(host.book, StoreView)
    host.book.failures = [when]
    host.sync()
    assert host.session.find_status().state == "away"
    host.sync()
    assert host.session.find_status().state == "member"
    assert "booking" in host.allocate(A)["parameters"]


def test_its_own_identity_fences_no_host(store: StoreInMemory) -> None:
    """A booking may meet the moment at which the thread of passes writes it anew."""
    host = start(store, "gpu01")
    identity, _ = store.identities[host.worker.node]
    store.identities[host.worker.node] = (identity, store.raise_revision().revision)
    assert "try again" in refusal(host.allocate(A))
    assert host.session.find_status().state == "member"
    host.sync()
    assert "booking" in host.allocate(A)["parameters"]


def test_a_host_remembers_no_more_than_the_last_releases(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    for number in range(700):
        name = ContainerName(f"c{number}")
        ids = {BookingId(f"d-{number}-{part}"): part for part in range(3)}
        booked = {
            key: OwnBooking(
                booking=key,
                user=UserName("alice"),
                container=name,
                slots=(),
                sevenths=0,
                since=Wall(0.0),
            )
            for key in ids
        }
        host.worker.set_own(booked)
        host.worker.set_own({}, released=frozenset({name}))
        assert set(booked) <= host.worker._local.released
    assert len(host.worker._local.released) <= 1000


def test_a_file_that_stays_damaged_is_logged_once(store: StoreInMemory) -> None:
    files = FilesInMemory()
    files.files["fleet.json"] = b'{"node": 7}'
    host = FleetHost("gpu01", StoreView(store), files=files)
    host.worker._member.load_early()
    with capture_logs() as logged:
        for _ in range(3):
            report = host.worker._try_pass()
            host.worker._log.log_report(report, host.worker.membership)
    assert [line["log_level"] for line in logged] == ["warning"]
    assert host.session.find_status().state == "fenced"


def test_an_admin_is_answered_also_where_nothing_is_done_any_more(store: StoreInMemory) -> None:
    host = start(store, "gpu01")
    worker = host.worker
    answers: list[str] = []
    worker._is_stopping = True
    worker.start()
    worker._thread.join()
    worker.ask_admin_job(lambda *_: "done", lambda done, error: answers.append(f"{done}{error}"))
    worker.close()
    assert answers == ["ds01d stops, or has another configuration: ask again"]
    before = dict(host.files.files)
    with pytest.raises(Refused):
        worker._member.take_again(store_contents(host), as_new=True)
    assert host.files.files == before


def store_contents(host: FleetHost) -> FleetContents:
    contents = host.book.read_contents()
    assert isinstance(contents, FleetContents)
    return contents


def test_a_damaged_file_fences_and_is_not_made_up_again(store: StoreInMemory) -> None:
    files = FilesInMemory()
    files.files["fleet.json"] = b'{"node": 7}'
    host = FleetHost("gpu01", StoreView(store), files=files)
    host.worker._member.load_early()
    assert host.session.find_status().state == "fenced"
    assert "fleet.json" in host.session.find_status().reason
    assert files.files["fleet.json"] == b'{"node": 7}'
    assert "booking" in host.allocate(A)["parameters"]


# --- whatever fails


_names = st.sampled_from([f"{letter}._.1001" for letter in "abcd"])
_steps = st.one_of(
    st.tuples(st.just("allocate"), st.integers(0, 2), _names),
    st.tuples(st.just("release"), st.integers(0, 2), _names),
    st.tuples(st.just("lose"), st.integers(0, 2), st.sampled_from(["before", "after"])),
    st.tuples(st.just("away"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("settle"), st.integers(0, 2), st.none()),
    st.tuples(st.just("kill"), st.integers(0, 2), st.none()),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(_steps, max_size=25))
def test_whatever_fails_no_reservation_is_over_the_quota_and_all_is_right_in_the_end(
    steps: list[tuple[str, int, object]],
) -> None:
    store = StoreInMemory()
    hosts = [start(store, f"gpu0{number}", when_away="refuse") for number in range(3)]
    for what, number, how in steps:
        host = hosts[number]
        view = host.book
        assert isinstance(view, StoreView)
        before = {other.name: other.booked for other in hosts}
        if what == "allocate":
            host.allocate(str(how))
        elif what == "release":
            host.release(str(how))
        elif what == "lose":
            view.failures.append(str(how))
        elif what == "away":
            view.is_away = bool(how)
        elif what == "kill":
            hosts[number] = restart(host)
        else:
            host.settle()
        # What a host has changes by its own calls alone.
        changed = {other.name for other in hosts if other.booked != before[other.name]}
        assert changed <= ({host.name} if what in ("allocate", "release") else set())
        # Nothing is booked but by reservations here: so nobody is ever over the quota.
        assert store.count("alice") <= 2 or any(entry_is_left(store, other) for other in hosts)
        assert sum(len(other.booked) for other in hosts) <= 2
    for _ in range(2):
        for host in hosts:
            view = host.book
            assert isinstance(view, StoreView)
            view.is_away, view.failures = False, []
            host.settle()
    booked = Counter(name for host in hosts for name, _ in host.booked)
    assert set(shown(store)) == set(booked) == set(store.names)
    assert max(booked.values(), default=0) <= 1
    assert all(host.kinds() == set() for host in hosts)


def entry_is_left(store: StoreInMemory, host: FleetHost) -> bool:
    """The store has an entry of this host that its books do not have (any more)."""
    names = {name for name, _ in host.booked}
    return any(
        entry.node == host.worker.node and entry.container not in names
        for entry in store.entries.values()
    )
