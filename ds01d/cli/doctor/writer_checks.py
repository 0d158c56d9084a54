"""Checks for other writers of the books, and for programs that shadow commands of ds01d.

Reads cron's files, what their lines call, and the folders that come first on PATH; runs nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from ds01d.cli.doctor.source_checks import Check, ok, warn
from ds01d.text import make_printable

CRON: Final = (Path("/etc/crontab"), Path("/etc/cron.d"), Path("/var/spool/cron/crontabs"))
ALLOCATORS: Final = (Path("/opt/ds01-infra/scripts/docker/gpu_allocator.py"),)
FIRST_ON_PATH: Final = (Path("/usr/local/sbin"), Path("/usr/local/bin"))

_WRITER = re.compile(
    r"gpu[_-]allocator|gpu-state|stale[_-]gpu|cleanup-stale|container-metadata", re.ASCII
)
# They remove or stop containers, which ds01d follows; the books they leave alone.
_OF_CONTAINERS = re.compile(
    r"cleanup-stale-containers|check-idle-containers|enforce-max-runtime"
    r"|docker\s+(?:container\s+|system\s+)?(?:rm|prune)\b",
    re.ASCII,
)
_WRITES_BOOKS = re.compile(rb"gpu-state\.json|container-metadata")
_LOCKING = re.compile(rb"ds01-allocator|gpu-state\.json\.lock|flock")
_COMMENT = re.compile(r"^\s*#")
_OURS = re.compile(r"reconcile-gpu-state", re.ASCII)
_PATH = re.compile(r"/[^\s;|&<>'\"]+")
_LONGEST_SCRIPT = 1 << 20


def check_cron(places: tuple[Path, ...]) -> Iterator[Check]:
    """Lines of cron that run another writer of the books, and those that only touch containers."""
    writers: list[Check] = []
    harmless: list[Check] = []
    for place in places:
        for file in _cron_files(place):
            for number, line in enumerate(_read_lines(file), 1):
                where = f"{file}:{number}"
                if _is_writer(line):
                    detail = f"{where} runs another writer: {make_printable(line.strip()[:100])}"
                    fix = "remove the line, or call reconcile-gpu-state instead"
                    writers.append(warn("cron", detail, fix))
                elif _OF_CONTAINERS.search(line) and not _COMMENT.match(line):
                    detail = f"{where} removes or stops containers, but does not touch the books"
                    harmless.append(ok("cron", detail))
    yield from writers or [ok("cron", "no line runs another writer of the books")]
    yield from harmless


def _is_writer(line: str) -> bool:
    if _COMMENT.match(line):
        return False
    scripts = [text for path in _PATH.findall(line) if (text := _read_script(Path(path)))]
    # An old script may still stand at the path that the line calls.
    if _OURS.search(line):  # the command, or what stands in the place of the old script
        return any(_WRITES_BOOKS.search(text) and b"ds01d" not in text for text in scripts)
    if _WRITER.search(_OF_CONTAINERS.sub("", line)):
        return True
    of_containers = _OF_CONTAINERS.search(line) is not None
    return of_containers and any(_WRITES_BOOKS.search(text) for text in scripts)


def check_allocator(places: tuple[Path, ...]) -> Check:
    """An old allocator that writes the books without their lock."""
    for place in places:
        text = _read_script(place)
        if text and _LOCKING.search(text) is None:
            detail = f"{place} writes the books without their lock"
            return warn("allocator", detail, "put ds01-allocator in its place: docs/migrating.md")
    return ok("allocator", "no allocator that ignores the lock of the books found")


def installed_commands() -> Mapping[str, Path]:
    """The commands of this installation, by name."""
    commands = entry_points(group="console_scripts")
    names = {command.name for command in commands if command.value.startswith("ds01d.")}
    folder = Path(sys.prefix) / "bin"
    return {name: folder / name for name in sorted(names) if (folder / name).exists()}


def check_hidden_commands(
    places: tuple[Path, ...], commands: Mapping[str, Path]
) -> Iterator[Check]:
    """Programs of the same name that come first on PATH, and so run in place of ours."""
    checks = [
        warn(
            "commands",
            f"{_describe_path(place / name)} shadows {name} of ds01d",
            f"remove {place / name}, or keep it and call {path} by its path: docs/migrating.md",
        )
        for name, path in commands.items()
        for place in places
        if _is_another(place / name, path)
    ]
    yield from checks or [ok("commands", "no command of ds01d is shadowed")]


def _is_another(program: Path, command: Path) -> bool:
    """Whether a program is there, and neither ours nor a wrapper that calls it."""
    if not (program.is_symlink() or program.is_file()) or program.resolve() == command.resolve():
        return False
    # A wrapper that calls our command is fine.
    text = _read_script(program)
    return not any(name.encode() in text for name in (str(command), f"/usr/bin/{command.name}"))


def _describe_path(path: Path) -> str:
    """A path, with its target if it is a link."""
    return make_printable(f"{path} -> {path.readlink()}" if path.is_symlink() else str(path))


def _read_script(path: Path) -> bytes:
    """The first bytes of a file; empty if there is none."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(_LONGEST_SCRIPT)
    except OSError:
        return b""


def _cron_files(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir()) if place.is_dir() else [place]
    except OSError:
        return []


def _read_lines(file: Path) -> list[str]:
    return _read_script(file).decode(errors="replace").splitlines()
