"""Docker engines of several generations, to test against each: docker.io of three Debian releases.

| Debian | docker.io | API | containerd | |
|---|---|---|---|---|
| bookworm | 20.10.24 | 1.41 | 1.6 | no CDI, no containerd image store |
| trixie | 26.1.5 | 1.45 | 1.7 | both, if switched on |
| forky | 28.5.2 | 1.51 | 2.1 | CDI is on |

The host's own is used where it is the one that is wanted. Of the others nothing is installed:
docker.io and containerd are unpacked side by side into a cache, and the host's runc serves them.
apt works in folders of its own, so that the host's package lists stay as they are. What is kept is
used for ever; remove the folder (`python -m simulation.engines` prints it) for a newer one.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from simulation.cache import download_cache, locked

ENGINES: Final = ("bookworm", "trixie", "forky")
"""The releases whose Docker engine tests can be run on, oldest first."""
CONTAINERD: Final = "+containerd"
"""Behind a release: with containerd's image store, as Docker 29 has it where it is new."""
PACKAGES: Final = ("docker.io", "containerd")

_DOWNLOAD_S = 300


class EngineUnavailable(Exception):
    """An engine that cannot be had on this host; says why."""


def host_dockerd() -> Path | None:
    """Return the path of the host's own dockerd."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    found = shutil.which("dockerd", path=path)
    return None if found is None else Path(found)


def find_dockerd(release: str) -> Path:
    """Return the path of the dockerd of a Debian release: the host's own, or one fetched once.

    Raises `EngineUnavailable`.
    """
    if release not in ENGINES:
        raise EngineUnavailable(f"unknown engine {release!r}; known: {', '.join(ENGINES)}")
    own = host_dockerd()
    if own is not None and _host_release() == release:
        return own
    try:
        return _fetched(release)
    except subprocess.CalledProcessError as error:
        words = f"{error.cmd[0]} failed: {error.stderr.strip()[-1000:]}"
        raise EngineUnavailable(f"cannot fetch docker.io of Debian {release}: {words}") from error
    except (OSError, LookupError, subprocess.SubprocessError) as error:
        raise EngineUnavailable(f"cannot fetch docker.io of Debian {release}: {error}") from error


def chosen_dockerd() -> Path:
    """Return the dockerd that `DS01D_ENGINE` names, one of `ENGINES`; by default the host's.

    Raises `EngineUnavailable`.
    """
    if name := os.environ.get("DS01D_ENGINE"):
        return find_dockerd(name.removesuffix(CONTAINERD))
    own = host_dockerd()
    if own is None:
        raise EngineUnavailable("dockerd is not installed")
    return own


def chooses_containerd() -> bool:
    """Return whether `DS01D_ENGINE` wants containerd's image store."""
    return os.environ.get("DS01D_ENGINE", "").endswith(CONTAINERD)


@cache
def chosen_version() -> tuple[int, int]:
    """Return the version of the chosen dockerd: (28, 5). Raises `EngineUnavailable`."""
    told = describe_dockerd(chosen_dockerd())
    found = re.search(r"version (\d+)\.(\d+)", told)
    if found is None:
        raise EngineUnavailable(f"dockerd has an unknown version: {told}")
    return int(found.group(1)), int(found.group(2))


def describe_dockerd(dockerd: Path) -> str:
    """Return what a dockerd calls itself, with its version."""
    return _run([str(dockerd), "--version"]).strip()


def _host_release() -> str:
    release = platform.freedesktop_os_release()
    return release.get("VERSION_CODENAME", "") if release.get("ID") == "debian" else ""


def _fetched(release: str) -> Path:
    folder = download_cache("engines") / release
    folder.mkdir(exist_ok=True)
    dockerd = folder / "root" / "usr" / "sbin" / "dockerd"
    with locked(folder):
        if not dockerd.exists():
            with tempfile.TemporaryDirectory(dir=folder) as work:
                unpacked = Path(work) / "root"
                for package in _download(release, Path(work)):
                    _run(["dpkg", "-x", str(package), str(unpacked)])
                unpacked.rename(folder / "root")
    describe_dockerd(dockerd)  # it has to run here
    return dockerd


def _download(release: str, work: Path) -> list[Path]:
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
    _run([*apt, "update"])
    _run([*apt, "download", *PACKAGES], cwd=work)
    return sorted(work.glob("*.deb"))


def _mirror() -> str:
    """Return the address from which this host gets Debian itself."""
    codename = _host_release()
    if not codename:
        raise LookupError("this host is not Debian: apt knows no mirror that has the package")
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
        command,
        cwd=cwd,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=_DOWNLOAD_S,
    )
    return done.stdout


def main() -> int:
    """Fetch the engines that are named, or all, and print each with its path."""
    for release in sys.argv[1:] or ENGINES:
        try:
            dockerd = find_dockerd(release.removesuffix(CONTAINERD))
        except EngineUnavailable as error:
            sys.stderr.write(f"{error}\n")
            return 1
        sys.stdout.write(f"{release}: {describe_dockerd(dockerd)} ({dockerd})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
