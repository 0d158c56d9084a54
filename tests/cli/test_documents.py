"""Every command's document is as its schema says, also with hostile names and without a daemon.

`Desk.call` compares each document that it prints; here is one of each, and the odd ones.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from ds01d.cli.containers.main import list_
from ds01d.cli.dashboard.main import main as ds01_dashboard
from ds01d.cli.reconcile_gpu_state import main as reconcile_gpu_state
from ds01d.config import LogsConfig
from ds01d.documents.output_versions import VERSIONS
from ds01d.model.containers import State
from ds01d.model.primitives import LOCAL_SOURCES, Source
from ds01d.reporting.status_file import write_status
from tests.cli.ctl.test_me import OwnDesk
from tests.cli.ctl.test_status_forms import HOSTILE, with_readings
from tests.support.commands import Desk
from tests.support.sample_host import GONE, REST, TRAIN, container

# Of these other tests have real documents: of a driver, the accounting, a catalogue, other hosts.
ELSEWHERE = {
    "cuda", "report", "catalogue-check", "container-create",
    "fleet-status", "fleet-free", "fleet-where",
}  # fmt: skip


@pytest.fixture
def own(desk: Desk, tmp_path: Path) -> OwnDesk:
    own = OwnDesk(host=desk.host, state_dir=tmp_path)
    log = tmp_path / "operations.log"
    log.write_text(f"2027-01-15 07:59:00|stop|alice|{TRAIN}|1.0|success|\nno line\n")
    own.config = msgspec.structs.replace(own.config, logs=LogsConfig(operations=log))
    return own


def name_of(desk: Desk, *words: str) -> str:
    """What the document of a command is called."""
    result = desk.call(*words)
    assert result.stdout, (words, result.output)
    name: str = json.loads(result.stdout)["schema"]
    return name.partition("/")[0]


def test_one_of_each(own: OwnDesk) -> None:
    printed = {
        name_of(own, *words.split(), "--json")
        for words in (
            "status", f"explain {TRAIN}", f"explain {GONE}", f"explain {REST}", "explain 1.3",
            "plan", "allocate alice new._.1001", "allocate alice again", "release new._.1001",
            "release nobody", "reconcile --wait", "history", "undo none", "log", "me", "quota",
            "doctor",
        )
    }  # fmt: skip
    printed.add(json.loads(own.call("--json", command=ds01_dashboard).stdout)["schema"][:9])
    printed.add(json.loads(own.call("--json", command=list_).stdout)["schema"][:14])
    printed.add(json.loads(own.call("--json", command=reconcile_gpu_state).stdout)["schema"][:4])
    assert printed == set(VERSIONS) - ELSEWHERE


def test_with_a_daemon_and_hostile_names(own: OwnDesk) -> None:
    own.host.failing.add(Source.STATE)
    write_status(with_readings(), own.state_dir)
    for words in (["status"], ["me"], ["plan"], ["explain", HOSTILE], ["history", HOSTILE]):
        own.call(*words, "--json")
    own.call("--json", command=ds01_dashboard)


@pytest.mark.parametrize("source", LOCAL_SOURCES)
def test_whatever_fails(own: OwnDesk, source: Source) -> None:
    own.host.failing.add(source)
    for words in (["status"], ["plan"], ["explain", TRAIN], ["explain", "1.0"], ["me"], ["doctor"]):
        own.call(*words, "--json")
    own.call("--json", command=list_)


def test_a_name_that_is_a_slot_as_well(own: OwnDesk) -> None:
    own.host.run(container("1.3", 9, "alice", State.RUNNING, "MIG-1-3"))
    assert len(own.json("explain", "1.3")["both"]) == 2
