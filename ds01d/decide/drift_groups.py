"""Drifts that are repaired, or undone, together or not at all. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ds01d.model.drift import Action, Drift, DriftKey


def repair_groups(drifts: Sequence[Drift]) -> dict[DriftKey, str]:
    """The group of each drift: repaired together, or not at all.

    One group is all that changes the books of one container, of two where a rename connects them;
    another the slot table. Any other drift is a group of its own.
    """
    groups = _connect_groups([_list_subjects(drift) for drift in drifts])
    return {drift.key: group for drift, group in zip(drifts, groups, strict=True)}


def _connect_groups(subjects_of: Sequence[Sequence[str]]) -> list[str]:
    """For each list of subjects one subject that stands for its group.

    Invariant (union-find): two lists share a group exactly if a chain of lists, each sharing a
    subject with the next, connects them.
    """
    parent: dict[str, str] = {}

    def find_root(subject: str) -> str:
        while (above := parent.setdefault(subject, subject)) != subject:
            subject = above
        return subject

    for first, *others in subjects_of:
        for other in others:
            parent[find_root(other)] = find_root(first)
    return [find_root(subjects[0]) for subjects in subjects_of]


def change_groups(drifts: Sequence[Drift]) -> list[str]:
    """For each drift the change that it is part of, once written: what is undone as one.

    That is what is settled as one, and what touches one slot in the same write.
    """
    table = any(drift.of_table for drift in drifts)
    subjects_of: list[list[str]] = []
    # A list, since two drifts of the slot table may have the same key.
    for drift in drifts:
        slots = sorted(_changed_slots(drift))
        shared = ["the slot table"] if table and slots else slots
        subjects_of.append([*_list_subjects(drift), *(f"slot {slot}" for slot in shared)])
    return _connect_groups(subjects_of)


def _changed_slots(drift: Drift) -> set[str]:
    """The slots that a drift changes."""
    slots: set[str] = {slot for _, slot in drift.taken | drift.given}
    if drift.slot is not None and (drift.action is Action.RECOUNT or drift.of_table):
        slots.add(drift.slot)
    return slots


def _list_subjects(drift: Drift) -> list[str]:
    # Decision 4: half a renumbering would put two tenants on one device.
    if drift.of_table:
        return ["the slot table"]
    if drift.taken or drift.given or drift.renamed_to is not None:
        return sorted(drift.names)
    return [repr(drift.key)]
