"""`make demo` runs to its end, says what it promises, and leaves nothing behind, even if killed."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.books import until
from tests.support.processes import command_lines
from tests.support.proofs import PROOFS

FOLDER = Path(__file__).parent.parent / "demo"
DEMO = FOLDER / "demo.py"
FLEET_DEMO = FOLDER / "fleet_demo.py"
SAID = (
    "the books list three containers, Docker has one of them",
    "both stale bookings are found and wait, the third is not among them",
    "both are released, the third is kept",
    "ds01d logs that Docker is unavailable",
    "the books are what they were, byte for byte",
    "it ran all the time",
    "it is written again",
    "it has a slot, metadata and its labels",
    "removed, and gone from all of them; of the one that failed nothing was left",
    "in it she is who she is outside",
    "somebody else is refused, and it has its slot",
    "removed, and its slot is free again",
    "its request is its booking, beside that of the container from before",
    "removed, and its slot is free at once",
    "and the allocator's files are as they were",
    "a destroy event proves it, so the settle time was enough: released",
    "every change of the books is in the history",
    "nothing is left of it on this machine",
)

FLEET_SAID = (
    "gpu03 is empty, and refuses: amy has her two slots elsewhere",
    "gpu03 has no such container, and refuses: gpu02 has one",
    "what ben has on gpu02 counts, silent as it is",
    "gpu02 is unknown, neither free nor empty, with its last known status: exit status 1",
    "on gpu02 the container runs on, and its booking is what it was",
    "gpu02 is known again, with what it had all the time",
    "ben has more than he may: that is said, and nothing is undone",
    "what it had is shown as its last known status",
    "it sees that it took part since, and changes nothing in etcd",
    "its entries go on counting, though its books have none of them",
    "what its books do not have is withdrawn, and no earlier",
    "what runs there again is in etcd",
    "nothing is left of it on this machine",
)

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="needs dockerd"),
]


@pytest.fixture
def shelf() -> Iterator[Path]:
    """Lend the demonstration an empty folder for its temporary ones. Short: sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder)


def test_every_step_is_shown_and_nothing_is_left(shelf: Path) -> None:
    with _demo(shelf) as demo:
        printed, complaints = demo.communicate()
    assert demo.returncode == 0, printed + complaints
    assert not [claim for claim in SAID if claim not in printed]
    assert "\x1b" not in printed  # nobody sees colours here
    # What Docker says of an engine without a controller for limits is as long as it is.
    ours = [line for line in printed.splitlines() if "Docker warns: " not in line]
    assert max(map(len, ours)) <= 100
    assert _left(shelf) == []


@pytest.mark.engine_neutral
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_one_that_was_ended(shelf: Path, signum: signal.Signals) -> None:
    with _demo(shelf) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "ds01d is ready" in line:
                break
        demo.send_signal(signum)
        _, complaints = demo.communicate()
    expected = -signum if signum is signal.SIGKILL else 128 + signum
    assert demo.returncode == expected, complaints
    if signum is signal.SIGKILL:
        _wait_for_its_keeper(shelf)
    assert _left(shelf) == []


@pytest.mark.proof
@pytest.mark.machine
@pytest.mark.engine_neutral
@pytest.mark.skipif(not PROOFS, reason="a minute of four machines: make proofs")
def test_the_demonstration_of_several_hosts(shelf: Path, machine_host: None) -> None:
    with _demo(shelf, FLEET_DEMO) as demo:
        printed, complaints = demo.communicate()
    assert demo.returncode == 0, printed + complaints
    assert not [claim for claim in FLEET_SAID if claim not in printed]
    assert _left(shelf) == []


@pytest.mark.proof
@pytest.mark.machine
@pytest.mark.engine_neutral
@pytest.mark.skipif(not PROOFS, reason="half a minute of four machines: make proofs")
def test_nothing_is_left_of_a_lab_that_was_killed(shelf: Path, machine_host: None) -> None:
    with _demo(shelf, FLEET_DEMO) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "all hosts are known" in line:
                break
        demo.kill()
    until(lambda: not _left(shelf), 120, what=lambda: _left(shelf))


def _demo(shelf: Path, program: Path = DEMO) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(program)],
        env={**os.environ, "TMPDIR": str(shelf)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _left(shelf: Path) -> list[str]:
    """Folders, mounts and processes that name the shelf."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [
        *map(str, shelf.iterdir()),
        *(row for row in mounts if str(shelf) in row),
        *(f"process {pid}: {command}" for pid, command in command_lines() if str(shelf) in command),
    ]


def _wait_for_its_keeper(shelf: Path) -> None:
    """Wait for the process that clears up after a demonstration that could not."""
    for pid, command in command_lines():
        if "simulation.enclosure" in command and str(shelf) in command:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                handle = os.pidfd_open(pid)
                select.select([handle], [], [], 60)
                os.close(handle)
