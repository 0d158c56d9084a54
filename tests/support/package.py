"""The Debian package of this tree, built once for each state of the sources, and an older one.

The older one is the same with a lower version: another unit file and another configuration file, as
a package of the time before would have them.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simulation.cache import cache, locked
from tests.support.daemon import ROOT

OLDER: Final = "0.0.9"
_BUILD: Final = ("tools/package.sh",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """The package, and the one before it."""

    new: Path
    old: Path


def packages() -> Packages:
    """Build what is not built yet."""
    folder = cache("package") / _fingerprint()
    with locked(cache("package")):
        if not folder.exists():
            for before in cache("package").iterdir():
                if before.is_dir():
                    shutil.rmtree(before)
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                made = Path(work) / "made"
                subprocess.run((*_BUILD, str(made)), cwd=ROOT, check=True, timeout=300)
                make_older(next(made.glob("*.deb")), made / "older.deb")
                made.rename(folder)
    return Packages(new=next(folder.glob("ds01d_*.deb")), old=folder / "older.deb")


def _fingerprint() -> str:
    """Of all that the package is made from: every file that git does not ignore."""
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256()
    for name in sorted(filter(None, names.split("\0"))):
        path = ROOT / name
        if not name.startswith("tests/") and path.is_file():
            digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def make_older(package: Path, older: Path) -> None:
    """Make of a package the same with a lower version, another unit and other settings."""
    with tempfile.TemporaryDirectory(dir=package.parent) as work:
        tree = Path(work) / "tree"
        subprocess.run(("dpkg-deb", "-R", package, tree), check=True)
        control = tree / "DEBIAN" / "control"
        lines = control.read_text().splitlines(keepends=True)
        control.write_text(
            "".join(f"Version: {OLDER}\n" if x.startswith("Version:") else x for x in lines)
        )
        for name in ("usr/share/ds01d/ds01d.toml", "usr/lib/systemd/system/ds01d.service"):
            path = tree / name
            path.write_text(f"# As {OLDER} had it.\n{path.read_text()}")
        module = next(tree.glob("usr/lib/ds01d/venv/lib/python3*/site-packages/ds01d"))
        (module / "__init__.py").write_text(f'__version__ = "{OLDER}"\n')
        for compiled in module.glob("__pycache__/__init__.*"):
            compiled.unlink()
        command = ("dpkg-deb", "-Zzstd", "--root-owner-group", "-b", tree, older)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
