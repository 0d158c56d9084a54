"""What tools/setup.sh asks of an administrator where it may not install packages itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import ROOT

# A host without dockerd, promtool and their units, and a user who is not root on it.
POOR = """
mount -t tmpfs tmpfs /usr/lib/systemd/system
for unit in $UNITS; do echo >"/usr/lib/systemd/system/$unit"; done
mkdir layers
mount -t tmpfs tmpfs layers
for folder in bin sbin; do
    mkdir -p layers/$folder/upper layers/$folder/work
    layers=lowerdir=/usr/$folder,upperdir=layers/$folder/upper,workdir=layers/$folder/work
    mount -t overlay -o "$layers" overlay /usr/$folder
done
rm /usr/sbin/dockerd /usr/bin/promtool
exec unshare --user --map-user=1000 bash tools/setup.sh
"""
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.mark.machine
@pytest.mark.parametrize(
    ("there", "units"),
    [
        ("", "docker.socket docker.service containerd.service prometheus.service"),
        # Somebody has it for Kubernetes: no unit of theirs is masked or disabled.
        ("containerd.service", "docker.socket docker.service prometheus.service"),
    ],
)
def test_an_administrator_is_asked_for_what_root_would_do(
    tmp_path: Path, machine_host: None, there: str, units: str
) -> None:
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "setup.sh", tmp_path / "tools")
    done = subprocess.run(
        ("unshare", "--mount", "--propagation", "private", "sh", "-euc", POOR),
        cwd=tmp_path,
        env={"PATH": PATH, "UNITS": there},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    commands = [line.strip() for line in done.stderr.splitlines() if line.startswith("  ")]
    install = commands.pop(1)
    assert install.startswith("apt-get update && apt-get install -y --no-install-recommends ")
    assert {"docker.io", "prometheus"} < set(install.split())
    assert commands == [f"systemctl {verb} {units}" for verb in ("mask", "unmask", "disable")]


def test_a_package_has_the_version_of_its_tag(tmp_path: Path) -> None:
    for path in ("tools/package.sh", "ds01d/__init__.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@localhost")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "a"), ("tag", "v9.9.9")):
        subprocess.run((*git, *command), cwd=tmp_path, check=True)
    done = subprocess.run(
        ("bash", "tools/package.sh", "out"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "tagged v9.9.9, but ds01d/__init__.py has version" in done.stderr
