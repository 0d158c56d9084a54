"""Checks of logrotate's files: whether two of them rotate the same log. Reads only.

logrotate calls that an error and skips the whole file that comes second, in the order of names,
with all the logs that are in it (logrotate 3.21, `duplicate log entry`, `found error in file`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from ds01d.cli.doctor.source_checks import Check, ok, warn

LOGROTATE: Final = Path("/etc/logrotate.d")
_MOST_BYTES: Final = 1 << 20
_PASSED_OVER: Final = (
    ".bak", ".cfsaved", ".disabled", ".dpkg-bak", ".dpkg-del", ".dpkg-dist", ".dpkg-new",
    ".dpkg-old", ".rpmnew", ".rpmorig", ".rpmsave", ".swp", ".ucf-dist", ".ucf-new", ".ucf-old",
    ",v", "~",
)  # fmt: skip
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_SCRIPT = re.compile(
    r"^\s*(?:prerotate|postrotate|firstaction|lastaction|preremove)\b.*?^\s*endscript\b",
    re.MULTILINE | re.DOTALL,
)
_BLOCK = re.compile(r"\{[^}]*\}")
_PATH = re.compile(r'"(/[^"\n]+)"|\'(/[^\'\n]+)\'|(?<!\S)(/[^\s"\']+)')


def check_logrotate(logs: Sequence[Path], folder: Path = LOGROTATE) -> Iterator[Check]:
    """Whether one of these logs is in two files of the folder."""
    first_file: dict[Path, Path] = {}
    skipped: dict[Path, tuple[Path, Path]] = {}
    for file in _logrotate_files(folder):
        text = _read_rules(file)
        for log in logs:
            if not any(PurePosixPath(log).match(pattern) for pattern in _log_patterns(text)):
                continue
            # decision 125: logrotate skips the second file, unless the first allows duplicates.
            if log in first_file and not _ignores_duplicates(first_file[log]):
                skipped.setdefault(file, (log, first_file[log]))
            first_file.setdefault(log, file)
    for file, (log, first) in skipped.items():
        yield warn(
            "logrotate",
            f"{log} is in {first} and in {file}: logrotate skips all of {file}",
            f"remove ds01d's logs from {first} or {file}",
        )
    if not skipped:
        yield ok("logrotate", "no log of ds01d is rotated by two files")


def _logrotate_files(folder: Path) -> list[Path]:
    """The files that logrotate reads, in its order."""
    try:
        files = sorted(folder.iterdir())
    except OSError:
        return []
    return [file for file in files if file.is_file() and not file.name.endswith(_PASSED_OVER)]


def _read_rules(file: Path) -> str:
    """The rules of a file without comments and scripts; "" if it cannot be read."""
    try:
        with file.open("rb") as opened:
            text = opened.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""
    return _COMMENT.sub("", _SCRIPT.sub("", text))


def _log_patterns(text: str) -> list[str]:
    """The paths that stand before the blocks."""
    outside = _BLOCK.sub(" ", text)
    return [next(filter(None, match.groups())) for match in _PATH.finditer(outside)]


def _ignores_duplicates(file: Path) -> bool:
    return re.search(r"^\s*ignoreduplicates\s*$", _read_rules(file), re.MULTILINE) is not None
