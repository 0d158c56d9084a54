"""Installed packages, as dpkg's database has them: asked through dpkg-query, or from a list.

`dpkg-query --show` with a format is a stable interface; `apt list` warns that it is not.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from ds01d.errors import Malformed
from ds01d.model.cuda import Package

COMMAND = ("dpkg-query", "-W", "-f", "${db:Status-Status}\\t${Package}\\t${Version}\\n")
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPackages:
    """The packages could not be had, and why."""

    reason: str


def list_installed(
    *, command: Sequence[str] = COMMAND, timeout_s: float = _TIMEOUT_S
) -> tuple[Package, ...] | NoPackages:
    """Every package that is installed on this host; not those of which only settings are left."""
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            # Its errors are shown, and have to be readable in any locale.
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        return NoPackages(reason=f"{command[0]} timed out after {timeout_s:g} s")
    except OSError as error:
        return NoPackages(reason=f"{command[0]} cannot be run: {error.strerror}")
    if result.returncode:
        words = result.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        return NoPackages(reason=f"{command[0]} failed ({result.returncode}): {words[-1]}")
    rows = (line.split("\t") for line in result.stdout.decode(errors="replace").splitlines())
    return tuple(
        Package(name=row[1], version=row[2])
        for row in rows
        if len(row) == 3 and row[0] == "installed"
    )


def parse_packages(text: str, *, origin: str) -> tuple[Package, ...]:
    """What `dpkg-query -W` prints: name, tab, version. Raises `Malformed`.

    A name without a version is a package that is known and not installed. Spaces will do for a tab
    where a version follows.
    """
    packages = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if len(fields) == 2 and ("\t" in line or fields[1][0].isdecimal()):
            packages.append(Package(name=fields[0], version=fields[1]))
        elif fields and (len(fields) > 1 or "\t" not in line):
            raise Malformed(
                f"{origin}, line {number}: {line.strip()[:80]!r} is not a package: write name, tab,"
                " version, as dpkg-query -W prints them"
            )
    return tuple(packages)
