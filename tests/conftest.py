"""What holds for every test: its environment, what may be skipped, how hard hypothesis tries.

On CI (the variable CI is set) a skipped test is a failed one, unless it needs a GPU and there is
none: a check that quietly stopped running is worse than one that fails.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling, Scheduling  # type: ignore[import-untyped]

from simulation.engines import (
    EngineUnavailable,
    chosen_dockerd,
    chosen_version,
    describe_dockerd,
)
from tests.support import environment
from tests.support.keeper import keeper
from tests.support.proofs import PROOFS

pytest_plugins = ["tests.support.fixtures", "tests.support.simulated_host"]

environment.enter()

CI = bool(os.environ.get("CI"))

# Whoever runs us in the background may have SIGINT ignored, and every child would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

FIRST_MACHINE_S = 600
"""For a test on a machine: the first one of a clone builds what is installed there."""

PROFILE = os.environ.get("DS01D_HYPOTHESIS") or ("proofs" if PROOFS else "dev")
# `derandomize` stays off: CI is to find something new now and then. The blob reproduces it.
for name, examples in {"few": 25, "dev": 200, "proofs": 300}.items():
    settings.register_profile(name, max_examples=examples, deadline=None, print_blob=True)
settings.load_profile(PROFILE)
# What decides is tried hardest: tests/reconcile shares these.
settings.register_profile(
    "deciding", max_examples=2000 if PROFILE == "proofs" else settings().max_examples
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run twice as many tests at once as there are cores: most of them wait now and then."""
    return 2 * len(os.sched_getaffinity(0))


def pytest_report_header() -> str:
    """Say which Docker engine serves the tests marked `docker`."""
    try:
        dockerd = chosen_dockerd()
        return f"engine: {describe_dockerd(dockerd)} ({dockerd})"
    except (EngineUnavailable, OSError, subprocess.SubprocessError) as error:
        return f"engine: none ({error})"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let signals come to this process as to a new one: what a test starts inherits that.

    Otherwise a command that is to end by Ctrl-C never would.
    """
    # A shell without job control starts `make test &` with Ctrl-C ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # And a service that an earlier test ran in this process blocks those that it waits for.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage, of which there is hardly any.

    In each worker that is a tenth of the time, and a third where the tests are not compiled yet.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what may take long, and keep those together that share a machine."""
    too_new = [item for item in items if _needs_newer_engine(item)]
    if too_new:
        config.hook.pytest_deselected(items=too_new)
        items[:] = [item for item in items if item not in too_new]
    items.sort(key=_patience, reverse=True)
    for item in items:
        if item.get_closest_marker("timeout") is not None:
            continue
        if item.get_closest_marker("machine"):
            item.add_marker(pytest.mark.timeout(FIRST_MACHINE_S))
        # A deadline is for what hangs: thousands of examples take minutes on a busy machine.
        elif item.get_closest_marker("hypothesis") and PROFILE == "proofs":
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    """Distribute the tests one by one, but whole files where what they share is dear.

    The groups of `--dist loadgroup` do nothing with pytest 9.2: xdist 3.8 writes them into a field
    that is no longer read, and each worker boots a machine of its own for some tests of a file.
    """
    return _Scheduling(config, log) if config.getvalue("dist") == "loadscope" else None


WHOLE_FILES = (
    "tests/integration/test_events.py",
    "tests/integration/test_front.py",
    "tests/integration/test_journal.py",
    "tests/integration/test_present_lab_gpus.py",
    "tests/test_reference.py",
)
"""One daemon, or what takes as long, serves the tests of the file: one worker has all of them."""


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc] # without types
    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """What is given to one worker: a test, or its whole file."""
    file = nodeid.partition("::")[0]
    return file if _is_whole_file(file) else nodeid


def _is_whole_file(file: str) -> bool:
    return "tests/machine/" in file or file.endswith(WHOLE_FILES)


def _needs_newer_engine(item: pytest.Item) -> bool:
    """Whether a test is for engines newer than the chosen one; `make test-engines` has those."""
    marker = item.get_closest_marker("engine_since")
    if marker is None:
        return False
    try:
        return chosen_version() < marker.args
    except EngineUnavailable:
        return False  # its fixture says so


def _patience(item: pytest.Item) -> float:
    """How long it may take, in seconds; that of a machine's test is its whole file's."""
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return float(marker.args[0])
    if item.get_closest_marker("machine") is not None:
        return 200.0
    # One that begins last would leave all other workers without work.
    return 100.0 if _is_whole_file(item.nodeid.partition("::")[0]) else 0.0


@pytest.fixture(scope="session", autouse=True)
def _nothing_left() -> Iterator[None]:
    """End what tests have started and left behind, also if this process is killed."""
    with keeper():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if CI and report.skipped and not hasattr(report, "wasxfail") and not _needs_absent_gpu(item):
        marks = ", ".join(sorted({mark.name for mark in item.iter_markers()} & _REAL_PARTS))
        report.outcome = "failed"
        report.longrepr = _not_on_ci(f"a test marked {marks}" if marks else "a test", report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = _not_on_ci("a whole module", report)
    return report


_REAL_PARTS = {"docker", "machine", "gpu", "browser"}


def _needs_absent_gpu(item: pytest.Item) -> bool:
    return item.get_closest_marker("gpu") is not None and not Path("/dev/nvidiactl").exists()


def _not_on_ci(what: str, report: pytest.TestReport | pytest.CollectReport) -> str:
    where, line, reason = "", "", str(report.longrepr)
    if isinstance(report.longrepr, tuple):
        where, line, reason = (str(part) for part in report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    return (
        f"{where}:{line}: {what} was skipped: {reason}\n"
        "On CI that is a failure: only tests marked gpu may be skipped, where there is no GPU."
    )
