"""What `container-create --json` prints: what was created, why nothing was, or the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ds01d.containers.commands import CreatedContainer
from ds01d.containers.create import find_refusal
from ds01d.containers.preview import CreationPlan
from ds01d.documents.values import Document

# Every key in each of them, whatever came of it; `host` is null on this host.
_EMPTY: Final[Mapping[str, Document]] = {
    "host": None,
    "created": False,
    "planned": False,
    "container": None,
    "image": None,
    "slots": (),
    "started": False,
    "refusal": None,
    "reason": "",
    "plan": None,
}


def created_document(created: CreatedContainer) -> dict[str, Document]:
    """Of a container that exists now."""
    return {
        **_EMPTY,
        "created": True,
        "container": created.name,
        "image": created.image,
        "slots": created.slots,
        "started": created.is_started,
    }


def refusal_document(reason: str, refusal: str | None = None) -> dict[str, Document]:
    """Of a creation that failed. `refusal`: the word of the allocator, if that refused a slot."""
    word = find_refusal(reason)
    return {
        **_EMPTY,
        "refusal": refusal if word is None else word.value,
        "reason": reason,
    }


def plan_document(plan: CreationPlan) -> dict[str, Document]:
    """Of --dry-run."""
    shown: dict[str, Document] = {
        "container": plan.name,
        "user": plan.user,
        "framework": plan.framework,
        "image": plan.image,
        "image_present": plan.is_present,
        "gpus": plan.gpus,
        "command": plan.command,
        "mounts": plan.mounts,
        "start": plan.start,
    }
    return {**_EMPTY, "planned": True, "plan": shown}


def remote_document(host: str, answer: Mapping[str, object]) -> dict[str, Document]:
    """Of another host, by what it printed: the keys that are known, with values of their types."""
    plan = answer.get("plan")
    return {
        **_EMPTY,
        "host": host,
        "created": answer.get("created") is True,
        "planned": answer.get("planned") is True,
        "container": _read_text(answer.get("container")),
        "image": _read_text(answer.get("image")),
        "slots": _read_texts(answer.get("slots")),
        "started": answer.get("started") is True,
        "plan": _read_plan(plan) if isinstance(plan, Mapping) else None,
    }


def _read_plan(plan: Mapping[str, object]) -> dict[str, Document]:
    shown: dict[str, Document] = {}
    for key in ("container", "user", "framework", "image"):
        shown[key] = _read_text(plan.get(key)) or ""
    shown["image_present"] = plan.get("image_present") is True
    for key in ("gpus", "command", "mounts"):
        shown[key] = _read_texts(plan.get(key))
    shown["start"] = plan.get("start") is True
    return shown


def _read_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _read_texts(value: object) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else []
