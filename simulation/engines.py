"""Docker engines of several generations, to test against each: docker.io of three Debian releases.

| Debian | docker.io | API | containerd | |
|---|---|---|---|---|
| bookworm | 20.10.24 | 1.41 | 1.6 | no CDI, no containerd image store |
| trixie | 26.1.5 | 1.45 | 1.7 | both, if switched on |
| forky | 28.5.2 | 1.51 | 2.1 | CDI is on |

The host's own is used where it is the one that is wanted. The others are unpacked into a cache
(`simulation.debian_packages`), and the host's runc serves them; `python -m simulation.engines`
prints where they are.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

from simulation.debian_packages import (
    PackagesUnavailable,
    host_release,
    run_quietly,
    unpack_packages,
)

ENGINES: Final = ("bookworm", "trixie", "forky")
"""The releases whose Docker engine tests can be run on, oldest first."""
CONTAINERD: Final = "+containerd"
"""Behind a release: with containerd's image store, as Docker 29 has it where it is new."""
PACKAGES: Final = ("docker.io", "containerd")


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
    if own is not None and host_release() == release:
        return own
    try:
        return _fetched(release)
    except (PackagesUnavailable, OSError, subprocess.SubprocessError) as error:
        raise EngineUnavailable(f"no dockerd of Debian {release}: {error}") from error


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
    return run_quietly([str(dockerd), "--version"]).strip()


def _fetched(release: str) -> Path:
    root = unpack_packages("engines", release, PACKAGES)
    dockerd = root / "usr" / "sbin" / "dockerd"
    describe_dockerd(dockerd)  # it has to run here
    return dockerd


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
