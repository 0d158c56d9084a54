"""How much the tests try that could try for ever: `make test` a part, `make proofs` all of it."""

from __future__ import annotations

import os
from typing import Final

PROOFS: Final = bool(os.environ.get("DS01D_PROOFS"))
"""`make proofs`. A test that asks for this is marked `proof`; those of hypothesis are found."""
