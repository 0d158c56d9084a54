"""The truth table of verdicts: what happened on a host, and what `train._.1001` rightly holds then.

One line is one row of the table in words: a life (a daemon watches from the start and writes
nothing), the verdict, and why. GPUs 0 and 1 are cut into two MIG devices each; the daemon has
watched for an hour before anything happens, unless the row says otherwise. alice's containers are
held for 15 minutes after a stop; absence grace 2 minutes, creation grace 15 minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ds01d.model.books import AllocatorState, Attempt, BadRecord
from ds01d.model.containers import NO_REQUEST, EngineIdentity, State
from ds01d.model.devices import Inventory
from ds01d.model.holding import Free, Holds, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.limits import HoldRule
from ds01d.model.primitives import (
    Boot,
    ContainerName,
    Digest,
    SlotId,
    Source,
    Unknown,
    UserName,
    Wall,
)
from tests.support.build import (
    ALL,
    HOUR,
    LIMITS,
    NAME,
    OTHER,
    Life,
    books,
    config,
    count,
    mig,
    record,
    slot,
    two_by_two,
    whole,
)
from tests.support.world import WALL

MINUTE = 60.0
TRAIN = f"id-{NAME}"


def holds(why: VerdictReason, *slots: str, lasts: float | None = None) -> tuple[object, ...]:
    """Holds these slots; `lasts`: for so many seconds, None = nothing but an event ends it."""
    return ("holds", why, sorted(slots), lasts)


def free(proof: Proof, *, due_in: float) -> tuple[object, ...]:
    """Holds nothing in so many seconds (negative: since so many)."""
    return ("free", proof, due_in)


def undecided(needs: Source) -> tuple[object, ...]:
    return ("undecided", needs)


NOT_LOOKED_AT = ("nobody asks",)


def told(verdict: Verdict | None, now: float) -> tuple[object, ...]:
    match verdict:
        case None:
            return NOT_LOOKED_AT
        case Holds(until=until):
            left = None if until is None else round(until - now, 3)
            return ("holds", verdict.why, sorted(verdict.slots), left)
        case Free():
            return ("free", verdict.proof, round(verdict.due - now, 3))
        case Undecided():
            return ("undecided", verdict.needs)


def watched() -> Life:
    return Life().after(HOUR)


def booked(*places: str, on: tuple[str, ...] = ("MIG-1-0",), **fields: Any) -> Life:
    """A booking from long ago; its container runs, under the daemon's eyes."""
    return Life().book(*(places or ("1.0",)), **fields).run(*on).after(HOUR)


def now(life: Life, ago: float = 0.0) -> Wall:
    return Wall(life.host.wall - ago)


def just_booked(ago: float = 60.0) -> Life:
    """The allocator booked 1.0 a minute ago; the daemon saw it appear at once; no container yet."""
    life = watched()
    life.book("1.0", allocated_at=now(life))
    return life.after(ago)


def pending(life: Life, *, started: float = 0.0, failed: float | None = None) -> Life:
    """The operations log has a create_start of now, and a create_failed so much later."""
    end = None if failed is None else Wall(life.host.wall + failed)
    life.host.attempts[NAME] = Attempt(started=Wall(now(life) + started), failed=end)
    return life


def with_gpu(life: Life, **fields: object) -> Life:
    return life.set_gpu(**fields)


def without(life: Life, uuid: str) -> Life:
    """NVML lists a MIG device no more, nor the processes on it."""
    gpu = life.host.gpu
    assert isinstance(gpu, Inventory)
    return life.set_gpu(
        migs=tuple(one for one in gpu.migs if one.uuid != uuid),
        processes=tuple(one for one in gpu.processes if one.device != uuid),
    )


def hold(seconds: float | None, problem: str = "") -> Life:
    """A booked container of a user with this hold."""
    life = booked()
    rule = HoldRule(seconds=seconds, source="user_overrides.alice", problem=problem)
    life.host.limits = replace(LIMITS, holds={UserName("alice"): rule})
    return life


def limits_changed(life: Life, seconds: float, *, size: int = 0, ago: float = 0) -> Life:
    """Give alice another hold since `ago` seconds, in a file of this size (it was 1000)."""
    rule = HoldRule(seconds=seconds, source="groups.students")
    life.host.limits = replace(LIMITS, holds={UserName("alice"): rule}, version="new", size=size)
    return life.after(ago)


def of_size(life: Life) -> Life:
    life.host.limits = replace(LIMITS, size=1000, version="old")
    return life.after(MINUTE)


def broken(life: Life, name: ContainerName = NAME) -> Life:
    life.host.records[name] = BadRecord(
        container=name, reason="is not JSON", digest=Digest("bad"), replaceable=True
    )
    return life


