"""The story of the demonstration of several hosts: steps, each of them checked.

Every command that is shown is run where the prompt says, and what stands below it is what it
printed. A claim that does not hold raises `Failed`.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from demo.fleet_stage import BRIDGE, QUOTA, FleetStage, GpuHost, await_store
from demo.terminal import DEADLINE_S, Ended, Failed, Terminal
from simulation.machine import Machine

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STEPS: Final = 9
FOLD: Final = "fold -sw 94"
NO_COLOUR: Final = ("NO_COLOR", "TERM", "COLUMNS", "LINES")


class FleetStory:
    """The steps, and what they share: the lab and the terminal."""

    def __init__(self, stage: FleetStage, terminal: Terminal) -> None:
        self.stage, self.terminal = stage, terminal
        self._step = 0

    def tell(self) -> None:
        """Everything, from the first look to the last."""
        self.three_hosts()
        self.one_anywhere()
        self.one_quota_over_all()
        self.no_name_twice()
        self.a_host_is_cut_off()
        self.the_cable_is_back()
        self.a_host_dies()
        self.a_host_comes_back_from_an_image()
        self.it_takes_part_again()

    # ---- the steps

    def three_hosts(self) -> None:
        self._title("Three hosts, a login server, and an etcd")
        self.terminal.say(
            "Four machines with systemd on one network. Three of them have Docker, a simulated"
            " driver with four A100, sshd, ds01d, and a member of etcd; on the fourth amy and ben"
            f" log in. They are in no group, have an ordinary key for ssh, and may have {QUOTA}"
            " slots each, over all hosts."
        )
        await_store(self.stage)
        self.gpu03.start_ds01d()
        self._await_reported(self.gpu03)
        self.gpu03.image_disk()
        self.gpu03.service.systemctl("restart")
        for host in self.stage.hosts.values():
            host.start_ds01d()
            self._await_reported(host)
        self._await_view("all hosts are known", lambda view: set(states(view)) == {"ok"})
        self._run("root", "tail -n 3 /etc/ds01/ds01d.toml", on=self.gpu01)
        self._run("root", "etcdctl member list | cut -d, -f2-4", on=self.gpu01)
        self._run("amy", "ds01ctl fleet status")
        self._check(self._count_free() == 36, "36 slots, all of them free")

    def one_anywhere(self) -> None:
        self._title("One GPU, on whichever host")
        self._run("amy", "container-create train pytorch --any-host")
        self._run("ben", "container-create eval pytorch --host gpu02")
        # By a whole look of each ds01d: what Docker has, and the books.
        self._await_view(
            "gpu01 and gpu02 have one container each",
            lambda view: [count_held(view[name]) for name in self.stage.hosts] == [1, 1, 0],
        )
        self._run("amy", "ds01ctl fleet where amy")
        self._run("amy", "ds01ctl fleet free --profile 1g.10gb | head -n 4")

    def one_quota_over_all(self) -> None:
        self._title("One quota over all hosts")
        self._run("amy", "container-create second pytorch --host gpu02")
        refused = self._run("amy", f"container-create third pytorch --host gpu03 2>&1 | {FOLD}")
        self._check(
            "USER_AT_LIMIT" in refused.output and not self.gpu03.list_held(),
            "gpu03 is empty, and refuses: amy has her two slots elsewhere",
        )
        self._run("root", "etcdctl get --prefix --keys-only /ds01/v1/users/amy/held", on=self.gpu03)
        self._run("amy", "ssh gpu02 container-remove second --force")
        self._await("its entry is withdrawn", lambda: len(self._list_entries("amy")) == 1)
        self._run("amy", "container-create third pytorch --host gpu03")
        self._check(len(self._list_entries("amy")) == QUOTA, "now there is room for it")

    def no_name_twice(self) -> None:
        self._title("No name twice")
        refused = self._run("ben", f"ssh gpu03 container-create eval pytorch 2>&1 | {FOLD}")
        self._check(
            "gpu02" in refused.output and len(self._list_entries("ben")) == 1,
            "gpu03 has no such container, and refuses: gpu02 has one",
        )

    def a_host_is_cut_off(self) -> None:
        self._title("A host is cut off, and nothing is released")
        books = self.gpu02.list_held()
        self._run("root", f"ip link set gpu02 down     # its cable, at {BRIDGE}")
        ended = self._run("amy", "ds01ctl fleet status", status=1)
        self._check(
            "1 host unknown" in ended.output,
            "gpu02 is unknown, neither free nor empty, with its last known status: exit status 1",
        )
        self._run("ben", "container-create next pytorch --host gpu03")
        refused = self._run("ben", f"container-create more pytorch --host gpu01 2>&1 | {FOLD}")
        self._check(
            "USER_AT_LIMIT" in refused.output, "what ben has on gpu02 counts, silent as it is"
        )
        self._run("root", "docker ps --format 'table {{.Names}}\\t{{.Status}}'", on=self.gpu02)
        self._check(
            self.gpu02.list_held() == books and bool(books),
            "on gpu02 the container runs on, and its booking is what it was",
        )
        self._run("ben", "container-create alone pytorch", on=self.gpu02)
        self._check(
            len(self.gpu02.list_held()) == len(books) + 1,
            "without etcd gpu02 goes by its own limits: ben has one slot there, so he gets another",
        )

    def the_cable_is_back(self) -> None:
        self._title("The cable is back, and what happened is reported")
        self._run("root", "ip link set gpu02 up")
        self._await_view(
            "gpu02 is known again, with what it had all the time",
            lambda view: states(view) == ["ok"] * 3 and count_held(view["gpu02"]) == QUOTA,
        )
        self._await("and etcd has it", lambda: len(self._list_entries("ben")) == QUOTA + 1)
        self._await("ben has more than he may: that is said, and nothing is undone", self._is_over)
        self._run("root", f"journalctl -u ds01d -o cat | grep over-quota | {FOLD}", on=self.gpu02)

    def a_host_dies(self) -> None:
        self._title("A host loses its power")
        self.terminal.command("the power of gpu03 is taken away", "#")
        self.gpu03.machine.power_off()
        self._run("amy", "ds01ctl fleet status", status=1)
        ended = self._run("amy", "ds01ctl fleet where amy", status=1)
        self._check("gpu03" in ended.output, "what it had is shown as its last known status")
        refused = self._run("amy", f"container-create fourth pytorch --host gpu01 2>&1 | {FOLD}")
        self._check(
            "USER_AT_LIMIT" in refused.output,
            "and goes on counting: nobody knows whether it is gone for good",
        )

    def a_host_comes_back_from_an_image(self) -> None:
        self._title("The same host comes back, from an image of its disk")
        self.terminal.say(
            "The image is older than its containers: its books know nothing of them. Docker's disk"
            " is another one, and has them, stopped."
        )
        self.gpu03.restore_disk()
        self.stage.power_on(self.gpu03)
        self._await_view("gpu03 is known again", lambda view: states(view) == ["ok"] * 3)
        self._await(
            "it sees that it took part since, and changes nothing in etcd",
            lambda: self.gpu03.read_membership().get("state") == "fenced",
        )
        self._run("root", f"journalctl -u ds01d -o cat | grep cloned-node | {FOLD}", on=self.gpu03)
        self._check(
            len(self._list_entries("amy")) == QUOTA and not self.gpu03.list_held(),
            "its entries go on counting, though its books have none of them",
        )

    def it_takes_part_again(self) -> None:
        self._title("It takes part again, on the word of an administrator")
        self._run("root", "ds01ctl fleet rejoin", on=self.gpu03)
        self._await(
            "what its books do not have is withdrawn, and no earlier",
            lambda: len(self._list_entries("amy")) == 1,
        )
        self._run("amy", "ssh gpu03 container-start third")
        self._await(
            "what runs there again is in etcd", lambda: len(self._list_entries("amy")) == QUOTA
        )
        self._await_view("all hosts are known", lambda view: states(view) == ["ok"] * 3)
        self._run("amy", "ds01ctl fleet status")

    # ---- what the steps are made of

    @property
    def gpu01(self) -> GpuHost:
        return self.stage.hosts["gpu01"]

    @property
    def gpu02(self) -> GpuHost:
        return self.stage.hosts["gpu02"]

    @property
    def gpu03(self) -> GpuHost:
        return self.stage.hosts["gpu03"]

    def _title(self, text: str) -> None:
        self._step += 1
        self.terminal.title(f"{self._step}/{STEPS} {text}")

    def _run(
        self,
        user: str,
        command: str,
        *,
        on: GpuHost | None = None,
        status: int | None = 0,
    ) -> Ended:
        """Run a command that has to end with `status` (None: with any)."""
        machine = self.stage.login if on is None else on.machine
        name = "login" if on is None else on.name
        prompt = f"{user}@{name}{'#' if user == 'root' else '$'}"
        ended = self.terminal.run(
            command,
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd=Path("/"),
            prompt=prompt,
            inside=lambda env: list_prefix(machine, user, env),
        )
        if command.startswith("ds01ctl fleet") and "|" not in command:
            self.terminal.line(f"  (exit status {ended.status})")
        if status is not None and ended.status != status:
            raise Failed(f"`{command}` ended with {ended.status} in place of {status}")
        return ended

    def _check(self, holds: bool, claim: str) -> None:  # noqa: FBT001 - reads well at the call
        if not holds:
            raise Failed(f"it is not so: {claim}\n    {json.dumps(self._describe())}")
        self.terminal.ok(claim)

    def _await(self, claim: str, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            if time.monotonic() > deadline:
                raise Failed(
                    f"not within {DEADLINE_S} s: {claim}\n    {json.dumps(self._describe())}"
                )
            time.sleep(0.2)
        self.terminal.ok(claim)

    def _await_view(self, claim: str, holds: Callable[[Mapping[str, Any]], object]) -> None:
        self._await(claim, lambda: holds(self.stage.view()))

    def _await_reported(self, host: GpuHost) -> None:
        """Until a host has taken its place in the store."""
        deadline = time.monotonic() + DEADLINE_S
        while not self._has_identity(host.name):
            if time.monotonic() > deadline:
                raise Failed(f"{host.name} does not reach etcd: {host.service.tail()}")
            time.sleep(0.2)

    def _has_identity(self, name: str) -> bool:
        nodes = self.stage.read_store("/ds01/v1/nodes/")
        return any(
            key.endswith("/identity") and value["host"] == name for key, value in nodes.items()
        )

    def _list_entries(self, user: str) -> dict[str, Any]:
        """What a user has on all hosts, by the store."""
        return self.stage.read_store(f"/ds01/v1/users/{user}/held/")

    def _is_over(self) -> bool:
        """Whether the finding is there."""
        findings = self.gpu02.read_membership().get("findings", ())
        return any(finding["kind"] == "over-quota" for finding in findings)

    def _count_free(self) -> int:
        slots = [slot for host in self.stage.view().values() for slot in host["slots"] or ()]
        return sum(slot["free"] for slot in slots)

    def _describe(self) -> dict[str, Any]:
        """For a failure: what is known everywhere."""
        return {
            name: {key: host[key] for key in ("state", "reason")} | {"held": count_held(host)}
            for name, host in self.stage.view().items()
        }


def states(view: Mapping[str, Any]) -> list[str]:
    """The state of each host."""
    return [host["state"] for host in view.values()]


def count_held(host: Mapping[str, Any]) -> int:
    """How many slots of a known host are booked."""
    return sum(bool(slot["holders"]) for slot in host["slots"] or ())


def list_prefix(machine: Machine, user: str, env: Mapping[str, str]) -> Sequence[str]:
    """What runs a command on a machine as a user, in their home, with nothing of this host's."""
    home = "/root" if user == "root" else f"/home/{user}"
    shown = [f"{key}={env[key]}" for key in NO_COLOUR if key in env]
    variables = (f"PATH={PATH}", f"HOME={home}", f"USER={user}", "LANG=C.UTF-8", *shown)
    login = () if user == "root" else ("runuser", "-u", user, "--")
    return [*machine.inside(("env", "-i", "-C", home, *variables)), *login]
