"""A quota in words, for the commands that show one."""

from __future__ import annotations

from typing import Final

from ds01d.documents.quota import QuotaDocument
from ds01d.model.primitives import Wall
from ds01d.model.quota import QuotaUnit

_MOST_HOSTS: Final = 8


def format_amount(amount: float | None, unit: str) -> str:
    """So many slots or GPU-equivalents; None: any number."""
    if amount is None:
        return "unlimited"
    word = "slot" if unit == QuotaUnit.SLOTS.value else "GPU"
    return f"{amount:g} {word}{'' if amount == 1 else 's'}"


def format_left(quota: QuotaDocument) -> str:
    """What is left; "at most" that, where nobody knows what the user has on other hosts."""
    text = format_amount(quota.left, quota.unit)
    elsewhere = quota.other_hosts
    is_bound = elsewhere is not None and elsewhere.used is None and quota.left
    return f"at most {text}" if is_bound else text


def format_other_hosts(quota: QuotaDocument, now: Wall) -> str:
    """As "2 slots on gpu02 (12 s ago)", or "unknown" and why; "" without a fleet's store."""
    elsewhere = quota.other_hosts
    if elsewhere is None:
        return ""
    reason = f": {elsewhere.problem}" if elsewhere.problem else ""
    if elsewhere.used is None:
        return f"unknown{reason}"
    where = ", ".join(elsewhere.hosts[:_MOST_HOSTS])
    more = len(elsewhere.hosts) - _MOST_HOSTS
    where += f" and {more} more" if more > 0 else ""
    age = "" if elsewhere.at is None else f" ({elsewhere.at.relative_to(now)})"
    amount = format_amount(elsewhere.used, quota.unit)
    return f"{amount}{f' on {where}' if where else ''}{age}{reason}"
