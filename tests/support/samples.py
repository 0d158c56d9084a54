"""Copies of sample files with the modes that a server has: those of a clone depend on its umask."""

from __future__ import annotations

import shutil
from pathlib import Path


def copy_sample(source: Path, target: Path) -> None:
    """Copy a file or a whole folder: readable by everybody, writable by its owner."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(0o755)
        for entry in source.iterdir():
            if ".pyc." not in entry.name:  # another process writes it at this moment
                copy_sample(entry, target / entry.name)
    else:
        shutil.copy2(source, target)
        target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
