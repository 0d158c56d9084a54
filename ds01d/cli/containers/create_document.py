"""What `container-create --json` prints: what was created, why nothing was, or the plan."""

from __future__ import annotations

from ds01d.containers.commands import CreatedContainer
from ds01d.containers.create import find_refusal
from ds01d.containers.preview import CreationPlan
from ds01d.documents.values import Document


def created_document(created: CreatedContainer) -> dict[str, Document]:
    """Of a container that exists now."""
    return {
        "created": True,
        "planned": False,
        "container": created.name,
        "image": created.image,
        "slots": created.slots,
        "started": created.is_started,
        "refusal": None,
        "reason": "",
    }


def refusal_document(reason: str) -> dict[str, Document]:
    """Of a creation that failed. `refusal`: the word of the allocator, if that refused a slot."""
    refusal = find_refusal(reason)
    return {
        "created": False,
        "planned": False,
        "container": None,
        "image": None,
        "slots": [],
        "started": False,
        "refusal": None if refusal is None else refusal.value,
        "reason": reason,
    }


def plan_document(plan: CreationPlan) -> dict[str, Document]:
    """Of --dry-run."""
    return {
        "created": False,
        "planned": True,
        "plan": {
            "container": plan.name,
            "user": plan.user,
            "framework": plan.framework,
            "image": plan.image,
            "image_present": plan.is_present,
            "gpus": plan.gpus,
            "command": plan.command,
            "mounts": plan.mounts,
            "start": plan.start,
        },
    }
