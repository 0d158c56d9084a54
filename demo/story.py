"""The story of the demonstration: ten steps, each of them checked.

Every command that is shown is run, and what stands below it is what it printed. A claim that does
not hold raises `Failed`.
"""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import Final

from demo.stage import USERS, Entry, Stage
from demo.terminal import DEADLINE_S, Ended, Failed, Terminal
from simulation.engine import IMAGE

ALIVE: Final = "test-final._.1001"
SLOT: Final = "1.2"
STALE: Final = {"1.0": "test-validation._.1001", "1.1": "test-debug2._.1001"}
RECORD: Final = f"lib/container-metadata/{ALIVE}.json"
GRACE_S: Final = 3
OUTAGE_S: Final = 2 * GRACE_S
STEPS: Final = 10
WORKFLOW: Final = "test-workflow"


class Story:
    """The steps, and what they share: the stage, the terminal, ds01d's log so far."""

    def __init__(self, stage: Stage, terminal: Terminal) -> None:
        self.stage, self.terminal = stage, terminal
        self.log: list[Entry] = []
        self._step = 0

    def tell(self) -> None:
        """Everything, from the first look to the last."""
        self.books_and_reality()
        self.found_and_explained()
        self.released_after_its_grace()
        self.docker_is_killed()
        self.docker_comes_back()
        self.a_sweep_on_demand()
        self.created_and_removed()
        self.by_a_user_in_no_group()
        self.docker_as_the_books()
        self.removed_by_hand()

    # ---- the steps

    def books_and_reality(self) -> None:
        self._title("Three bookings, one container")
        self.terminal.say(
            "A private Docker engine, a stand-in for NVIDIA's library that shows four A100 with"
            " twelve MIG devices, and books that a real allocator left behind, with their times"
            " moved so that the bookings are three hours old."
        )
        for name, value in self.stage.exports.items():
            self.terminal.line(f"  $ export {name}={value}")
        self._run("cat ds01d.toml")
        uuid = self.stage.gpus.slots()[SLOT]
        self._run(
            f"docker run -d --name {ALIVE} --network none \\\n"
            f"  --gpus device={uuid} \\\n"
            f"  --label ds01.managed=true --label ds01.user=datasciencelab \\\n"
            f"  {IMAGE} sleep 600"
        )
        self.stage.use_gpu(SLOT, self.stage.engine.pid_of(ALIVE))
        self._run("ls lib/container-metadata")
        self._run("docker ps --all --format 'table {{.Names}}\\t{{.Status}}'")
        self._check(
            self.stage.bookings() == {**STALE, SLOT: ALIVE},
            "the books list three containers, Docker has one of them",
        )

    def found_and_explained(self) -> None:
        self._title("Found and explained")
        self.terminal.command("ds01d &")
        self.stage.start_daemon()
        self._await("ds01d is ready", lambda: self._logged("daemon.ready"))
        self._run("ds01ctl plan", status=2)
        plan = json.loads(self._quietly("ds01ctl plan --json"))
        waiting = {drift["slot"]: drift["container"] for drift in plan["drifts"]}
        self._check(
            waiting == STALE and all(drift["verdict"] == "waiting" for drift in plan["drifts"]),
            "both stale bookings are found and wait, the third is not among them: exit status 2",
        )
        self._run(f"ds01ctl explain {STALE['1.1']}")
        self._run(f"ds01ctl explain {ALIVE} | head -n 8")
        self._check(
            self.stage.bookings() == {**STALE, SLOT: ALIVE}, "so far nothing has been written"
        )

    def released_after_its_grace(self) -> None:
        self._title("Released after their grace")
        self.terminal.say(
            "There was no destroy event for them, so their absence must last for"
            f" absence_grace. Two minutes are long for a demonstration; {GRACE_S} seconds are risky"
            " on a server, and ds01d says so."
        )
        self._run(f"""sed -i 's/^absence_grace.*/absence_grace = "{GRACE_S}s"/' ds01d.toml""")
        self._run(f"kill -HUP {self.stage.pid}")
        self._await(
            "both are released, the third is kept",
            lambda: self.stage.bookings() == {SLOT: ALIVE} and self.stage.counted() == 1,
        )
        self._await("their metadata are gone", lambda: self.stage.records() == {ALIVE})
        self._await(
            "both releases are in the log",
            lambda: len(self._logged("drift.settled", action="release")) == len(STALE),
        )
        self._consistent()

    def docker_is_killed(self) -> None:
        self._title("dockerd is killed, and nothing is released")
        before = self.stage.state
        begin = len(self.log)
        self.terminal.command(f"kill -KILL {self.stage.engine.pid}    # dockerd; containers go on")
        self.stage.engine.kill(containers=False)
        began = time.monotonic()
        self._await(
            "ds01d logs that Docker is unavailable",
            lambda: self._logged("source.down", since=begin, source="docker"),
        )
        self._run("ds01ctl plan", status=1)
        self._run(f"ds01ctl explain {ALIVE} | grep undecided | fold -sw 76")
        self._await(
            f"longer than the grace: dockerd has been away for {OUTAGE_S} s",
            lambda: time.monotonic() - began > OUTAGE_S,
        )
        self._check(
            self.stage.state == before and self.stage.records() == {ALIVE},
            "the books are what they were, byte for byte",
        )

    def docker_comes_back(self) -> None:
        self._title("dockerd is back, and all is well")
        begin = len(self.log)
        self.terminal.command("dockerd --live-restore … &")
        self.stage.engine.start()
        self._await(
            "ds01d logs that Docker is available again",
            lambda: self._logged("source.up", since=begin, source="docker"),
        )
        listed = self._run("docker ps --all --format 'table {{.Names}}\\t{{.Status}}'")
        self._check(f"{ALIVE}" in listed.output and "Up" in listed.output, "it ran all the time")
        self._consistent()
        self._check(self.stage.bookings() == {SLOT: ALIVE}, "and it has kept its booking")

    def a_sweep_on_demand(self) -> None:
        self._title("A sweep on demand")
        self.terminal.say(
            "No event reports a file that is removed. The next sweep finds it, within"
            " a minute; SIGHUP makes one now."
        )
        begin = len(self.log)
        self._run(f"rm {RECORD}")
        self._run(f"kill -HUP {self.stage.pid}")
        self._await(
            "the configuration is read again",
            lambda: self._logged("daemon.reload", since=begin),
        )
        self._await(
            "the sweep has found what was missing, and it is written again",
            lambda: (
                self.stage.records() == {ALIVE}
                and self._logged("drift.settled", since=begin, drift="missing-metadata")
            ),
        )
        self._run(f"cat {RECORD}")

    def created_and_removed(self) -> None:
        self._title("A container created, and removed again")
        name = f"{WORKFLOW}._.{os.getuid()}"
        self._run(f"container-create {WORKFLOW} pytorch")
        self._run("container-list --all")
        self._run("ds01-allocator status | head -n 6")
        self._run(f"docker inspect --format '{{{{json .Config.Labels}}}}' {name} | fold -w 94")
        self._check(
            self.stage.bookings() == {SLOT: ALIVE, "1.0": name}
            and self.stage.records() == {ALIVE, name},
            "it has a slot, metadata and its labels",
        )
        self._run("container-create other pytorch --slot 9.9 2>&1 | fold -sw 94")
        self._run(f"container-remove {WORKFLOW} --force")
        self._check(
            self.stage.bookings() == {SLOT: ALIVE} and self.stage.records() == {ALIVE},
            "removed, and gone from all of them; of the one that failed nothing was left",
        )
        self._run("tail -n 5 log/container-operations.log | cut -d'|' -f2,4-7 | cut -c1-94")

    def by_a_user_in_no_group(self) -> None:
        self._title("The same by a user who is in no group")
        self.terminal.say(
            "`as amy` runs a command as a user without a group and without rights, who cannot reach"
            " Docker. ds01d does it for her: from the catalogue, as her uid, and nothing else."
        )
        name = f"mine._.{USERS['amy']}"
        self._run("as amy docker ps 2>&1 | head -n 1 | cut -c1-60", status=None)
        self._run("as amy container-create mine pytorch")
        entered = self._run("as amy container-enter mine sh -c id")
        self._check(f"uid={USERS['amy']}" in entered.output, "in it she is who she is outside")
        others = f"belongs to uid {USERS['amy']}"
        tried = [
            self._run(f"as ben container-enter {name} sh -c id 2>&1 | fold -sw 94"),
            self._run(f"as ben container-remove {name} --force 2>&1 | fold -sw 94"),
        ]
        self._check(
            all(others in ended.output for ended in tried)
            and self.stage.bookings() == {SLOT: ALIVE, "1.0": name},
            "somebody else is refused, and it has its slot",
        )
        self._run("as amy container-remove mine --force")
        self._check(self.stage.bookings() == {SLOT: ALIVE}, "removed, and its slot is free again")

    def docker_as_the_books(self) -> None:
        self._title("The same without books")
        self.terminal.say(
            "Where nothing else reads the files, they need not be kept: what a container requests"
            " is what it has. Only reservations are written."
        )
        name, before = f"mine._.{USERS['amy']}", self.stage.state
        self._set_kind("docker")
        self._run("as amy container-create mine pytorch")
        self._run("ds01ctl status | head -n 7 | cut -c1-94")
        self._await(
            "its request is its booking, beside that of the container from before",
            lambda: self.stage.held() == {SLOT: ALIVE, "0": name},
        )
        self._run("as amy container-remove mine --force")
        free = "removed, and its slot is free at once"
        self._await(free, lambda: self.stage.held() == {SLOT: ALIVE})
        self._check(self.stage.state == before, "and the allocator's files are as they were")
        self._set_kind("files")

    def _set_kind(self, kind: str) -> None:
        self._run(f"""sed -i '/^kind =/d; s/^\\[books\\]$/&\\nkind = "{kind}"/' ds01d.toml""")
        since = len(self.log)
        at = time.time()
        self._run(f"kill -HUP {self.stage.pid}")
        # The sweep as well: until its stream of events is open again, a removal has no event.
        self._await(
            "ds01d has read it",
            lambda: (
                bool(self._logged("daemon.reload", since=since)) and self.stage.has_swept_since(at)
            ),
        )

    def removed_by_hand(self) -> None:
        self._title("A container removed by hand")
        begin = len(self.log)
        process = self.stage.engine.pid_of(ALIVE)
        self._run(f"docker rm --force {ALIVE}")
        self.stage.leave_gpu(process)
        self._await(
            "a destroy event proves it, so the settle time was enough: released",
            lambda: (
                not self.stage.bookings()
                and not self.stage.records()
                and self._logged("drift.settled", since=begin, container=ALIVE)
            ),
        )
        self._consistent()
        self._run("ds01ctl history")
        history = self._quietly("ds01ctl history --json")
        self._check(
            all(name in history for name in (*STALE.values(), ALIVE)),
            "every change of the books is in the history",
        )
        self._run("cut -d'|' -f1,2,4-6 log/container-operations.log")
        self._run(f"kill -TERM {self.stage.pid}")
        self._await("ds01d stops", lambda: self.stage.ended is not None)
        self._check(self.stage.ended == 0, "with exit status 0")

    # ---- what the steps are made of

    def _title(self, text: str) -> None:
        self._step += 1
        self.terminal.title(f"{self._step}/{STEPS} {text}")

    def _run(self, command: str, status: int | None = 0) -> Ended:
        """Run a command that has to end with `status` (None: with any)."""
        self._listen()
        ended = self.terminal.run(command, env=self.stage.env, cwd=self.stage.folder)
        if command.startswith("ds01ctl") and "|" not in command:
            self.terminal.line(f"  (exit status {ended.status})")
        if status is not None and ended.status != status:
            raise Failed(f"`{command}` ended with {ended.status} in place of {status}")
        return ended

    def _quietly(self, command: str) -> str:
        """What a command prints for programs."""
        words = shlex.split(command)
        done = subprocess.run(
            words,
            env=dict(self.stage.env),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
        return done.stdout

    def _check(self, holds: bool, claim: str) -> None:  # noqa: FBT001 - reads well at the call
        self._listen()
        if not holds:
            raise Failed(f"it is not so: {claim}\n    bookings: {dict(self.stage.bookings())}")
        self.terminal.ok(claim)

    def _await(self, claim: str, holds: Callable[[], object]) -> None:
        """Show what ds01d logs until `claim` holds, or fail."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            self._listen()
            if holds():
                break
            if time.monotonic() > deadline:
                raise Failed(
                    f"not so within {DEADLINE_S} s: {claim}\n"
                    f"    bookings: {dict(self.stage.bookings())}"
                )
            if self.stage.ended not in {None, 0}:
                raise Failed(f"ds01d has ended with {self.stage.ended}, waiting for: {claim}")
            time.sleep(0.02)
        self._listen()
        self.terminal.ok(claim)

    def _consistent(self) -> None:
        self._run("ds01ctl plan")
        self.terminal.ok("the books are true: exit status 0")

    def _listen(self) -> None:
        for entry in self.stage.entries():
            self.log.append(entry)
            self.terminal.log(entry)

    def _logged(self, event: str, since: int = 0, **keys: str) -> list[Entry]:
        """The entries of that event, from the place `since` on, that have these keys."""
        wanted = {"event": event, **keys}
        return [entry for entry in self.log[since:] if wanted.items() <= entry.items()]
