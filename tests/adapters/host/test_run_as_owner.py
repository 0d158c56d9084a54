"""Root acting as the owner of a folder: with that user's rights, and no others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import output

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become others")

CAP_SYS_PTRACE = 1 << 19
PROGRAM = """
import json, os, sys
from pathlib import Path
from ds01d.adapters.host.run_as_owner import act_as_owner
from ds01d.cli.base.caller import caller_name
os.environ.pop("SUDO_USER", None)
act_as_owner(Path(sys.argv[1]))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
try:
    os.setuid(0)
    back = True
except OSError:
    back = False
print(json.dumps({
    "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(),
    "effective": int(status["CapEff"], 16), "permitted": int(status["CapPrm"], 16),
    "shadow": os.access("/etc/shadow", os.R_OK), "caller": caller_name(), "back": back,
}))
"""


def as_owner_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output(PROGRAM, folder))
    return found


def test_root_becomes_the_owner_for_good_and_keeps_only_what_shows_processes(
    tmp_path: Path,
) -> None:
    os.chown(tmp_path, 65534, 65534)
    found = as_owner_of(tmp_path)
    assert found["uids"] == [65534] * 3
    assert found["gids"] == [65534] * 3
    assert found["groups"] == [65534]
    assert found["effective"] & ~CAP_SYS_PTRACE == 0
    assert found["permitted"] & ~CAP_SYS_PTRACE == 0
    assert not found["shadow"]
    assert not found["back"]
    assert found["caller"] == "root", "who called stands in the history all the same"


def test_where_root_owns_it_or_nobody_does_root_stays_root(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert as_owner_of(folder)["uids"] == [0, 0, 0]


def test_a_link_makes_root_nobody_else(tmp_path: Path) -> None:
    """Whoever can exchange the folder could choose whom root becomes."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    (shared / "link").symlink_to(tmp_path / "theirs")
    assert as_owner_of(shared / "link")["uids"] == [0, 0, 0]


WORKSHOP = """
import os, sys
from pathlib import Path
from ds01d import bootstrap
from ds01d.config import Config, DaemonConfig
config = Config(daemon=DaemonConfig(state_dir=Path(sys.argv[1])))
with bootstrap.open_container_services(config):
    print(os.geteuid(), end=" ")
bootstrap.act_as_service(config)
print(os.geteuid())
"""


def test_the_container_commands_stay_roots_to_try_the_rights_of_a_user(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    assert output(WORKSHOP, tmp_path).split() == ["0", "65534"]
