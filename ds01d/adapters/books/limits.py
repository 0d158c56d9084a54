"""resource-limits.yaml with the files beside it. What they mean is worked out by `limits_rules`.

Read, never written. Their version goes with the answer, so that a file which somebody still writes,
half of it valid, ends no hold. Files in the lab's present format that cannot be read or understood
any more leave the last good limits, which end no hold (decision 220).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from ds01d.adapters.books.group_members import parse_assignments, parse_members
from ds01d.adapters.books.limits_files import (
    ASSIGNMENTS,
    EXEMPTIONS,
    OVERRIDES,
    Content,
    LimitsFolder,
    Signatures,
    decode_files,
    encode_files,
    find_group,
    name_members,
    open_limits,
)
from ds01d.adapters.books.limits_layers import parse_layer
from ds01d.adapters.books.limits_rules import explain_null_section, resolve_limits
from ds01d.adapters.books.limits_sections import SideFiles
from ds01d.adapters.books.present_limits import FREED_TYPES
from ds01d.adapters.books.strict_yaml import describe_value, read_yaml
from ds01d.adapters.files.safe_read import digest_of
from ds01d.errors import Malformed
from ds01d.model.limits import HoldRule, Limits
from ds01d.model.primitives import Source, Unknown

_FOR_EVER: Final = HoldRule(seconds=None, source="no limits")
NO_LIMITS: Final = Limits(
    holds={},
    unknown_user=_FOR_EVER,
    unnamed=_FOR_EVER,
    default_quota=None,
    freed_types=FREED_TYPES,
)


class LimitsFile:
    """The files, parsed again only when one changed. `missing`: the limits where there is none."""

    def __init__(self, path: Path, missing: Limits | None = None) -> None:
        self._path, self._missing = path, missing
        self._moved_to = path.parent / "runtime" / path.name  # where the lab has it today
        self._cached: tuple[Signatures, Limits | Unknown] | None = None
        self._last_whole: dict[str, bytes] = {}
        self._last_good: Limits | None = None
        self._imported: Limits | None = None
        self._unsaved: Content | None = None

    def import_copy(self, data: bytes) -> None:
        """Take over the last good files of an earlier process; others are passed over."""
        content = decode_files(data, self._path)
        if content:
            self._imported = _keep_good(self._make_limits(content))
            self._unsaved = None

    def export_copy(self) -> bytes:
        """The last good files for the next process; b"" if it has them already."""
        content, self._unsaved = self._unsaved, None
        return b"" if content is None else encode_files(content, self._path)

    def read(self) -> Limits | Unknown:
        """The limits; Unknown where the files are missing, unreadable or make no limits."""
        answer = self._read_files()
        if isinstance(answer, Unknown) and answer.missing and self._moved_to.exists():
            # Not a host without limits: nobody may get more by a path that is out of date.
            reason = f"{answer.reason}; set books.limits to {self._moved_to}"
            answer = _make_unknown(reason)
        if isinstance(answer, Limits):
            self._last_good = _keep_good(answer)
            return answer
        # Decision 220: a file that is broken, or gone, leaves the last good limits. One that was
        # gone already when this process began was taken away.
        last_good = self._last_good or (None if answer.missing else self._imported)
        if last_good is not None:
            return replace(last_good, problem=answer.reason)
        return self._missing if answer.missing and self._missing is not None else answer

    def _read_files(self) -> Limits | Unknown:
        with open_limits(self._path) as folder:
            if isinstance(folder, Unknown):
                return folder
            try:
                return self._read_folder(folder)
            except OSError as error:
                return _make_unknown(f"{self._path} could not be read: {error.strerror}")

    def _read_folder(self, folder: LimitsFolder) -> Limits | Unknown:
        # The same signatures are the same files: a sweep must not parse YAML each time.
        if self._cached is not None and self._cached[0] == folder.sign():
            return self._cached[1]
        content = folder.read_files()
        if isinstance(content, Unknown):
            return content
        signatures = folder.sign()
        answer = self._make_limits(content)
        # A further write within the same tick of the clock would leave the same signature.
        is_racy = any(
            signature is not None and signature.is_racy() for signature in signatures.values()
        )
        self._cached = None if is_racy else (signatures, answer)
        return answer

    def _make_limits(self, content: Content) -> Limits | Unknown:
        try:
            raw = self._parse_file(content, self._path.name)
            side = self._parse_side_files(raw, content)
        except Malformed as error:
            return _make_unknown(str(error))
        if problem := explain_null_section(raw, side):
            return _make_unknown(f"{self._path}: {problem}")
        if problem := self._explain_missing(raw, content):
            return _make_unknown(problem)
        limits = resolve_limits(raw, str(self._path), side)
        # Decision 129: the beginning of what stood there before is a file that was cut.
        cut = {
            name
            for name, file in content.items()
            if (before := self._last_whole.get(name, b"")).startswith(file.data)
            and len(file.data) < len(before)
        }
        self._last_whole |= {name: file.data for name, file in content.items() if name not in cut}
        if not cut:
            self._unsaved = content
        files = [content[name] for name in sorted(content)]
        return replace(
            limits,
            version=" ".join(f"{digest_of(file.data)} {file.modified_ns}" for file in files),
            size=sum(len(file.data) for file in files),
            is_part=bool(cut),
        )

    def _parse_file(self, content: Content, name: str) -> dict[object, object]:
        """A file of YAML; raises `Malformed`."""
        path = self._path.parent / name
        raw = read_yaml(content[name].data, str(path))
        if raw is None and name != self._path.name:
            return {}  # only comments
        if not isinstance(raw, dict):
            raise Malformed(f"{path}: expected a mapping, got {describe_value(raw)}")
        return raw

    def _parse_side_files(self, raw: Mapping[object, object], content: Content) -> SideFiles:
        """Raises `Malformed` where it is not known whose limits are whose."""
        folder = self._path.parent
        members: dict[str, tuple[str, ...]] = {}
        problems = [
            f"{folder / name}: anybody may write it: chmod o-w"
            for name, file in content.items()
            if file.is_public
        ]
        if self._moved_to.exists():
            problems.append(f"{self._path}: set books.limits to {self._moved_to}: it counts today")
        groups = _name_groups(raw)
        for name, file in content.items():
            if (group := find_group(name)) is None:
                continue
            # As a file system leaves it after a power failure: nobody wrote that it has no members.
            if b"\0" in file.data:
                raise Malformed(f"{folder / name}: damaged: it has NUL bytes; write it again")
            members[group], unclear = parse_members(file.data)
            problems += [f"{folder / name}: {problem}" for problem in unclear]
            if group not in groups:
                problems.append(f"{folder / name}: there is no group {group!r:.60}")
        assignments: dict[str, str] = {}
        if ASSIGNMENTS in content:
            assignments, unclear = parse_assignments(content[ASSIGNMENTS].data)
            problems += [f"{folder / ASSIGNMENTS}: {problem}" for problem in unclear]
        exemptions: dict[object, object] = {}
        if EXEMPTIONS in content:
            try:
                exemptions = self._parse_file(content, EXEMPTIONS)
            except Malformed as error:  # it decides nothing here
                problems.append(str(error))
        return SideFiles(
            members=members,
            overrides=self._parse_file(content, OVERRIDES) if OVERRIDES in content else {},
            overrides_path=str(folder / OVERRIDES),
            assignments=assignments,
            assignments_path=str(folder / ASSIGNMENTS),
            exemptions=parse_layer(exemptions, "", ("exemptions",), str(folder / EXEMPTIONS)),
            problems=tuple(problems),
        )

    def _explain_missing(self, raw: Mapping[object, object], content: Content) -> str:
        """Which file is gone that assigned limits to users; "" where none is."""
        deciding = {OVERRIDES, *map(name_members, _name_groups(raw))}
        for name in sorted(deciding & set(self._last_whole) - set(content)):
            path = self._path.parent / name
            return f"{path} is gone: put it back (it may be empty)"
        return ""


def _keep_good(limits: Limits | Unknown) -> Limits | None:
    """The limits that count while the files are broken; none in the older format, which refuses."""
    if isinstance(limits, Unknown) or limits.default_gpu_quota is None:
        return None
    return limits


def _name_groups(raw: Mapping[object, object]) -> list[str]:
    groups = raw.get("groups")
    return [name for name in groups if isinstance(name, str)] if isinstance(groups, dict) else []


def _make_unknown(reason: str) -> Unknown:
    return Unknown(source=Source.LIMITS, reason=reason)
