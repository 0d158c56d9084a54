"""Whether a container can open device nodes, tried in its cgroup by a process of our own; as root.

The process joins the container's device cgroup and nothing else of it (no namespace, no memory
limit of a new process), asks access(2), and ends. The kernel checks a device cgroup there as in
open(2), and the driver is not called: a GPU that sleeps goes on sleeping.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from ds01d.model.primitives import ContainerId, Source, Unknown

_TIMEOUT_S: Final = 10.0
# As small as can be: for as long as it runs, it counts as one of the container's processes.
_PROGRAM: Final = """
import json, os, sys
def usable(): return [os.access(node, os.R_OK | os.W_OK) for node in sys.argv[2:]]
outside = usable()
with open(sys.argv[1], "w") as procs: procs.write("0")
print(json.dumps([outside, usable()]))
"""


def find_denied_nodes(
    container: ContainerId,
    pid: int,
    nodes: Sequence[str],
    *,
    proc: Path = Path("/proc"),
    cgroups: Path = Path("/sys/fs/cgroup"),
) -> Collection[str] | Unknown:
    """Those of `nodes` that the cgroup of a container's process denies.

    The process must not be paused, or ours would be, too.
    """
    try:
        # Not as text, which takes CR for an end of a line, too.
        text = (proc / str(pid) / "cgroup").read_bytes().decode()
        folder = _find_folder(container, text, cgroups)
        outside, inside = _try_access(folder, nodes)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Unknown(source=Source.DOCKER, reason=str(error))
    # A node that nobody can open here shows nothing of the cgroup.
    missing = [node for node, usable in zip(nodes, outside, strict=True) if not usable]
    if missing:
        return Unknown(source=Source.NVML, reason=f"{', '.join(missing)} cannot be opened here")
    return [node for node, usable in zip(nodes, inside, strict=True) if not usable]


def _try_access(folder: Path, nodes: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Whether each node can be opened by us, and in the cgroup. Raises OSError, ValueError."""
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(folder / "cgroup.procs"), *nodes]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise OSError(f"its cgroup cannot be joined: {last}")
    outside, inside = json.loads(done.stdout)
    return outside, inside


def _find_folder(container: ContainerId, text: str, cgroups: Path) -> Path:
    """The cgroup that decides about devices: of the controller of v1 where there is one, else v2.

    Raises OSError where the process is not of that container (any more).
    """
    paths: dict[str, str] = {}
    # By LF alone: what may write to its cgroup names one below it, in which all else may be.
    for line in text.split("\n"):
        if not line:
            continue
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path.lstrip("/")
    is_v1 = "devices" in paths and (cgroups / "devices" / "devices.list").exists()
    name = "devices" if is_v1 else ""
    if container not in paths.get(name, ""):
        raise OSError("its process has ended, or is in a cgroup that does not name it")
    return cgroups / name / paths[name]
