"""Checks of the folders: whether a user without permission could replace one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ds01d.cli.doctor.source_checks import Check, fail, ok, warn
from ds01d.config import Config
from ds01d.folders import UntrustedFolder, open_folder, owner_of
from ds01d.logins import find_login

_SHARED = stat.S_IWGRP | stat.S_IWOTH


def check_folders(config: Config) -> Iterator[Check]:
    """One check if all is well; else one for each folder that is not safe."""
    state_dir = config.daemon.state_dir
    places = {
        config.books.state.parent: state_dir,
        config.books.metadata: state_dir,
        state_dir: None,
        config.logs.operations.parent: None,
        config.logs.allocations.parent: None,
    }
    unsafe = [check for path, service in places.items() for check in _check_trusted(path, service)]
    unsafe += _check_sticky(config.books.state.parent, state_dir)
    yield from unsafe or [ok("folders", "only trusted users can replace one")]


def _check_trusted(path: Path, service: Path | None) -> Iterator[Check]:
    try:
        # The same check as in a pass, so that the doctor and the daemon agree.
        os.close(open_folder(path, service))
    except UntrustedFolder as error:
        yield fail("folders", f"{path} is not trusted: {error.strerror}", error.fix)
    except OSError:
        return  # missing or not readable: another check reports it


def _check_sticky(folder: Path, state_dir: Path) -> Iterator[Check]:
    """The folder of the state: shared by a group, it has to be the service's, and sticky."""
    status, service = owner_of(folder), owner_of(state_dir)
    if status is None or not status.st_mode & _SHARED:
        return
    uid = status.st_uid if service is None else service.st_uid
    if not status.st_mode & stat.S_ISVTX:
        detail = f"{folder} lets every user who can write there replace the books"
        yield warn("folders", detail, f"chown {find_login(uid)} {folder} && chmod +t {folder}")
    elif status.st_uid != uid:
        detail = (
            f"{folder} is owned by {find_login(status.st_uid)}, so ds01d cannot replace the state"
        )
        yield warn("folders", detail, f"chown {find_login(uid)} {folder}")


def check_writers(config: Config) -> Check:
    """Whether others than ds01d can write the books by hand, and whether they may."""
    books, logs = config.books, config.logs
    folders = (books.state.parent, books.metadata, logs.operations.parent, logs.allocations.parent)
    statuses = {path: owner_of(path) for path in folders}
    shared = [path for path, status in statuses.items() if status and status.st_mode & _SHARED]
    if not shared:
        return ok("writers", "only the owner of the books' folders writes them")
    detail = f"all who can write to {shared[0]} can change every booking"
    if books.writers == "service":
        when = "restart ds01d" if config.daemon.mode == "repair" else 'with mode = "repair"'
        return warn("writers", f'{detail}, although books.writers is "service"', when)
    fix = 'books.writers = "service", once no script writes the books: docs/migrating.md'
    return warn("writers", detail, fix)
