"""A place outside the sources for what is compiled or downloaded once and used by many runs."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent / ".cache"


def cache(name: str) -> Path:
    """Return the folder for `name`, made if need be; git never sees it."""
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    (ROOT / ".gitignore").write_text("*\n", encoding="ascii")
    return folder