def recorded(life: Life, name: str, *, stopped_at_ago: float | None = None) -> Life:
    """Metadata, whatever is booked."""
    stopped = None if stopped_at_ago is None else now(life, stopped_at_ago)
    life.host.records[ContainerName(name)] = record(name, stopped_at=stopped)
    return life


def without_booking(life: Life) -> Life:
    """The booking is lost: some writer overwrote the state with an older one."""
    fresh = Life().host.state
    life.host.state = replace(fresh, digest=Digest("lost"))
    return life


def unlisted(life: Life, place: str) -> Life:
    """Somebody takes this slot out of the state."""
    state = life.host.state
    assert isinstance(state, AllocatorState)
    slots = {**state.slots, SlotId(place): replace(state.slots[SlotId(place)], containers=())}
    life.host.state = replace(state, slots=slots, digest=Digest("less"))
    return life


def rebooked_since_it_went() -> Life:
    """Removed under the daemon's eyes, booked again a minute later, and nothing came of it."""
    life = booked().remove().after(MINUTE)
    without_booking(life)
    del life.host.records[NAME]
    life.after(MINUTE)
    return life.book("1.0", allocated_at=now(life)).after(HOUR)


def recreated(life: Life) -> Life:
    """The MIG devices of GPU 1 were destroyed and made anew: same places, other UUIDs."""
    return with_gpu(
        life, migs=(mig(0, 0), mig(0, 1), mig(1, 0, "MIG-new-0"), mig(1, 1, "MIG-new-1"))
    )


def without_nvml(life: Life) -> Life:
    life.host.gpu = None
    return life


def cut(life: Life) -> Life:
    """Both GPUs are cut into MIG devices."""
    return with_gpu(life, gpus=two_by_two().gpus, migs=two_by_two().migs)


def by_index(*devices: str) -> Life:
    """Booked in 1.0; the container starts under the daemon's eyes and names devices by index."""
    life = Life().book("1.0").after(HOUR)
    return life.start_now(*devices).after(MINUTE)


def unlabelled(life: Life, *devices: str, **fields: Any) -> Life:
    return life.start_now(*devices, labels={}, **fields)


def dead_engine(life: Life) -> Life:
    life.host.identity = EngineIdentity(id="OTHER", root_dir="/mnt", inode=1, device=1)
    return life


def rebooted(life: Life) -> Life:
    life.host.pass_time(300.0)
    life.host.boot, life.host.boot_id = 1000.0, "boot-2"
    return life


def docker_restarted(life: Life) -> Life:
    life.host.instance = "2:2"
    return life


Story = Callable[[], Life]
Row = tuple[str, Story, tuple[object, ...]]

FOREIGN: list[Row] = [
    (
        "a container without label, DS01 name or booking is nobody's business",
        lambda: watched().run("MIG-1-0", name="vscode", labels={}),
        NOT_LOOKED_AT,
    ),
    (
        "nor does a metadata file of its name make it ours: nothing is booked for it",
        lambda: recorded(watched(), "vscode").run("MIG-1-0", name="vscode", labels={}),
        holds(VerdictReason.FOREIGN),
    ),
]

PINNED: list[Row] = [
    (
        "pinned: keeps its bookings whatever it runs on",
        lambda: booked("1.0", "1.1").run("MIG-0-0", labels={"ds01.protected": "true"}),
        holds(VerdictReason.PINNED, "1.0", "1.1"),
    ),
    (
        "pinned and stopped for a day: still",
        lambda: booked().run(labels={"ds01.protected": "True"}).stop().after(24 * HOUR),
        holds(VerdictReason.PINNED, "1.0"),
    ),
    (
        "pinned and not booked: nothing is booked for it either",
        lambda: watched().run("MIG-1-0", labels={"ds01.protected": "true", "aime.mlc": "alice"}),
        holds(VerdictReason.PINNED),
    ),
]

