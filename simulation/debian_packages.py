"""Packages of other Debian releases, unpacked side by side into a cache; nothing is installed.

apt works in folders of its own, so that the host's package lists stay as they are. What is kept is
used for ever; remove the folder for a newer one.
"""

import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from simulation.cache import download_cache, locked

_DOWNLOAD_S: Final = 300


class PackagesUnavailable(Exception):
    """Packages that cannot be had on this host; says why."""


def unpack_packages(name: str, release: str, packages: Sequence[str]) -> Path:
    """Return a root with the packages of a Debian release in it, fetched once under `name`.

    Raises `PackagesUnavailable`.
    """
    folder = download_cache(name) / release
    folder.mkdir(exist_ok=True)
    root = folder / "root"
    try:
        with locked(folder):
            if not root.exists():
                with tempfile.TemporaryDirectory(dir=folder) as work:
                    unpacked = Path(work) / "root"
                    for package in _download(release, packages, Path(work)):
                        run_quietly(["dpkg", "-x", str(package), str(unpacked)])
                    unpacked.rename(root)
    except subprocess.CalledProcessError as error:
        words = f"{error.cmd[0]} failed: {error.stderr.strip()[-1000:]}"
        raise PackagesUnavailable(f"cannot fetch {name} of Debian {release}: {words}") from error
    except (OSError, LookupError, subprocess.SubprocessError) as error:
        raise PackagesUnavailable(f"cannot fetch {name} of Debian {release}: {error}") from error
    return root


def host_release() -> str:
    release = platform.freedesktop_os_release()
    return release.get("VERSION_CODENAME", "") if release.get("ID") == "debian" else ""


def _download(release: str, packages: Sequence[str], work: Path) -> list[Path]:
    """Download the packages from the mirror that this host uses."""
    for path in ("lists/partial", "cache/archives/partial", "etc/sources.list.d"):
        (work / path).mkdir(parents=True)
    (work / "status").touch()
    source = work / "etc" / "sources.list"
    source.write_text(f"deb {_mirror()} {release} main\n", encoding="utf-8")
    apt = [
        "apt-get",
        *("-q", "-o", f"Dir::Etc::SourceList={source}"),
        *("-o", f"Dir::Etc::SourceParts={work / 'etc' / 'sources.list.d'}"),
        *("-o", f"Dir::State::Lists={work / 'lists'}"),
        *("-o", f"Dir::State::Status={work / 'status'}"),
        *("-o", f"Dir::Cache={work / 'cache'}"),
        *("-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"),
        # Without the second, an update that could not fetch a list would pass as a success.
        *("-o", "Acquire::Retries=3", "-o", "APT::Update::Error-Mode=any"),
    ]
    run_quietly([*apt, "update"])
    run_quietly([*apt, "download", *packages], cwd=work)
    return sorted(work.glob("*.deb"))


def _mirror() -> str:
    """Return the address from which this host gets Debian itself."""
    codename = host_release()
    if not codename:
        raise LookupError("this host is not Debian: apt knows no mirror that has the package")
    shape = "$(RELEASE) $(REPO_URI)"
    rows = run_quietly(["apt-get", "indextargets", "--format", shape, "Created-By: Packages"])
    for row in rows.splitlines():
        suite, _, address = row.partition(" ")
        if suite == codename:
            return address
    raise LookupError(f"apt knows no mirror for {codename}")


def run_quietly(command: list[str], cwd: Path | None = None) -> str:
    """Run a command to its end; gives its output. Raises `CalledProcessError`."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=_DOWNLOAD_S,
    )
    return done.stdout
