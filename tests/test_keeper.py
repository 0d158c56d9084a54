"""What a killed test process leaves behind is ended."""

from __future__ import annotations

import os
import select
import signal

import pytest

from tests.support.scripts import start

DIES = """
import os, subprocess, sys
from tests.support.keeper import keeper
with keeper():
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    print(sleeper.pid, flush=True)
    sys.stdin.read()
os._exit(0)
"""


@pytest.mark.parametrize("how", ["killed", "forgot"])
def test_what_is_left_behind_is_ended(how: str) -> None:
    with start(DIES) as dying:
        assert dying.stdout is not None
        assert dying.stdin is not None
        left = os.pidfd_open(int(dying.stdout.readline()))
        if how == "killed":
            dying.send_signal(signal.SIGKILL)
        else:
            dying.stdin.close()
        try:
            assert select.select([left], [], [], 60)[0], "it lives on"
        finally:
            os.close(left)
