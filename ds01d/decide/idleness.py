"""Which running containers use none of their slots, since when, and when that is reported. Pure.

Readings are those of `device_use`, in each pass. Only a run of readings that all say idle counts,
so nothing is reported while one of the last `IdleRule.seconds` was of use, or unknown, or missing.
"""

from __future__ import annotations

from collections.abc import Mapping

from ds01d.config import READING_S
from ds01d.decide.device_use import find_use
from ds01d.decide.index import BooksIndex
from ds01d.model.accounting import SlotUse
from ds01d.model.checkpoint import IdleRun
from ds01d.model.containers import Container
from ds01d.model.holding import Holds, Verdict, Verdicts
from ds01d.model.keep_alive import find_keep_alive
from ds01d.model.limits import IDLE_TIMEOUT, IdleRule
from ds01d.model.primitives import ContainerId, Now, Unknown, UserName


def follow_idleness(index: BooksIndex, verdicts: Verdicts) -> Mapping[ContainerId, IdleRun]:
    """The idle runs with the readings of this pass; of a pass over names, those of others too."""
    former = index.checkpoint.idle
    if not _is_wanted(index):
        return {}
    runs = {} if index.snapshot.names is None else dict(former)
    for name, verdict in verdicts.items():
        container = index.containers.get(name)
        if container is None:
            continue
        runs.pop(container.id, None)
        if _is_idle(container, verdict, index):
            runs[container.id] = extend_run(former.get(container.id), container, index.snapshot.now)
    return runs


def extend_run(former: IdleRun | None, container: Container, now: Now) -> IdleRun:
    """The run with one more idle reading; a new one after a gap, or another start."""
    # Decision 270: a restart of ds01d is as long as the time between two sweeps, or it is a gap.
    is_same = (
        former is not None
        and former.started == container.started
        and 0.0 <= now.boot - former.read_at <= READING_S
    )
    since, began = (former.since, former.began) if former and is_same else (now.boot, now.wall)
    return IdleRun(since=since, began=began, read_at=now.boot, started=container.started)


def find_idle_rule(user: UserName | None, index: BooksIndex) -> IdleRule:
    """After which time an idle container of a user is reported, and the source of that."""
    limits, after_s = index.limits, index.policy.idle_after_s
    default = IdleRule(seconds=after_s or None, source="policy.idle_after")
    if isinstance(limits, Unknown):
        # What cannot be read may exempt them; where there is no such file, nothing does.
        return default if limits.missing else IdleRule(seconds=None, source=limits.reason)
    return limits.find_idle_rule(user) or default


def is_exempt(container: Container, user: UserName | None, index: BooksIndex) -> bool:
    """Whether a container may be idle now: by lifecycle-exemptions.yaml, or by its label."""
    now, limits = index.snapshot.now.wall, index.limits
    if (
        not isinstance(limits, Unknown)
        and user is not None
        and limits.find_exemption(user, IDLE_TIMEOUT, now) is not None
    ):
        return True
    label = find_keep_alive(container.labels, container.created)
    return label is not None and label.until is not None and label.until > now


def _is_wanted(index: BooksIndex) -> bool:
    """Whether anybody's idle containers are reported; unknown limits end no run."""
    limits = index.limits
    if isinstance(limits, Unknown):
        return index.policy.idle_after_s > 0 or bool(index.checkpoint.idle)
    return index.policy.idle_after_s > 0 or limits.has_idle_rules


def _is_idle(container: Container, verdict: Verdict, index: BooksIndex) -> bool:
    """Whether all that is known of a running container's slots is that none is used."""
    if not isinstance(verdict, Holds) or not verdict.slots or not container.state.alive:
        return False
    return all(
        find_use(container.name, slot, index) is SlotUse.IDLE for slot in sorted(verdict.slots)
    )
