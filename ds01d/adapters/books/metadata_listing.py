"""Which files of container-metadata/ are records, and which names can have one."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from ds01d.adapters.files.atomic_write import TEMPORARY
from ds01d.logins import find_login
from ds01d.model.primitives import ContainerName

MAX_RECORDS = 20_000
SUFFIX = ".json"
_COMPARED = 15
_OWN_RIGHTS = stat.S_IRUSR | stat.S_IWUSR


class TooManyFiles(Exception):
    """More files than can be read in time: who made them."""


def list_files(folder: int) -> tuple[list[str], bool]:
    """The names of the records, and whether a writer that was killed has left something.

    Raises `TooManyFiles`.
    """
    files: list[str] = []
    leftovers = False
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            # Decision 95: more than can be read in time is refused, not cut to a part of the truth.
            if number >= MAX_RECORDS:
                owner = _owner_of_most(folder, files)
                problem = f"more than {MAX_RECORDS} files, most of them of {owner}"
                raise TooManyFiles(f"{problem}; remove those that no container has")
            if entry.name.startswith(TEMPORARY):
                leftovers = True
            elif entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                files.append(entry.name)
    return files, leftovers


def _owner_of_most(folder: int, files: list[str]) -> str:
    owners: Counter[int] = Counter()
    # A sample is enough to name the culprit, and takes a moment however many there are.
    for name in files[:: max(1, len(files) // 1000)]:
        with suppress(OSError):
            owners[os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid] += 1
    return find_login(owners.most_common(1)[0][0]) if owners else "others"


def find_usual_status(folder: int, files: Iterable[str]) -> os.stat_result | None:
    """Of a record with those owners and rights that most have, of a few that are there.

    One by itself may be locked away, or anybody's; a new record that took after it would be, too.
    """
    statuses = list(islice(_stat_records(folder, files), _COMPARED))
    usual = Counter(map(_get_rights, statuses)).most_common(1)
    return next((status for status in statuses if _get_rights(status) == usual[0][0]), None)


def _stat_records(folder: int, files: Iterable[str]) -> Iterator[os.stat_result]:
    """Of those that their owner may read and write."""
    for file in files:
        if not file.endswith(SUFFIX) or file.startswith("."):
            continue
        with suppress(OSError):
            status = os.stat(file, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_mode & _OWN_RIGHTS == _OWN_RIGHTS:
                yield status


def _get_rights(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid


def is_file_name(name: ContainerName) -> bool:
    """Whether `name` has a file of its own in the folder, and none of the hidden ones."""
    # Every name that the books have keeps its file, also one that no container can have.
    try:
        length = len(os.fsencode(f"{name}{SUFFIX}"))
        name.encode()  # bytes that are no UTF-8 are no name that the books could have
    except UnicodeEncodeError:
        return False
    return bool(name) and length <= 255 and not name.startswith(".") and not {*"/\0"} & {*name}