CREATING: list[Row] = [
    (
        "allocated a minute ago: the grace has 14 minutes left",
        just_booked,
        holds(VerdictReason.CREATING, "1.0", lasts=14 * MINUTE),
    ),
    (
        "anchor 2, a pending create_start is newer than the allocation",
        lambda: pending(booked().remove(told=False).after(9 * MINUTE)).after(MINUTE),
        holds(VerdictReason.CREATING, "1.0", lasts=14 * MINUTE),
    ),
    (
        "anchor 3, the booking appeared five minutes ago, without metadata",
        lambda: watched().list_in("1.0").after(5 * MINUTE),
        holds(VerdictReason.CREATING, "1.0", lasts=10 * MINUTE),
    ),
    (
        "anchor 3 counts although the metadata has an old allocated_at: the booking is new",
        lambda: watched().book("1.0").after(5 * MINUTE),
        holds(VerdictReason.CREATING, "1.0", lasts=10 * MINUTE),
    ),
    (
        "a booking older than ds01d counts from its allocated_at alone",
        lambda: Life().book("1.0", allocated_at=Wall(WALL - 14 * MINUTE)).after(0),
        holds(VerdictReason.CREATING, "1.0", lasts=15 * MINUTE),  # the start of ds01d is a gap, too
    ),
    (
        "and is not being created where that was long ago",
        lambda: Life().book("1.0").after(0),
        free(Proof.ABSENT, due_in=2 * MINUTE),
    ),
    (
        "where its allocated_at cannot be read, from the moment ds01d first saw it",
        lambda: Life().book("1.0", allocated_at=None).after(5 * MINUTE),
        holds(VerdictReason.CREATING, "1.0", lasts=10 * MINUTE),
    ),
    (
        "where its metadata is broken, too",
        lambda: broken(Life().book("1.0")).after(5 * MINUTE),
        holds(VerdictReason.CREATING, "1.0", lasts=10 * MINUTE),
    ),
    (
        "where it was broken just when one more was booked: from when that one appeared",
        lambda: broken(booked().after(HOUR).list_in("0.0")).after(5 * MINUTE).remove().after(60),
        holds(VerdictReason.CREATING, "0.0", "1.0", lasts=9 * MINUTE),
    ),
    (
        "one more is booked once the container is gone, and its metadata names the first",
        lambda: booked().after(HOUR).remove().after(3).list_in("0.0").after(5 * MINUTE),
        holds(VerdictReason.CREATING, "0.0", "1.0", lasts=10 * MINUTE),
    ),
    (
        "one less is no creation",
        lambda: unlisted(booked("1.0", "0.0").after(HOUR), "0.0").after(60).remove().after(3),
        free(Proof.DESTROYED, due_in=2),
    ),
    (
        "nor is the repair of where its devices are",
        lambda: recreated(booked("1.0", "0.0").after(HOUR)).after(60).remove().after(3),
        free(Proof.DESTROYED, due_in=2),
    ),
    (
        "anchor 4, an unlabelled container of that name was seen a minute ago (image commit)",
        lambda: unlabelled(booked().remove(), "MIG-1-0").after(HOUR).remove().after(MINUTE),
        holds(VerdictReason.CREATING, "1.0", lasts=14 * MINUTE),
    ),
    (
        "while the unlabelled container runs it holds what is booked and what it really has",
        lambda: unlabelled(just_booked(), "MIG-1-1"),
        holds(VerdictReason.CREATING, "1.0", "1.1", lasts=15 * MINUTE),
    ),
    (
        "ending 1, a labelled container that was created after all that ends it: it runs",
        lambda: just_booked().start_now("MIG-1-0", created_ago=0),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "a labelled container from before the allocation does not end it",
        lambda: just_booked().start_now("MIG-1-0"),
        holds(VerdictReason.CREATING, "1.0", lasts=14 * MINUTE),
    ),
    (
        "nor does it end a newer create_start",
        lambda: pending(just_booked().start_now("MIG-1-0", created_ago=1)),
        holds(VerdictReason.CREATING, "1.0", lasts=15 * MINUTE),
    ),
    (
        "ending 1 counts for a container that has come and gone since",
        lambda: (
            just_booked()
            .start_now("MIG-1-0", created_ago=0)
            .after(MINUTE)
            .remove(told=False)
            .after(MINUTE)
        ),
        free(Proof.ABSENT, due_in=MINUTE),
    ),
    (
        "ending 2, a create_failed after the create_start",
        lambda: pending(just_booked(), failed=1.0).after(30),
        free(Proof.ABSENT, due_in=MINUTE / 2),
    ),
    (
        "a create_failed from before the allocation ends nothing",
        lambda: (
            pending(watched(), failed=-30.0).book("1.0", allocated_at=Wall(WALL + HOUR)).after(60)
        ),
        holds(VerdictReason.CREATING, "1.0", lasts=14 * MINUTE),
    ),
    (
        "the grace is over: absent",
        lambda: just_booked(15 * MINUTE + 1),
        free(Proof.ABSENT, due_in=-13 * MINUTE - 1),
    ),
    (
        "a gap in Docker's answers, and the grace starts anew",
        lambda: docker_restarted(just_booked(10 * MINUTE)),
        holds(VerdictReason.CREATING, "1.0", lasts=15 * MINUTE),
    ),
    (
        "an operations log that cannot be read: from the first sight of its absence",
        lambda: booked().fail(Source.OPERATIONS).remove(told=False).after(5 * MINUTE),
        holds(VerdictReason.CREATING, "1.0", lasts=10 * MINUTE),
    ),
    (
        "metadata within the grace whose booking was lost: holds it again",
        lambda: without_booking(just_booked()),
        holds(VerdictReason.CREATING, "1.0", lasts=14 * MINUTE),
    ),
    (
        "an allocated_at in the future counts from its first sight",
        lambda: watched().book("1.0", allocated_at_ago=-5 * HOUR).after(5 * MINUTE),
        holds(VerdictReason.CREATING, "1.0", lasts=10 * MINUTE),
    ),
]

