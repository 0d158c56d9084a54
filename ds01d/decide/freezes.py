"""Freezes that an admin set: which drifts they stop, and until when. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ds01d.model.checkpoint import Freeze
from ds01d.model.drift import Drift
from ds01d.model.primitives import Boot, Now, Wall
from ds01d.text import describe_moment

EVERYTHING: Final = "*"
"""The subject of a freeze of all repairs."""
LONGEST_REASON: Final = 200


def find_freeze(drift: Drift, freezes: Mapping[str, Freeze], now: Now) -> Freeze | None:
    """The freeze that holds a drift, if one does."""
    subjects = [EVERYTHING, drift.container, drift.renamed_to, drift.slot]
    # A rename or a move touches two containers and two slots: a freeze of any of them stops the
    # whole change.
    subjects += [part for pair in drift.taken | drift.given for part in pair]
    for subject in subjects:
        freeze = freezes.get(subject) if subject is not None else None
        if freeze is not None and is_in_force(freeze, now):
            return freeze
    return None


def freeze_end(freeze: Freeze, now: Now) -> Boot | None:
    """When a freeze ends; None: when somebody thaws it.

    By the clock that nobody sets, once it was put there (`anchor_freeze`).
    """
    if freeze.ends is not None:
        return freeze.ends
    return None if freeze.until is None else Boot(now.boot + (freeze.until - now.wall))


def is_in_force(freeze: Freeze, now: Now) -> bool:
    end = freeze_end(freeze, now)
    return end is None or now.boot < end


def anchor_freeze(freeze: Freeze, now: Now) -> Freeze:
    """The freeze with its end on CLOCK_BOOTTIME; what is left is never more than its length."""
    if freeze.until is None:
        return freeze
    # After a reboot only the wall clock relates the end to now; if that clock was set back, the
    # freeze must not become longer than it was asked for.
    left = min(freeze.until - now.wall, freeze.until - freeze.since)
    return replace(freeze, ends=Boot(now.boot + left))


def is_valid_reason(reason: str) -> bool:
    """One line, short enough for every table."""
    return len(reason) <= LONGEST_REASON and reason.isprintable()


def name_subject(subject: str) -> str:
    return "everything" if subject == EVERYTHING else subject


def describe_freeze(freeze: Freeze, now: Wall) -> str:
    """A freeze in words."""
    until = (
        "until thawed" if freeze.until is None else f"thaws {describe_moment(freeze.until - now)}"
    )
    why = f": {freeze.reason}" if freeze.reason else ""
    return f"{name_subject(freeze.subject)}, by {freeze.by}, {until}{why}"
