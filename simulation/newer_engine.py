"""Fetches the Docker engine of the next Debian, to test against two generations of its API.

Nothing is installed: the package is unpacked into a cache, and the host's own containerd and runc
serve it. apt works in folders of its own, so that the host's package lists stay as they are.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from simulation.cache import cache, locked

SUITE: Final = "trixie"
PACKAGE: Final = "docker.io"


def _say(reason: str) -> None:
    sys.stderr.write(f"no newer Docker engine: {reason}\n")


def newer_engine(why: Callable[[str], object] = _say) -> Path | None:
    """Return the path of a newer dockerd, fetched once; or None, after telling `why`."""
    folder = cache("newer-engine")
    dockerd = folder / "root" / "usr" / "sbin" / "dockerd"
    try:
        with locked(folder):
            if not dockerd.exists():
                _fetch(folder)
        _run([str(dockerd), "--version"])
    except (OSError, LookupError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None)
        why(f"{error}{f': {output.strip()}' if output else ''}")
        return None
    return dockerd


def _fetch(folder: Path) -> None:
    """Download the package from the mirror that this host uses, and unpack it."""
    mirror = _mirror()
    with tempfile.TemporaryDirectory(dir=folder) as work:
        unpacked = Path(work) / "root"
        _run(["dpkg", "-x", str(_download(mirror, Path(work))), str(unpacked)])
        unpacked.rename(folder / "root")


def _download(mirror: str, lists: Path) -> Path:
    for path in ("lists/partial", "cache/archives/partial", "etc/sources.list.d"):
        (lists / path).mkdir(parents=True)
    (lists / "status").touch()
    source = lists / "etc" / "sources.list"
    source.write_text(f"deb {mirror} {SUITE} main\n", encoding="utf-8")
    apt = [
        "apt-get",
        *("-q", "-o", f"Dir::Etc::SourceList={source}"),
        *("-o", f"Dir::Etc::SourceParts={lists / 'etc' / 'sources.list.d'}"),
        *("-o", f"Dir::State::Lists={lists / 'lists'}"),
        *("-o", f"Dir::State::Status={lists / 'status'}"),
        *("-o", f"Dir::Cache={lists / 'cache'}"),
        *("-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"),
    ]
    _run([*apt, "update"])
    _run([*apt, "download", PACKAGE], cwd=lists)
    (package,) = lists.glob(f"{PACKAGE}_*.deb")
    return package


def _mirror() -> str:
    """Return the address from which this host gets Debian itself."""
    release = platform.freedesktop_os_release()
    codename = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian":
        raise LookupError("this is no Debian, whose mirror would have the package")
    shape = "$(RELEASE) $(REPO_URI)"
    rows = _run(["apt-get", "indextargets", "--format", shape, "Created-By: Packages"])
    for row in rows.splitlines():
        suite, _, address = row.partition(" ")
        if suite == codename:
            return address
    raise LookupError(f"apt knows no mirror for {codename}")


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, check=True, capture_output=True, text=True, timeout=300
    )
    return done.stdout
