"""Refusals in the words of `gpu_allocator_v2.py`, which its callers search for. Pure.

The docker wrapper ends its wait where it finds QUOTA_EXCEEDED, USER_AT_LIMIT, EXCEEDS_TOTAL_LIMIT
or EXCEEDS_CONTAINER_LIMIT, and shows the first text in parentheses; anything else it tries again
for three minutes. So what waiting cannot end has one of these words, and what it may end has none.
"""

from __future__ import annotations

import re
from typing import Final

from ds01d.model.allocation import ONLY_WHOLE, Refusal, Rejected
from ds01d.service.client import NOT_POSSIBLE
from ds01d.service.exchange import ServiceRefused
from ds01d.text import make_printable

NO_GPU: Final = "No GPUs available (all allocated)"
NO_MIG: Final = "No MIG instances available (only full GPUs free, user not permitted)"
_COUNTED = re.compile(r"(\S+)/(\S+?)(?:, \S+ more asked for)?")
_TOKENS = re.compile(
    r"QUOTA_EXCEEDED|USER_AT_LIMIT|EXCEEDS_TOTAL_LIMIT|CONTAINER_LIMIT|FULL_GPU_NOT_ALLOWED"
    r"|No GPUs available|all allocated|No MIG instances|only full GPUs"
    r"|DOCKER_IDS?=|GPU_SLOTS=|SLOT_COUNT=|STATUS=|REASON=|✓|Removed|Released"
)


def describe_rejection(answer: Rejected, command: str, count: int = 1) -> str:
    """The reason of a refused allocation."""
    match answer.refusal:
        case Refusal.USER_AT_LIMIT:
            return _describe_limit(answer.detail, command, count)
        case Refusal.NO_GPU_AVAILABLE:
            return NO_MIG if ONLY_WHOLE in answer.detail else NO_GPU
        case Refusal.FULL_GPU_NOT_ALLOWED if command != "allocate":
            return describe_lasting(answer.detail, command)
        # Decision 234: no later attempt reads them either.
        case Refusal.LIMITS_UNREADABLE:
            return describe_lasting(f"limits cannot be read: {answer.detail}", command)
        case Refusal.INVENTORY_UNKNOWN:
            return f"INTERNAL_ERROR: {remove_tokens(answer.reason)}"
        case _:
            return make_printable(answer.reason)


def _describe_limit(detail: str, command: str, count: int) -> str:
    numbers = _COUNTED.fullmatch(detail)
    if numbers is None or command == "allocate":
        return f"USER_AT_LIMIT ({make_printable(detail if numbers is None else numbers[0])})"
    # The original has other words for each command, and its callers parse them.
    booked, most = numbers[1], numbers[2]
    if command == "allocate-multi":
        return f"EXCEEDS_TOTAL_LIMIT ({booked}+{count}>{most})"
    return f"QUOTA_EXCEEDED:{booked}/{most}"


def describe_error(error: Exception, command: str) -> str:
    """The reason where there was no answer, or the service refused to look for a slot."""
    if isinstance(error, ServiceRefused):
        name = error.error.rpartition(".")[2]
        code = error.parameters.get("code")
        # Decision 234: what a later attempt may end has none of the wrapper's words.
        is_busy = name == "Unavailable" or code in ("", None, NOT_POSSIBLE)
        if name in ("NotYours", "NotPermitted", "InvalidParameter") or not is_busy:
            return describe_lasting(str(error), command)
    return f"INTERNAL_ERROR: {remove_tokens(str(error))}"


def describe_lasting(text: str, command: str) -> str:
    """What waiting does not end: for the wrapper under a quota's word, with the text to show."""
    text = remove_tokens(text)
    if command == "allocate":  # which nobody repeats
        return f"INTERNAL_ERROR: {text}"
    # What is in parentheses is shown up to the first closing one.
    return f"QUOTA_EXCEEDED ({text.replace('(', '[').replace(')', ']')})"


def remove_tokens(text: str) -> str:
    """One line in which no caller finds a word that it would act on."""
    # Decision 234: a name or a path may contain such a word, by chance or on purpose.
    return _TOKENS.sub("…", make_printable(text))
