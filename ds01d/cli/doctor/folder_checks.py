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
