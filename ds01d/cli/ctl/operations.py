"""Opens what the commands that see or change the whole of the books work with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ds01d.cli.base.caller import caller_name
from ds01d.cli.base.context import Invocation
from ds01d.config import Config
from ds01d.errors import NotPermitted, WriteFailed
from ds01d.reporting.published_status import read_published_status
from ds01d.service.operations import Operations, OwnOperations


@contextmanager
def open_operations(
    invocation: Invocation, config: Config, *, change: str = ""
) -> Iterator[Operations]:
    """Those of the daemon for who may not write `state_dir`, else our own; `change`: what for.

    Raises `NotPermitted` for a change by somebody who may not, where no daemon listens.
    """
    environment = invocation.environment
    # Decision 188: a caller that may write `state_dir` does it here, also while ds01d hangs.
    remote = environment.find_operations(config)
    if remote is not None:
        yield remote
        return
    try:
        if change:  # a first pass on a new host creates its directory
            environment.make_state_dir(config)
        with environment.open_world(config) as world:
            yield OwnOperations(
                world,
                config,
                caller_name(),
                read_published=lambda now: read_published_status(config, now),
                read_history=lambda: environment.read_history(config),
                sleep=environment.sleep,
            )
    except WriteFailed as error:
        # The error names a lock file, which a user cannot do anything about.
        if change and isinstance(error.__cause__, PermissionError) and os.geteuid() != 0:
            fix = f"try: sudo ds01ctl {change.partition(' ')[0]}"
            raise NotPermitted(f"only root can {change} ({fix})") from error
        raise
