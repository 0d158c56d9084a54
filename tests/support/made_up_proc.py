"""A made-up /proc."""

from __future__ import annotations

from pathlib import Path

from ds01d.adapters.host.processes import Process, Processes
from ds01d.model.primitives import ContainerId

OUTER = ContainerId("a" * 64)
INNER = ContainerId("b" * 64)


class Proc:
    """A made-up /proc."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.add(1, "0::/init.scope", parent=0, started=1, command="systemd")

    def add(
        self,
        pid: int,
        cgroup: str,
        *,
        parent: int = 1,
        started: int = 1000,
        uid: int = 1001,
        command: str = "python",
        state: str = "S",
        threads: int = 1,
        flags: int = 0,
    ) -> None:
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        rest = " ".join(
            [
                state,
                str(parent),
                *["0"] * 4,
                str(flags),
                *["0"] * 10,
                str(threads),
                "0",
                str(started),
                *["0"] * 30,
            ]
        )
        (folder / "stat").write_text(f"{pid} ({command}) {rest}\n")
        status = f"Name:\t{command}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
        (folder / "status").write_bytes(status.encode())
        (folder / "cgroup").write_text(f"{cgroup}\n")

    def look_up(self, pid: int, *known: ContainerId) -> Process | None:
        return Processes(proc=self.root, is_known=known.__contains__).look_up([pid]).get(pid)
