"""The commands as they are installed: real files, a fake engine, their own processes and locks."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ds01d import bootstrap
from ds01d.cli.base import completion
from ds01d.cli.base.context import Invocation, host_environment
from ds01d.cli.ctl.main import main as ds01ctl
from ds01d.cli.reconcile_gpu_state import main as reconcile_gpu_state
from simulation.fake_engine import FakeEngine
from tests.support.daemon import ROOT
from tests.support.terminal import on_a_terminal

HERE, GONE = "here._.1001", "gone._.1002"
CONFIG = """\
[docker]
url = "{url}"
timeout = "2s"
[gpu]
source = "none"
[books]
state = "{root}/lib/gpu-state.json"
metadata = "{root}/lib/metadata"
limits = "{root}/limits.yaml"
[logs]
operations = "{root}/log/operations.log"
allocations = "{root}/log/allocations.log"
[daemon]
state_dir = "{root}/own"
[policy]
settle = "10ms"
absence_grace = "50ms"
"""


@dataclass(frozen=True)
class Installed:
    """A host of real files. `call` runs a command with nothing in the place of anything."""

    root: Path
    engine: FakeEngine

    def call(self, *words: str, command: click.Command = ds01ctl) -> Result:
        return CliRunner().invoke(command, ["--config", str(self.root / "ds01d.toml"), *words])

    def bookings(self) -> list[str]:
        state = json.loads((self.root / "lib/gpu-state.json").read_text())
        return [name for slot in state["gpus"].values() for name in slot["containers"]]

    def files(self) -> Mapping[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_ino)
            for path in self.root.rglob("*")
            if path.name != "docker.sock"
        }


def _slot(index: int, name: str, user: str) -> dict[str, Any]:
    uuid = f"MIG-{index}"
    return {
        "type": "mig_instance",
        "containers": [name],
        "users": {user: 1},
        "reserved_until": None,
        "reserved_for": None,
        "physical_gpu": "0",
        "device_id": str(index),
        "uuid": uuid,
        "profile": "1g.10gb",
        "docker_id": uuid,
    }


@pytest.fixture
def installed(tmp_path: Path, fake_engine: FakeEngine) -> Installed:
    for folder in ("lib/metadata", "log"):
        (tmp_path / folder).mkdir(parents=True)
    gpus = {"0.0": _slot(0, HERE, "alice"), "0.1": _slot(1, GONE, "bob")}
    state = {"gpus": gpus, "mig_enabled": True, "allocation_strategy": "least_allocated"}
    (tmp_path / "lib/gpu-state.json").write_text(json.dumps(state, indent=2))
    for name, user, slot in ((HERE, "alice", "0.0"), (GONE, "bob", "0.1")):
        record = {
            "container": name,
            "user": user,
            "gpu_id": slot,
            "priority": 10,
            "allocated_at": "2026-01-01T08:00:00",
        }
        (tmp_path / f"lib/metadata/{name}.json").write_text(json.dumps(record, indent=2))
    (tmp_path / "limits.yaml").write_text("defaults: {gpu_hold_after_stop: 24h, priority: 10}\n")
    (tmp_path / "ds01d.toml").write_text(CONFIG.format(root=tmp_path, url=fake_engine.url))
    fake_engine.data_root = str(tmp_path)
    fake_engine.containers.add(HERE, start=True, labels={"aime.mlc": "alice"})
    return Installed(tmp_path, fake_engine)


def test_questions_write_nothing_and_make_no_folder(installed: Installed) -> None:
    before = installed.files()
    assert installed.call("plan").exit_code == 2
    assert installed.call("reconcile", "--dry-run", "--json").exit_code == 2
    assert installed.call("explain", GONE).exit_code == 0
    assert installed.call("status").exit_code == 0
    doctor = installed.call("doctor")
    assert doctor.exit_code == 0, doctor.stdout
    assert "version 20.10.24" in doctor.stdout
    assert installed.files() == before


def test_drift_is_waited_for_settled_and_told(installed: Installed) -> None:
    result = installed.call("reconcile", "--wait", "--timeout", "1m")
    assert result.exit_code == 0, result.output
    assert installed.bookings() == [HERE]
    assert "the books are consistent" in installed.call("plan").stdout
    told = json.loads(installed.call("history", GONE, "--json").stdout)["entries"]
    assert [entry["outcome"] for entry in told] == ["done"]
    assert GONE in installed.call("explain", "0.1").stdout  # its last deed


def test_the_old_command_does_the_same_and_is_quiet_after(installed: Installed) -> None:
    assert installed.call("--fix", command=reconcile_gpu_state).exit_code == 0
    assert installed.bookings() == [HERE]
    assert installed.call("--fix", "--quiet", command=reconcile_gpu_state).output == ""


def test_tab_offers_no_word_that_a_shell_would_act_on(installed: Installed) -> None:
    state_file = installed.root / "lib/gpu-state.json"
    state = json.loads(state_file.read_text())
    odd = (
        "x$(id)._.1",
        "x;id",
        "x`id`",
        "x id",
        "x&",
        "x|id",
        "x>f",
        "x'",
        'x"',
        "x*",
        "x\\",
        "-x",
    )
    state["gpus"]["0.1"]["containers"] += odd
    state["gpus"]["0.1"]["users"] |= dict.fromkeys(odd, 1)
    state_file.write_text(json.dumps(state))
    for name in odd:
        (installed.root / f"lib/metadata/{name}.json").write_text("{}")
    config = installed.root / "ds01d.toml"
    context = click.Context(
        ds01ctl, obj=Invocation(environment=host_environment(), config_file=config)
    )
    parameter = click.Argument(["name"])
    assert completion.names(context, parameter, "") == [GONE, HERE]
    assert completion.users(context, parameter, "") == ["alice", "bob"]
    script = """
    interpreter=$1 file=$2
    ds01-allocator() { "$interpreter" -m ds01d.cli.allocator.main --config "$file" "$@"; }
    . share/completions/ds01-allocator
    COMP_WORDS=(ds01-allocator release '') COMP_CWORD=2
    _ds01_allocator; printf '%s\\n' "${COMPREPLY[@]}"
    """
    offered = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert offered.split("\n") == [GONE, HERE, ""]


def test_a_history_that_cannot_be_read_is_not_empty(installed: Installed) -> None:
    result = installed.call("history")
    assert "lies in a directory that does not exist" in result.stderr
    assert result.exit_code == 1
    told = json.loads(installed.call("explain", HERE, "--json").stdout)
    assert "the history cannot be read" in told["history"]["unknown"]
    (installed.root / "own").mkdir()
    assert installed.call("history").stdout == "no changes\n"
    (installed.root / "own/history.jsonl").symlink_to("/dev/null")
    assert "symbolic link" in installed.call("history").stderr


def test_a_terminal_tells_what_is_waited_for(installed: Installed) -> None:
    words = ["ds01d.cli.ctl.main", "--config", str(installed.root / "ds01d.toml")]
    code, drawn = on_a_terminal([*words, "reconcile", "--wait"])
    assert code == 0
    assert "waiting until" in drawn
    assert "(Ctrl-C ends it): 1" in drawn
    assert installed.bookings() == [HERE]


def test_ctrl_c_ends_it(installed: Installed) -> None:
    file = installed.root / "ds01d.toml"
    file.write_text(file.read_text().replace("50ms", "1h"))
    words = ["ds01d.cli.ctl.main", "--config", str(file), "reconcile", "--wait", "--timeout", "2h"]
    code, drawn = on_a_terminal(words, ctrl_c_at="waiting until")
    assert code == 130
    assert "Traceback" not in drawn


def test_rotated_history_is_read_too(installed: Installed) -> None:
    installed.call("reconcile", "--wait")
    own = installed.root / "own"
    (own / "history.jsonl").rename(own / "history.jsonl.1")
    assert json.loads(installed.call("history", "--json").stdout)["entries"]


def test_a_freeze_outlives_the_command(installed: Installed) -> None:
    assert installed.call("freeze", "--for", "1h").exit_code == 0
    result = installed.call("reconcile", "--wait")
    assert result.exit_code == 2
    assert "frozen by" in result.stdout
    assert GONE in installed.bookings()
    assert "frozen: everything" in installed.call("status").stdout
    assert installed.call("thaw").exit_code == 0
    assert installed.call("reconcile", "--wait").exit_code == 0


def test_without_docker_nothing_is_decided(installed: Installed) -> None:
    installed.engine.stop()
    assert installed.call("plan").exit_code == 1
    assert installed.call("reconcile", "--wait").exit_code == 1
    assert installed.call("doctor").exit_code == 1
    assert installed.bookings() == [HERE, GONE]


def test_whoever_holds_the_lock_of_the_passes_is_named(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "PASS_LOCK_TIMEOUT_S", 0.05)
    installed.call("freeze", HERE)
    with (installed.root / "own/lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (["reconcile"], ["freeze"], ["thaw", HERE]):
            result = installed.call(*words)
            assert result.exit_code == 1
            assert "was not free within 0.05 s: held by pid" in result.stderr
        assert installed.call("plan").exit_code == 2  # it needs no lock
