"""The old command repairs, is quiet if told so, and takes no option that it does not know."""

from __future__ import annotations

import json

import pytest

from ds01d.cli.reconcile_gpu_state import main
from ds01d.model.facts import Source
from ds01d.ops.status import write
from tests.support.commands import Desk
from tests.support.sample_host import GONE
from tests.support.status import published


@pytest.mark.parametrize("words", [[], ["--fix"], ["--fix", "-v"], ["--quiet"]])
def test_without_a_daemon_it_stays_until_absence_is_proven(desk: Desk, words: list[str]) -> None:
    result = desk.call(*words, command=main)
    assert result.exit_code == 0
    assert (GONE, "1.1") not in desk.host.bookings()
    assert sum(desk.pauses) == pytest.approx(120)
    assert "stale-allocation" in result.stdout  # something was done: also --quiet says so


def test_beside_a_daemon_one_pass_is_enough(desk: Desk) -> None:
    write(published(), desk.state_dir)
    assert desk.call("--fix", command=main).exit_code == 2
    assert desk.pauses == []


def test_its_patience_has_an_end(desk: Desk) -> None:
    """What the pace holds for ten minutes is left to the next cron job."""
    desk.host.containers.clear()
    result = desk.call(command=main)
    assert result.exit_code == 2
    assert "3 drifts: 1 held, 2 done" in result.stdout
    assert sum(desk.pauses) == pytest.approx(120)


def test_quiet_says_nothing_of_consistent_books_and_everything_else(desk: Desk) -> None:
    desk.call(command=main)
    result = desk.call("--quiet", "--fix", command=main)
    assert (result.output, result.exit_code) == ("", 0)
    desk.host.failing.add(Source.DOCKER)
    result = desk.call("--quiet", "--fix", command=main)
    assert "docker does not answer" in result.stdout
    assert result.exit_code == 1


def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    result = desk.call("--dry-run", command=main)
    assert result.stdout == desk.call("plan").stdout
    assert result.exit_code == 2
    assert desk.host.memory is None
    assert json.loads(desk.call("-n", "--json", command=main).stdout)["consistent"] is False


def test_what_contradicts_itself_or_is_unknown_fails(desk: Desk) -> None:
    for words in (["--fix", "--dry-run"], ["--aggressive"], ["all"]):
        result = desk.call(*words, command=main)
        assert result.exit_code == 1
        assert result.stderr.startswith("reconcile-gpu-state: ")
