"""The journal as an admin reads it: all that the code sends, in a real journald, and a day's worth.

The stories are run by `tests.support.day`: the real daemon, and the real deciding and settling on
hosts in memory. They take seconds, so they run side by side.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from ds01d.reporting.message_ids import MESSAGES
from tests.reporting.test_catalog import ENTRIES, documented_fields
from tests.support.day import DAY
from tests.support.journald import ROOT, in_journal

pytestmark = pytest.mark.timeout(600)

needs_journald = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("journalctl"), reason="needs root and journald"
)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A quiet day and a busy one, both running."""
    running = {
        story: subprocess.Popen(
            [sys.executable, "-m", "tests.support.day", story, tmp_path_factory.mktemp(story)],
            cwd=ROOT,
            env={key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for story in ("quiet", "busy")
    }
    yield running
    for process in running.values():
        process.kill()
        process.communicate()


def entries(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    _, written = process.communicate(timeout=500)
    assert process.returncode == 0, written
    return [json.loads(line) for line in written.splitlines()]


@pytest.mark.machine
@needs_journald
def test_journalctl_explains_whatever_the_code_sends(
    tmp_path: Path, days: dict[str, subprocess.Popen[str]]
) -> None:
    assert days  # they run meanwhile
    sent, explained = in_journal(
        [sys.executable, "-m", "tests.support.day", "everything", str(tmp_path)], tmp_path
    )
    assert {entry["MESSAGE_ID"] for entry in sent} == {one.id for one in MESSAGES.values()}

    subjects = re.findall(r"^░░ Subject: (.*)$", explained, flags=re.MULTILINE)
    catalog = dict(ENTRIES)
    assert subjects == [catalog[entry["MESSAGE_ID"]].headers["Subject"] for entry in sent]
    assert not re.search(r"@[A-Z0-9_]+@", explained)

    documented, seen = documented_fields(), set[tuple[str, str]]()
    for entry in sent:
        event = entry["DS01_EVENT"]
        for field in ("MESSAGE_ID", *(name for name in entry if name.startswith("DS01_"))):
            patterns = [one for one in documented[field] if fnmatch(event, one)]
            assert patterns, (field, event)
            seen |= {(field, one) for one in patterns}
        for field in catalog[entry["MESSAGE_ID"]].fields:
            assert str(entry[field]) in explained
    everywhere = {(field, one) for field, patterns in documented.items() for one in patterns}
    assert {field for field, _ in everywhere - seen} == {"DS01_TIMES"}  # not all come and go here
    assert ("DS01_TIMES", "source.up") in seen


def test_a_quiet_day_is_a_handful_of_entries(days: dict[str, subprocess.Popen[str]]) -> None:
    """1,440 sweeps of the real daemon, a minute of its host's time between them."""
    assert DAY == 24 * 60
    told = entries(days["quiet"])
    assert [entry["event"] for entry in told] == ["daemon.start", "daemon.ready", "daemon.stop"]


def test_a_busy_day_has_one_entry_for_each_thing_done(
    days: dict[str, subprocess.Popen[str]],
) -> None:
    """50 containers that come and go as they should are no news; what has to be repaired is."""
    told = entries(days["busy"])
    assert Counter((entry["event"], entry.get("drift")) for entry in told) == {
        ("daemon.start", None): 1,
        ("daemon.ready", None): 1,
        ("drift.settled", "expired-hold"): 10,  # left stopped
        ("drift.settled", "wrong-metadata"): 10,  # their stop is recorded
        ("drift.settled", "stale-allocation"): 10,  # removed by hand
        ("daemon.stop", None): 1,
    }
