"""What a user may have, has, and has left; and which key of which file says so."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import yaml

from ds01d.adapters.books.limits_rules import resolve_limits
from ds01d.decide.quota_status import find_quota_status
from ds01d.model.books import AllocatorState, Record
from ds01d.model.primitives import ContainerName, UserName
from ds01d.model.quota import QuotaStatus, QuotaUnit
from tests.support.build import books, record, slot

FILE = "/opt/limits.yaml"
SLOTS = """
defaults: {max_mig_instances: 1}
default_group: student
groups:
  student: {members: [bob]}
  staff: {members: [alice], max_gpus_per_user: 3, priority: 50}
user_overrides: {zoe: {max_mig_instances: unlimited}}
"""
GPUS = """
defaults: {max_gpu_equivalents: 2, max_gpu_slots_per_container: 2}
default_group: student
groups:
  student: {members: [bob], aggregate: {gpu_limit: 0.5}}
  staff: {members: [alice], max_gpu_equivalents: 3}
"""


def status(
    text: str,
    user: str,
    state: AllocatorState,
    published: dict[str, str] | None = None,
    *,
    owner: str = "alice",
) -> QuotaStatus:
    records: dict[ContainerName, Record] = {
        name: record(name, entry.id, user=UserName(owner))
        for entry in state.slots.values()
        for name in entry.containers
    }
    states = {ContainerName(name): word for name, word in (published or {}).items()}
    limits = resolve_limits(yaml.safe_load(text), FILE)
    return find_quota_status(UserName(user), limits, state, records, states)


def numbers(found: QuotaStatus) -> list[Fraction | int | None]:
    """What is held, reserved, allowed and left."""
    return [found.used, found.reserved, found.limit, found.left]


STATE = books(slot("0.0", "a"), slot("0.1", "b"), slot("1.0"), slot("1.1", "r-0123456789ab"))


def test_what_is_held_and_what_is_only_reserved() -> None:
    found = status(SLOTS, "alice", STATE, {"a": "running", "b": "absent"})
    assert numbers(found) == [1, 2, 3, 0]
    assert (found.group, found.priority, found.unit) == ("staff", 50, QuotaUnit.SLOTS)
    unpublished = status(SLOTS, "alice", STATE)
    assert numbers(unpublished) == [2, 1, 3, 0], "its name says what it is"
    assert numbers(status(SLOTS, "bob", STATE)) == [0, 0, 1, 1]


def test_in_gpu_equivalents_each_slot_counts_once_by_its_profile() -> None:
    whole = slot("2", "a")
    part = replace(slot("1.0", "a", "b"), profile="2g.10gb")
    reserved = replace(slot("1.1", "c"), profile="1g.5gb")
    found = status(GPUS, "alice", books(whole, part, reserved), {"c": "absent"})
    assert numbers(found) == [Fraction(9, 7), Fraction(1, 7), 3, Fraction(11, 7)]
    assert (found.unit, found.slots_per_container) == (QuotaUnit.GPUS, 2)


@pytest.mark.parametrize(
    ("text", "user", "limit", "source"),
    [
        (SLOTS, "alice", 3, f"{FILE}: groups.staff.max_gpus_per_user"),
        (SLOTS, "bob", 1, f"{FILE}: defaults.max_mig_instances"),
        (SLOTS, "nobody", 1, f"{FILE}: defaults.max_mig_instances"),
        (SLOTS, "zoe", None, f"{FILE}: user_overrides.zoe.max_mig_instances"),
        ("groups: {}", "alice", 1, "built in"),
        (GPUS, "alice", 3, f"{FILE}: groups.staff.max_gpu_equivalents"),
        (GPUS, "bob", Fraction(1, 2), f"{FILE}: groups.student.aggregate"),
    ],
)
def test_where_the_limit_comes_from(
    text: str, user: str, limit: Fraction | None, source: str
) -> None:
    found = status(text, user, books())
    assert (found.limit, found.source) == (limit, source)


def test_more_than_the_limit_leaves_nothing() -> None:
    assert status(SLOTS, "bob", STATE, owner="bob").left == 0
    assert status(SLOTS, "zoe", STATE, owner="zoe").left is None
