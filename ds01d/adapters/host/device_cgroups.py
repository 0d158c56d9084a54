"""The device rules of containers, as cgroup v1 shows them to everybody (`devices.list`).

With cgroup v2 the rules are a BPF program, which only root can ask for and nobody can read as
rules: there `device_probe` tries the access, as root, and leaves a report.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from ds01d.adapters.files.safe_read import NotRead, read_bytes
from ds01d.adapters.host.access_report import AccessReport
from ds01d.model.device_access import DeviceAccess, DeviceRule
from ds01d.model.primitives import ContainerId, Now

HIERARCHY: Final = Path("/sys/fs/cgroup/devices")
_FOLDER: Final = re.compile(r"(?:docker-)?([0-9a-f]{64})(?:\.scope)?")
_RULE: Final = re.compile(r"([abc]) ([0-9]+|\*):([0-9]+|\*) ([rwm]+)")
_MAX_DEPTH: Final = 10
_MAX_BYTES: Final = 1024 * 1024
_OPEN: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class DeviceCgroups:
    """Reads them. `hierarchy`: of the controller `devices`; without it nothing is known."""

    def __init__(
        self,
        hierarchy: Path = HIERARCHY,
        *,
        report: AccessReport | None = None,
        now: Callable[[], Now] | None = None,
    ) -> None:
        """`report`: what root tried, for containers whose rules cannot be read; `now`: its age."""
        self._hierarchy, self._report, self._now = hierarchy, report, now

    def read_access(
        self, containers: Collection[ContainerId]
    ) -> Mapping[ContainerId, DeviceAccess]:
        """What each of `containers` may open; one of which that is not known is missing."""
        folders: dict[ContainerId, list[str]] = {}
        for container, folder in self._find_folders(str(self._hierarchy), 0):
            if container in containers:
                folders.setdefault(container, []).append(folder)
        access: dict[ContainerId, DeviceAccess] = {}
        for container, paths in folders.items():
            # A parent cgroup that somebody named after another container makes two of them.
            if len(paths) == 1 and (rules := _read_rules(paths[0])) is not None:
                access[container] = rules
        unread = {*containers} - access.keys()
        if self._report is not None and self._now is not None and unread:
            access |= self._report.read_access(unread, self._now())
        return access

    def _find_folders(self, folder: str, depth: int) -> Iterator[tuple[ContainerId, str]]:
        """The cgroups of containers; those below one of them are the container's affair."""
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:  # none, or it went away meanwhile
            return
        for name in names:
            if match := _FOLDER.fullmatch(name):
                yield ContainerId(match[1]), f"{folder}/{name}"
            elif depth < _MAX_DEPTH:
                yield from self._find_folders(f"{folder}/{name}", depth + 1)


def _read_rules(folder: str) -> DeviceAccess | None:
    # Of the kernel's own tree, in which nobody can make a link: no walk from the root for each.
    try:
        descriptor = os.open(folder, _OPEN)
    except OSError:  # it went away meanwhile
        return None
    try:
        text = read_bytes(Path(folder, "devices.list"), _MAX_BYTES, folder=descriptor)
    finally:
        os.close(descriptor)
    return None if isinstance(text, NotRead) else parse_rules(text.decode("ascii", "replace"))


# Containers of one GPU have the same text, in each sweep.
@lru_cache(maxsize=256)
def parse_rules(text: str) -> DeviceAccess | None:
    """The content of a devices.list; None where it does not show what is denied."""
    rules: set[DeviceRule] = set()
    for line in text.splitlines():
        match = _RULE.fullmatch(line)
        # Decision 279: a cgroup that allows by default shows "a *:* rwm", and not its exceptions.
        if match is None or match[1] == "a":
            return None
        if match[1] == "c" and {*"rw"} <= {*match[4]}:
            major, minor = (None if part == "*" else int(part) for part in match.group(2, 3))
            rules.add(DeviceRule(major, minor))
    return DeviceAccess(rules=frozenset(rules))
