"""What follows from a pass: nothing of it that fails ends the worker."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, NoReturn, cast

from structlog.testing import capture_logs

from ds01d.daemon.dirty_set import DirtySet
from ds01d.daemon.pass_runner import PassRunner
from ds01d.daemon.timers import Timers


def test_what_no_repair_depends_on_may_fail_in_any_way() -> None:
    def decode() -> NoReturn:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    timers = Timers(print)
    nothing = cast("Any", None)
    runner = PassRunner(DirtySet(timers.schedule), timers, nothing, nothing, threading.Event())
    session = cast("Any", SimpleNamespace(read_boot=lambda: 1.0))
    with capture_logs() as entries:
        runner._try_optional(session, decode)
        runner._try_optional(session, lambda: None)
        runner._try_optional(session, lambda: "the disk is full")
    first, second = (entry["reason"] for entry in entries)
    assert first.startswith("internal error: UnicodeDecodeError: 'utf-8' codec can't decode byte")
    assert second == "the disk is full"
