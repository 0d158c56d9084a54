"""Commands that root runs for a user (sudo): what that user owns does not say what root does."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import forked
from tests.support.allocator import AllocatorSite

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="acts for another user: needs root"),
    pytest.mark.python_neutral,
]

NOBODY = pwd.getpwnam("nobody")
NAME = f"job._.{NOBODY.pw_uid}"
CREATE = ["ctl.main", "container", "create", "job", "--image", "busybox", "--dry-run"]
COMMANDS = [
    CREATE,
    ["ctl.main", "container", "remove", "job"],
    ["ctl.main", "allocate", "alice", NAME],
    ["ctl.main", "plan"],
    ["allocator.main", "allocate", "alice", NAME, "9", "10"],
    ["allocator.main", "release", NAME],
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place of root's that a user can reach."""
    root = Path(tempfile.mkdtemp(prefix="ds01-sudo-"))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def site(folder: Path) -> AllocatorSite:
    catalogue = folder / "frameworks.toml"
    catalogue.write_text(f'[container]\nmounts = ["{folder}/{{user}}/workspace:/workspace"]\n')
    home = folder / "nobody"
    home.mkdir()
    os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
    containers = {"frameworks": str(catalogue)}
    return AllocatorSite(folder, "v3-dcce6c2-prod4", containers=containers)


def sudo(site: AllocatorSite, words: list[str], **env: str) -> tuple[int, str]:
    """Run a command as `sudo` would: exit code and stderr."""
    module, *rest = words
    known = {key: value for key, value in site.environment().items() if key != "DS01D_CONFIG"}
    environment = {**known, "SUDO_UID": str(NOBODY.pw_uid), **env}
    done = forked.call(f"ds01d.cli.{module}", rest, env=environment)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_configuration_of_the_users_own_is_refused(site: AllocatorSite, words: list[str]) -> None:
    before = site.bytes()
    own = site.folder / "nobody" / "own.toml"
    own.write_bytes(site.config.read_bytes())
    refusals = [
        sudo(site, [words[0], "--config", str(own), *words[1:]]),
        sudo(site, words, DS01D_CONFIG=str(own)),
    ]
    for code, stderr in refusals:
        assert code == 1
        assert f"{own}: users other than root can change {site.folder}/nobody" in stderr
        assert len(stderr.splitlines()) == 1
    assert site.bytes() == before


@pytest.mark.parametrize("words", COMMANDS[2:3] + COMMANDS[4:5], ids=" ".join)
def test_one_of_roots_is_taken(site: AllocatorSite, words: list[str]) -> None:
    assert sudo(site, words, DS01D_CONFIG=str(site.config)) == (0, "")
    assert NAME in site.state.read_text(encoding="utf-8")


def test_a_catalogue_of_the_users_own_is_refused(site: AllocatorSite) -> None:
    catalogue = site.folder / "frameworks.toml"
    os.chown(catalogue, NOBODY.pw_uid, NOBODY.pw_gid)
    code, stderr = sudo(site, CREATE, DS01D_CONFIG=str(site.config))
    assert code == 1
    assert f"users other than root can change {catalogue}" in stderr


@pytest.mark.parametrize("target", ["/root", "/etc", "/"])
def test_a_workspace_that_is_a_link_to_what_is_roots_is_refused(
    site: AllocatorSite, target: str
) -> None:
    place = site.folder / "nobody" / "workspace"
    place.symlink_to(target)
    os.lchown(place, NOBODY.pw_uid, NOBODY.pw_gid)
    code, stderr = sudo(site, CREATE, DS01D_CONFIG=str(site.config))
    assert code == 1
    assert f"{place} is not mounted: it leads to '{target}', which nobody may not write" in stderr
