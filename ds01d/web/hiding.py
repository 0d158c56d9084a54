"""Takes out of a document what names a user: for a screen in a corridor, or readers from outside.

An allow-list, so that a key which is added elsewhere hides its texts until it is listed here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "hidden"
_KEY: Final = secrets.token_bytes(16)
# Texts of ds01d itself, of NVML and of clocks. No reason, no detail, no evidence: they quote names.
_SHOWN: Final = frozenset(
    {
        "action",
        "as_of",
        "at",
        "complete_since",
        "first_seen",
        "gate",
        "gpu",
        "host",
        "idle_since",
        "kind",
        "last_answer",
        "last_success",
        "last_sweep",
        "mode",
        "next_sweep",
        "operation",
        "profile",
        "published_at",
        "readings_at",
        "sampled_since",
        "schema",
        "since",
        "slot",
        "state",
        "status",
        "type",
        "unknown_since",
        "until",
        "user_by",
        "uuid",
        "verdict",
        "version",
        "written_at",
    }
)
_CONTAINERS: Final = frozenset({"container", "foreign"})
# A model of a GPU, and a day; elsewhere "name" is somebody's, and "subject" what is frozen.
_SHOWN_IN: Final = {
    "gpus": frozenset({"name"}),
    "lines": frozenset({"subject"}),
    "slots": frozenset({"drifts"}),
}


def hide_users(document: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which users are None, containers have pseudonyms, and other texts are "hidden".

    Pseudonyms are the same within one process and cannot be computed from the names by others.
    """
    return {key: _hide_value(key, value, "") for key, value in document.items()}


def _hide_value(key: str, value: Any, within: str) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, Mapping):
        return {name: _hide_value(name, part, key) for name, part in value.items()}
    if isinstance(value, list | tuple):
        # Elements of a list have its key; of objects in it, the list is what they are within.
        return [_hide_value(key, part, within) for part in value]
    # A uid is as good as a login.
    if key in {"user", "uid"}:
        return None
    if not isinstance(value, str) or not value:
        return value
    if key in _CONTAINERS:
        digest = hashlib.blake2b(value.encode("utf-8", "replace"), key=_KEY, digest_size=4)
        return f"container-{digest.hexdigest()}"
    if key in _SHOWN or key in _SHOWN_IN.get(within, ()):
        return value
    return HIDDEN
