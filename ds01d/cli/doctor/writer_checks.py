"""Checks for other writers of the books, and for programs that take the place of ds01d's.

Reads cron's files, what their lines call, and the folders that come first on PATH; runs nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from ds01d.cli.doctor.known_programs import (
    ALLOCATORS,
    DOCKER_ON_PATH,
    WRAPPER,
    Effect,
    LabAllocator,
    Program,
    find_program,
)
from ds01d.cli.doctor.source_checks import Check, ok, warn
from ds01d.config import Config
from ds01d.text import format_count, make_printable

CRON: Final = (Path("/etc/crontab"), Path("/etc/cron.d"), Path("/var/spool/cron/crontabs"))
FIRST_ON_PATH: Final = (Path("/usr/local/sbin"), Path("/usr/local/bin"))

_WRITES_BOOKS = re.compile(rb"gpu-state\.json|container-metadata")
_RESETS_GPU = re.compile(rb"nvidia-smi\b[^\n]*\s(?:-r|--gpu-reset)\b")
_COMMENT = re.compile(r"^\s*#")
_OURS = re.compile(r"reconcile-gpu-state", re.ASCII)
_PATH = re.compile(r"/[^\s;|&<>'\"]+")
_LONGEST_SCRIPT = 1 << 20
_OTHER_WRITER = Program(
    words=_OURS,
    effect=Effect.WRITES,
    fix="remove the line, or call reconcile-gpu-state instead",
)
_RESETTER = Program(
    words=_OURS,
    effect=Effect.KILLS,
    why="; its script resets GPUs that are in use",
    fix="remove the line: docs/migrating.md",
)


def check_cron(places: tuple[Path, ...]) -> Iterator[Check]:
    """Lines of cron that run another writer of the books, and what other known programs do."""
    checks: dict[Effect, list[Check]] = {effect: [] for effect in Effect}
    readers: set[str] = set()
    for place in places:
        for file in _cron_files(place):
            for number, line in enumerate(_read_lines(file), 1):
                program = None if _COMMENT.match(line) else _judge_line(line)
                if program is None:
                    continue
                if program.effect is Effect.READS:
                    readers.add(f"{file}:{number}")
                else:
                    checks[program.effect].append(_describe(f"{file}:{number}", line, program))
    writers = checks.pop(Effect.KILLS) + checks.pop(Effect.WRITES)
    yield from writers or [ok("cron", "no line runs another writer of the books")]
    for others in checks.values():
        yield from others
    # One line for all of them: there is nothing to do about any.
    if readers:
        yield ok("cron", f"{format_count(len(readers), 'line')} of the lab only read")


def _judge_line(line: str) -> Program | None:
    """The known program that a line runs, by its name and by what its scripts do."""
    scripts = [text for path in _PATH.findall(line) if (text := _read_script(Path(path)))]
    # An old script may still stand at the path that the line calls.
    if _OURS.search(line):  # the command, or what stands in the place of the old script
        is_other = any(_WRITES_BOOKS.search(text) and b"ds01d" not in text for text in scripts)
        return _OTHER_WRITER if is_other else None
    program = find_program(line)
    # Decision 235: by the name alone, since not everybody may read the script.
    if program is not None and program.effect in {Effect.KILLS, Effect.WRITES}:
        return program
    if any(_RESETS_GPU.search(text) for text in scripts):
        return _RESETTER
    if program is not None and program.effect is Effect.CONTAINERS:
        writes = any(_WRITES_BOOKS.search(text) for text in scripts)
        return _OTHER_WRITER if writes else program
    return program


def _describe(where: str, line: str, program: Program) -> Check:
    match program.effect:
        case Effect.KILLS | Effect.WRITES:
            short = make_printable(line.strip()[:100])
            return warn("cron", f"{where} runs another writer: {short}{program.why}", program.fix)
        case Effect.CONTAINERS:
            return ok("cron", f"{where} removes or stops containers, but does not touch the books")
        case _ if program.fix:
            return warn("cron", f"{where} is not needed beside ds01d: {program.why}", program.fix)
        case _:
            return ok("cron", f"{where} {program.why}")


def check_allocators(allocators: Iterable[LabAllocator] = ALLOCATORS) -> Iterator[Check]:
    """An allocator of the lab that stands where ds01d's has to be."""
    checks = [
        _check_allocator(allocator)
        for allocator in allocators
        if (text := _read_script(allocator.path)) and not allocator.harmless.search(text)
    ]
    yield from checks or [ok("allocator", "no allocator that ignores the lock of the books found")]


def check_sharing(config: Config, allocator: Path = ALLOCATORS[-1].path) -> Iterator[Check]:
    """Whether ds01d would put two containers on one GPU where the lab's allocator never did."""
    # Decision 238: users of an allocator that never shares expect nobody else on their GPU.
    if config.allocator.sharing == "when-full" and allocator.exists():
        detail = "when all GPUs are taken a second container gets one of them (allocator.sharing)"
        yield warn("allocator", detail, 'set allocator.sharing = "never"')


def _check_allocator(allocator: LabAllocator) -> Check:
    path = allocator.path
    # Decision 235: the copy that docs/migrating.md keeps shows that ours was there.
    if path.with_name(f"{path.name}.before-ds01d").exists():
        detail = f"{path} was replaced, as by a release of the lab: it {allocator.problem}"
        return warn("allocator", detail, f"ln -sf {allocator.ours} {path}")
    detail = f"{path} {allocator.problem}"
    return warn("allocator", detail, f"put {allocator.ours} in its place: docs/migrating.md")


def check_wrapper(wrapper: Path = WRAPPER, command: Path = DOCKER_ON_PATH) -> Iterator[Check]:
    """Whether users still get the lab's wrapper of docker, where the lab has one."""
    if not wrapper.exists():
        return
    # A copy does the same as a link.
    if command.resolve() == wrapper.resolve() or _read_script(command) == _read_script(wrapper):
        yield ok("docker wrapper", f"{command} is the lab's wrapper")
        return
    state = _describe_path(command) if command.is_symlink() or command.exists() else "is missing"
    yield warn(
        "docker wrapper",
        f"{command} is not the lab's wrapper ({state}): docker run books nothing",
        f"ln -sf {wrapper} {command}",
    )


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