RENAMED: list[Row] = [
    (
        "its container is called otherwise now: free, at once by the verdict",
        lambda: booked().rename(NAME, OTHER).after(0),
        free(Proof.RENAMED, due_in=0),
    ),
    (
        "the old name exists again: it keeps its booking",
        lambda: booked().rename(NAME, OTHER).run("MIG-0-0", id="two").stop(NAME),
        holds(VerdictReason.HOLD, "1.0", lasts=15 * MINUTE),
    ),
    (
        "the old name was taken by one that runs elsewhere: it holds what it has",
        lambda: booked().rename(NAME, OTHER).run("MIG-0-0", id="two"),
        holds(VerdictReason.RUNNING, "0.0"),
    ),
    (
        "the container is gone from its new name as well: absent",
        lambda: booked().rename(NAME, OTHER).after(MINUTE).remove(OTHER, told=False).after(MINUTE),
        free(Proof.ABSENT, due_in=MINUTE),
    ),
]

RUNNING: list[Row] = [
    ("runs on its slot, by UUID", booked, holds(VerdictReason.RUNNING, "1.0")),
    (
        "paused",
        lambda: booked().change(state=State.PAUSED),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "restarting",
        lambda: booked().change(state=State.RESTARTING),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "runs elsewhere, by UUID: holds what it has",
        lambda: booked("0.1"),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "runs on two of its slots",
        lambda: booked("1.0", "1.1", on=("MIG-1-0", "MIG-1-1")),
        holds(VerdictReason.RUNNING, "1.0", "1.1"),
    ),
    ("booked twice, has one", lambda: booked("1.0", "1.1"), holds(VerdictReason.RUNNING, "1.0")),
    (
        "by index, started under our eyes",
        lambda: by_index("1:1"),
        holds(VerdictReason.RUNNING, "1.1"),
    ),
    (
        "by index, running since before ds01d: what that meant is not known, the booking stays",
        lambda: Life().book("1.0").run("1:1").after(HOUR),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "by index, renumbered since: it keeps the device it had when it started",
        lambda: with_gpu(
            by_index("1:1"), migs=(mig(0, 0), mig(0, 1), mig(1, 0, "MIG-1-1"), mig(1, 1, "MIG-1-0"))
        ),
        holds(
            VerdictReason.RUNNING, "1.1"
        ),  # the table is frozen for two minutes: ids as in the file
    ),
    (
        "by index, started in the same minute as a layout changed: not known",
        lambda: recreated(Life().book("1.0").after(HOUR).start_now("1:1")).after(MINUTE),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "by index, started while NVML was down: not known",
        lambda: (
            Life()
            .book("1.0")
            .after(HOUR)
            .fail(Source.NVML)
            .after(MINUTE)
            .start_now("1:1")
            .after(MINUTE)
            .mend()
            .after(MINUTE)
        ),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    ("by an old MIG name", lambda: by_index("MIG-GPU-1/8/0"), holds(VerdictReason.RUNNING, "1.1")),
    (
        "a number of GPUs: keeps what is booked",
        lambda: booked().run(request=count(2)),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "all GPUs: keeps what is booked",
        lambda: booked().run(request=ALL),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "no GPU asked for: keeps what is booked",
        lambda: booked().run(request=NO_REQUEST),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "privileged: counts by its request",
        lambda: booked("1.0", "1.1", on=()).run("MIG-1-0", privileged=True),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "an index that fits nothing: keeps what is booked",
        lambda: by_index("7:0"),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "a dead UUID: keeps what is booked",
        lambda: booked(on=("MIG-dead",)),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "a device without a slot: keeps what is booked",
        lambda: booked(on=("GPU-0",)),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "one device with a slot and one without: both bookings stay",
        lambda: booked("1.1", on=("MIG-1-0", "GPU-0")),
        holds(VerdictReason.RUNNING, "1.0", "1.1"),
    ),
    (
        "its processes use another booked slot: that one stays, too",
        lambda: booked("1.0", "1.1").use("MIG-1-1", TRAIN),
        holds(VerdictReason.RUNNING, "1.0", "1.1"),
    ),
    (
        "its processes use a slot that is not booked for it: reported, not booked",
        lambda: booked("1.0").use("MIG-1-1", TRAIN),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "somebody else's processes on a slot it does not ask for keep nothing",
        lambda: booked("1.0", "1.1").use("MIG-1-1", "id-other"),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "its processes use another booked slot, whose device is not listed any more: it stays",
        lambda: without(booked("1.0", "1.1").use("MIG-1-1", TRAIN), "MIG-1-1"),
        holds(VerdictReason.RUNNING, "1.0", "1.1"),
    ),
    (
        "NVML is down and it has one slot too many: what its processes use is not known",
        lambda: booked("1.0", "1.1").fail(Source.NVML),
        undecided(Source.NVML),
    ),
    (
        "NVML is down and there is nothing to take: no need of it",
        lambda: booked("1.0").fail(Source.NVML),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "that device cannot be looked into",
        lambda: with_gpu(booked("1.0", "1.1"), blind={"MIG-1-1": "not supported"}),
        undecided(Source.NVML),
    ),
    (
        "whose process that is cannot be told",
        lambda: booked("1.0", "1.1").use("MIG-1-1", Unknown(source=Source.NVML, reason="hidepid")),
        undecided(Source.NVML),
    ),
    (
        "the engine lists it but does not inspect it",
        lambda: booked().run(request=Unknown(source=Source.DOCKER, reason="timed out")),
        undecided(Source.DOCKER),
    ),
    (
        "nobody booked it: adopted",
        lambda: watched().run("MIG-1-0"),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "its booking is lost and it runs: adopted again",
        lambda: without_booking(booked()),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "its booking is lost and it asked for all GPUs: holds again what its metadata says",
        lambda: without_booking(booked().run(request=ALL)),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "nobody booked it, all GPUs: not adopted",
        lambda: watched().run(request=ALL),
        holds(VerdictReason.RUNNING),
    ),
    (
        "nobody booked it, a count: not adopted",
        lambda: watched().run(request=count(1)),
        holds(VerdictReason.RUNNING),
    ),
    (
        "nobody booked it, a device without a slot: not adopted",
        lambda: watched().run("MIG-1-0", "GPU-1"),
        holds(VerdictReason.RUNNING),
    ),
    (
        "nobody booked it, an index from before ds01d: not adopted",
        lambda: Life().run("1:0").after(MINUTE),
        holds(VerdictReason.RUNNING),
    ),
    (
        "adoption is off",
        lambda: Life(config(mode="observe", adopt="off")).after(MINUTE).run("MIG-1-0"),
        holds(VerdictReason.RUNNING),
    ),
    (
        "adoption is off, and an unlabelled container runs: not adopted either",
        lambda: unlabelled(Life(config(mode="observe", adopt="off")).after(MINUTE), "MIG-1-0"),
        holds(VerdictReason.CREATING, lasts=15 * MINUTE),
    ),
]

STOPPED: list[Row] = [
    (
        "stopped five minutes ago",
        lambda: booked().stop().after(5 * MINUTE),
        holds(VerdictReason.HOLD, "1.0", lasts=10 * MINUTE),
    ),
    ("its hold is over", lambda: booked().stop().after(15 * MINUTE), free(Proof.EXPIRED, due_in=0)),
    (
        "dead counts as stopped",
        lambda: booked().stop(state=State.DEAD).after(15 * MINUTE),
        free(Proof.EXPIRED, due_in=0),
    ),
    (
        "an unknown user's: the rule for those",
        lambda: booked("1.0", user=UserName("mallory")).stop().after(15 * MINUTE),
        holds(VerdictReason.HOLD, "1.0", lasts=15 * MINUTE),
    ),
    ("held for ever", lambda: hold(None).stop().after(24 * HOUR), holds(VerdictReason.HOLD, "1.0")),
    (
        "limits that say something ambiguous hold for ever",
        lambda: hold(None, "integer 0").stop().after(HOUR),
        holds(VerdictReason.HOLD, "1.0"),
    ),
    (
        "limits that cannot be read",
        lambda: booked().stop().fail(Source.LIMITS).after(24 * HOUR),
        holds(VerdictReason.HOLD, "1.0"),
    ),
    (
        "limits that changed just now end no hold",
        lambda: limits_changed(booked().stop().after(MINUTE), 1),
        free(Proof.EXPIRED, due_in=5),
    ),
    (
        "limits that changed less than the settle time ago end none",
        lambda: limits_changed(booked().stop().after(MINUTE), 1, ago=4),
        free(Proof.EXPIRED, due_in=1),
    ),
    (
        "limits that stayed for the settle time do",
        lambda: limits_changed(booked().stop().after(MINUTE), 1, ago=5),
        free(Proof.EXPIRED, due_in=0),
    ),
    (
        "a longer hold counts at once",
        lambda: limits_changed(booked().stop().after(14 * MINUTE), HOUR),
        holds(VerdictReason.HOLD, "1.0", lasts=46 * MINUTE),
    ),
    (
        "limits that are much shorter than they were have to stay so for longer",
        lambda: limits_changed(of_size(booked()).stop().after(MINUTE), 1, size=749, ago=6),
        free(Proof.EXPIRED, due_in=2 * MINUTE - 6),
    ),
    (
        "limits that are about as long as they were need the settle time",
        lambda: limits_changed(of_size(booked()).stop().after(MINUTE), 1, size=750, ago=4),
        free(Proof.EXPIRED, due_in=1),
    ),
    ("no hold at all: at once", lambda: hold(0).stop(), free(Proof.EXPIRED, due_in=0)),
    (
        "no hold at all, but dockerd restarted just now: restart policies need their minute",
        lambda: docker_restarted(hold(0).stop()),
        holds(VerdictReason.HOLD, "1.0", lasts=2 * MINUTE),
    ),
    (
        "its hold ended while the host was down: not before the absence grace",
        lambda: rebooted(booked().stop().after(14 * MINUTE)),
        holds(VerdictReason.HOLD, "1.0", lasts=2 * MINUTE),
    ),
    (
        "created and never started: from its creation",
        lambda: (
            watched()
            .book("1.0")
            .run("MIG-1-0", state=State.CREATED, created_ago=0)
            .after(5 * MINUTE)
        ),
        holds(VerdictReason.HOLD, "1.0", lasts=10 * MINUTE),
    ),
    (
        "created and never started, no hold: at least the creation grace",
        lambda: hold(0).run("MIG-1-0", state=State.CREATED, created_ago=0).after(5 * MINUTE),
        holds(VerdictReason.HOLD, "1.0", lasts=10 * MINUTE),
    ),
    *(
        (
            f"created, never started, and {state} by a removal that failed: from its creation",
            lambda state=state: (
                watched()
                .book("1.0")
                .run("MIG-1-0", state=state, created_ago=0, started=None)
                .after(5 * MINUTE)
            ),
            holds(VerdictReason.HOLD, "1.0", lasts=10 * MINUTE),
        )
        for state in (State.REMOVING, State.DEAD)
    ),
    (
        "allocated anew since it stopped: from the allocation",
        lambda: booked().stop().after(14 * MINUTE).book("1.0", allocated_at_ago=0),
        holds(VerdictReason.CREATING, "1.0", lasts=15 * MINUTE),
    ),
    (
        "one more allocated since it stopped, and its metadata is broken: from when that appeared",
        lambda: broken(hold(600).stop().after(HOUR).list_in("0.0")).after(MINUTE),
        holds(VerdictReason.CREATING, "0.0", "1.0", lasts=14 * MINUTE),
    ),
    (
        "one more allocated since it stopped, and its metadata names the first",
        lambda: hold(600).stop().after(HOUR).list_in("0.0").after(MINUTE),
        holds(VerdictReason.CREATING, "0.0", "1.0", lasts=14 * MINUTE),
    ),
    (
        "allocated after it stopped, where the creation is known to be over",
        lambda: pending(
            Life().book("1.0", allocated_at_ago=5 * MINUTE).run("MIG-1-0").stop(finished_ago=HOUR),
            failed=1.0,
        ).after(5 * MINUTE),
        holds(VerdictReason.HOLD, "1.0", lasts=5 * MINUTE),
    ),
    (
        "Docker has no valid time: stopped_at of its metadata",
        lambda: recorded(booked().stop(finished=None), NAME, stopped_at_ago=0).after(5 * MINUTE),
        holds(VerdictReason.HOLD, "1.0", lasts=10 * MINUTE),
    ),
    ("no valid time anywhere", lambda: booked().stop(finished=None), undecided(Source.DOCKER)),
    (
        "a FinishedAt in the future counts from its first sight",
        lambda: booked().stop(finished_ago=-5 * HOUR).after(5 * MINUTE),
        holds(VerdictReason.HOLD, "1.0", lasts=10 * MINUTE),
    ),
    (
        "the wall clock is set forward by a day after the stop: nothing changes",
        lambda: booked().stop().after(MINUTE).set_wall(24 * HOUR).after(MINUTE),
        holds(VerdictReason.HOLD, "1.0", lasts=13 * MINUTE),
    ),
    (
        "the clock is set forward before the stop is first seen: from its first sight",
        lambda: booked().stop().set_wall(24 * HOUR).after(MINUTE),
        holds(VerdictReason.HOLD, "1.0", lasts=14 * MINUTE),
    ),
    (
        "so for one that was made meanwhile and never started",
        lambda: (
            watched()
            .book("1.0")
            .run("MIG-1-0", state=State.CREATED, created_ago=0)
            .set_wall(24 * HOUR)
            .after(MINUTE)
        ),
        holds(VerdictReason.HOLD, "1.0", lasts=14 * MINUTE),
    ),
    (
        "while it is being removed it holds as any stopped one",
        lambda: booked().stop(state=State.REMOVING).after(MINUTE),
        holds(VerdictReason.HOLD, "1.0", lasts=14 * MINUTE),
    ),
    (
        "without labels: is not being created for ever",
        lambda: (
            unlabelled(Life().book("1.0").after(HOUR), "MIG-1-0").after(MINUTE).stop().after(HOUR)
        ),
        free(Proof.EXPIRED, due_in=-45 * MINUTE),
    ),
    (
        "nothing booked, no metadata",
        lambda: watched().run("MIG-1-0").stop(),
        holds(VerdictReason.HOLD),
    ),
    (
        "lost its booking: holds it again while its hold lasts",
        lambda: without_booking(booked().stop().after(5 * MINUTE)),
        holds(VerdictReason.LOST, "1.0", lasts=10 * MINUTE),
    ),
    (
        "lost its booking of two slots: the metadata knows the first",
        lambda: without_booking(booked("1.0", "1.1").stop()),
        holds(VerdictReason.LOST, "1.0", lasts=15 * MINUTE),
    ),
    (
        "lost its booking of two slots, which it requests by UUID: it holds both again",
        lambda: without_booking(booked("1.0", "1.1", on=("MIG-1-0", "MIG-1-1")).stop()),
        holds(VerdictReason.LOST, "1.0", "1.1", lasts=15 * MINUTE),
    ),
    (
        "lost its booking and its hold is over: nothing comes back",
        lambda: without_booking(booked().stop()).after(15 * MINUTE),
        free(Proof.EXPIRED, due_in=0),
    ),
    (
        "lost its booking of a slot that is gone",
        lambda: without_booking(booked("1.0").book("1.0", gpu_id=SlotId("9.9")).stop()),
        holds(VerdictReason.LOST, lasts=15 * MINUTE),
    ),
]

ABSENT: list[Row] = [
    (
        "a destroy event older than the booking proves nothing of it",
        rebooked_since_it_went,
        free(Proof.ABSENT, due_in=-3480.0),
    ),
    (
        "removed, Docker told so three seconds ago",
        lambda: booked().remove().after(3),
        free(Proof.DESTROYED, due_in=2),
    ),
    (
        "absent for a minute, nobody told",
        lambda: booked().remove(told=False).after(MINUTE),
        free(Proof.ABSENT, due_in=MINUTE),
    ),
    (
        "the container that was destroyed is not the one behind the booking",
        lambda: booked().remove(told=False).run("MIG-1-0", id="two").remove().after(MINUTE),
        free(Proof.ABSENT, due_in=MINUTE),
    ),
    (
        "back again under its name",
        lambda: booked().remove().after(3).run("MIG-1-0", id="two"),
        holds(VerdictReason.RUNNING, "1.0"),
    ),
    (
        "away, back, and away again: absent from the second time on",
        lambda: (
            booked()
            .remove(told=False)
            .after(90)
            .run("MIG-1-0")
            .after(5)
            .remove(told=False)
            .after(5)
        ),
        free(Proof.ABSENT, due_in=115),
    ),
    (
        "a process on its slot belongs to a container that is not listed",
        lambda: booked().remove().use("MIG-1-0", TRAIN).after(HOUR),
        undecided(Source.NVML),
    ),
    (
        "such a process on another slot does not matter",
        lambda: booked().remove().use("MIG-1-1", TRAIN).after(5),
        free(Proof.DESTROYED, due_in=0),
    ),
    (
        "a process of the host does not count",
        lambda: booked().remove().use("MIG-1-0", None).after(5),
        free(Proof.DESTROYED, due_in=0),
    ),
    (
        "nor one of a container that is listed",
        lambda: (
            booked()
            .run("MIG-1-0", name=OTHER, id="other")
            .remove()
            .use("MIG-1-0", "other")
            .after(5)
        ),
        free(Proof.DESTROYED, due_in=0),
    ),
    (
        "whose process it is cannot be told",
        lambda: (
            booked().remove().use("MIG-1-0", Unknown(source=Source.NVML, reason="hidepid")).after(5)
        ),
        undecided(Source.NVML),
    ),
    (
        "its device cannot be looked into",
        lambda: with_gpu(booked().remove(), blind={"MIG-1-0": "not supported"}).after(5),
        undecided(Source.NVML),
    ),
    (
        "NVML does not answer",
        lambda: booked().remove().fail(Source.NVML).after(5),
        undecided(Source.NVML),
    ),
    (
        "NVML shows no GPU at all: it is not believed",
        lambda: with_gpu(booked().remove(), gpus=(), migs=()).after(5),
        undecided(Source.NVML),
    ),
    (
        "without NVML on purpose that clause is void",
        lambda: without_nvml(booked()).remove().after(5),
        free(Proof.DESTROYED, due_in=0),
    ),
    (
        "its whole GPU is used through a MIG device of it",
        lambda: (
            cut(Life(state=books(slot("0"), slot("1")), gpu=whole(2)).book("1").after(HOUR))
            .use("MIG-1-0", "gone")
            .after(HOUR)
        ),
        undecided(Source.NVML),
    ),
    (
        "dockerd restarted a minute ago: the wait starts anew",
        lambda: docker_restarted(booked().remove(told=False).after(100)).after(MINUTE),
        free(Proof.ABSENT, due_in=MINUTE),
    ),
    (
        "after a reboot the wait starts anew",
        lambda: rebooted(booked().remove(told=False).after(100)).after(MINUTE),
        free(Proof.ABSENT, due_in=MINUTE),
    ),
    (
        "metadata without booking and container",
        lambda: without_booking(booked().remove()).after(5),
        free(Proof.DESTROYED, due_in=0),
    ),
    (
        "another engine answers: the verdict stands, the gate holds it",
        lambda: dead_engine(booked().remove(told=False).after(MINUTE)),
        free(Proof.ABSENT, due_in=MINUTE),
    ),
]

UNKNOWN: list[Row] = [
    (
        "Docker does not answer",
        lambda: booked().remove().fail(Source.DOCKER).after(HOUR),
        undecided(Source.DOCKER),
    ),
    (
        "nor for a running one",
        lambda: booked("1.0", "1.1").fail(Source.DOCKER),
        undecided(Source.DOCKER),
    ),
    (
        "nor for a stopped one",
        lambda: booked().stop().after(HOUR).fail(Source.DOCKER),
        undecided(Source.DOCKER),
    ),
    (
        "the metadata cannot be read",
        lambda: booked().remove().fail(Source.METADATA).after(HOUR),
        undecided(Source.METADATA),
    ),
    (
        "the state cannot be read: nothing is asked",
        lambda: booked().remove().fail(Source.STATE).after(HOUR),
        NOT_LOOKED_AT,
    ),
]

TABLE = [
    pytest.param(story, expected, id=f"{row}: {words}")
    for row, rows in (
        ("foreign", FOREIGN),
        ("pinned", PINNED),
        ("being created", CREATING),
        ("renamed", RENAMED),
        ("running", RUNNING),
        ("stopped", STOPPED),
        ("absent", ABSENT),
        ("unknown", UNKNOWN),
    )
    for words, story, expected in rows
]


@pytest.mark.parametrize(("story", "expected"), TABLE)
def test_verdict(story: Story, expected: tuple[object, ...]) -> None:
    life = story()
    verdict = life.plan().decision.verdicts.get(asked(life))
    assert told(verdict, life.host.boot) == expected
    if verdict is not None and not isinstance(verdict, Undecided):
        assert verdict.evidence
        assert all(line.split(":")[0] in _SOURCES for line in verdict.evidence)


_SOURCES = {"docker", "nvml", "limits", "metadata", "operations", "state"}


def asked(life: Life) -> ContainerName:
    foreign = any(c.name == "vscode" for c in life.host.containers.values())
    return ContainerName("vscode") if foreign else NAME


def test_a_creation_begins_at_the_end_of_the_second_that_its_line_names() -> None:
    """The line may have been written just now: one that begins earlier ends before its grace."""
    life = booked().remove(told=False).after(MINUTE)
    life.host.pass_time(0.95)
    life = pending(life, started=-0.9).after(0)
    assert life.plan().checkpoint.starts[f"pending|{NAME}"].at == life.host.boot


def test_new_name_of_a_renamed_container_inherits_the_booking() -> None:
    decision = booked().rename(NAME, OTHER).after(0).plan().decision
    assert told(decision.verdicts[OTHER], 0) == holds(VerdictReason.RUNNING, "1.0")


def test_both_names_hold_while_both_exist() -> None:
    life = booked().rename(NAME, OTHER).run("MIG-1-0", id="two")
    verdicts = life.plan().decision.verdicts
    assert (
        told(verdicts[NAME], 0) == told(verdicts[OTHER], 0) == holds(VerdictReason.RUNNING, "1.0")
    )


def test_proof_names_the_id_to_ask_for() -> None:
    verdict = booked().remove(told=False).after(MINUTE).plan().decision.verdicts[NAME]
    assert isinstance(verdict, Free)
    assert verdict.known_id == TRAIN
    assert verdict.since < verdict.due < Boot(verdict.since + 121)
