"""Groups of drifts: what shares a container, or the slot table, is repaired together."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.drift_groups import change_groups, repair_groups
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.primitives import ContainerName, SlotId

NAMES = st.sampled_from([ContainerName(name) for name in "abcdef"])
SLOTS = st.sampled_from([SlotId(slot) for slot in ("0", "1.0", "1.1")])


def make_drift(container: ContainerName | None, slot: SlotId, **fields: object) -> Drift:
    defaults: dict[str, object] = {"kind": Kind.WRONG_SLOT, "action": Action.MOVE}
    return Drift(
        container=container,
        slot=slot,
        reason="",
        evidence=(),
        fingerprint="",
        **(defaults | fields),  # type: ignore[arg-type]
    )


@st.composite
def moves(draw: st.DrawFn) -> Drift:
    before, after, slot = draw(NAMES), draw(NAMES), draw(SLOTS)
    pairs = frozenset({(before, slot)}), frozenset({(after, slot)})
    return make_drift(before, slot, taken=pairs[0], given=pairs[1], renamed_to=after)


@given(st.lists(moves(), max_size=8, unique_by=lambda drift: drift.key))
def test_drifts_share_a_group_exactly_if_names_connect_them(drifts: list[Drift]) -> None:
    groups = repair_groups(drifts)
    reach = {drift.key: set(drift.names) for drift in drifts}
    for _ in drifts:  # the closure, by brute force
        for one, other in product(drifts, repeat=2):
            if reach[one.key] & reach[other.key]:
                reach[one.key] |= reach[other.key]
    for one, other in product(drifts, repeat=2):
        connected = bool(reach[one.key] & reach[other.key])
        assert (groups[one.key] == groups[other.key]) == connected


@given(st.lists(moves(), max_size=8, unique_by=lambda drift: drift.key))
def test_what_is_repaired_together_is_undone_together(drifts: list[Drift]) -> None:
    repairs, changes = repair_groups(drifts), change_groups(drifts)
    for (one, change), (other, other_change) in product(
        zip(drifts, changes, strict=True), repeat=2
    ):
        if repairs[one.key] == repairs[other.key]:
            assert change == other_change


def test_the_slot_table_is_one_group_and_metadata_alone_none() -> None:
    table = [
        make_drift(None, SlotId(slot), kind=Kind.STALE_SLOT, action=Action.UPDATE_SLOT)
        for slot in ("0", "1.0")
    ]
    record = make_drift(
        ContainerName("a"), SlotId("0"), kind=Kind.WRONG_METADATA, action=Action.WRITE_METADATA
    )
    groups = repair_groups([*table, record])
    assert len({groups[drift.key] for drift in table}) == 1
    assert groups[record.key] not in {groups[drift.key] for drift in table}
