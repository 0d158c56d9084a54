"""The versions of what commands print with --json; their schemas are in share/schemas.

"status/1.0" is the first form of the document `status`. A key or a word that is added raises the
second number, whatever else changes the first (docs/json.md). `tools/schemas.py` holds us to it.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Output: TypeAlias = Literal[
    "allocate",
    "catalogue-check",
    "container-create",
    "container-list",
    "cuda",
    "dashboard",
    "doctor",
    "explain",
    "fleet-free",
    "fleet-status",
    "fleet-where",
    "history",
    "log",
    "me",
    "pass",
    "quota",
    "release",
    "report",
    "status",
    "undo",
]

VERSIONS: Final[dict[Output, str]] = {
    "allocate": "1.2",
    "catalogue-check": "1.0",
    "container-create": "1.0",
    "container-list": "1.0",
    "cuda": "1.0",
    "dashboard": "1.1",
    "doctor": "1.0",
    "explain": "1.0",
    "fleet-free": "1.0",
    "fleet-status": "1.1",
    "fleet-where": "1.0",
    "history": "1.0",
    "log": "1.0",
    "me": "1.2",
    "pass": "1.0",
    "quota": "1.1",
    "release": "1.0",
    "report": "1.0",
    "status": "1.1",
    "undo": "1.0",
}


def name_version(output: Output) -> str:
    """What stands in the key `schema` of a document."""
    return f"{output}/{VERSIONS[output]}"
