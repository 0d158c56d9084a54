"""How much the tests try that could try for ever: `make test` a part, `make proofs` all of it."""

from __future__ import annotations

import os
from typing import Final

PROOFS: Final = bool(os.environ.get("DS01D_PROOFS"))
"""`make proofs`. A test that asks for this is marked `proof`; those of hypothesis are found."""

HISTORIES: Final = int(os.environ.get("DS01D_SOAK_HISTORIES") or (600 if PROOFS else 40))
"""How many random histories the accounting replays; 10,000 take seven minutes."""
CALLERS_AT_ONCE: Final = int(os.environ.get("DS01D_SOAK_CALLERS") or (24 if PROOFS else 12))
"""How many callers of the lab's allocator there are at once. A hundred take all of the machine."""
