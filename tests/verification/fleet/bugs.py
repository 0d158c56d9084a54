"""Bugs of a fleet, planted one at a time; the campaign has to catch each.

    make soak-fleet-bugs           all of them (half a minute each); ARGS=fence: those so named

Each has a mix of faults under which it would show, and the same mix has to pass without it. The
reference host makes its mistakes on demand; ds01d has no switch for any of them, so its own are
planted in a copy of the tree.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.verification.campaign.bugs import Bug, copy_tree, planted
from tests.verification.fleet import reference_store as reference
from tests.verification.fleet.run import say
from tests.verification.mutations import Mutation

MINUTES: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetBug:
    """A bug, the hosts that have it, and the mix of faults under which it shows.

    `edits`: what plants it in ds01d; none: the reference host has it on demand.
    """

    name: str
    hosts: str
    mix: str
    edits: tuple[Mutation, ...] = ()

    @property
    def as_planted(self) -> Bug:
        return Bug(name=self.name, edits=self.edits, profile=self.mix)


def _edit(file: str, old: str, new: str) -> Mutation:
    return Mutation(invariant=0, name=file, file=file, old=old, new=new, tests=())


def _on_demand(name: str, mix: str) -> FleetBug:
    return FleetBug(name=name, hosts="reference", mix=mix)


_ENTRIES: Final = "ds01d/adapters/fleet/etcd_entries.py"
_SESSION: Final = "ds01d/daemon/fleet_session.py"
_CONTENTS: Final = "ds01d/adapters/fleet/etcd_contents.py"

BUGS: Final = (
    _on_demand(reference.NO_FENCE, "races"),
    _on_demand(reference.NO_ID, "late requests"),
    _on_demand(reference.STALE_COUNT, "races"),
    _on_demand(reference.NO_LEADER, "no leader"),
    _on_demand(reference.LEASE_DEAD, "silence"),
    _on_demand(reference.WITHDRAW_UNREADABLE, "books"),
    _on_demand(reference.UNDER_LOCK, "locks"),
    _on_demand(reference.NO_RESTORE, "backups"),
    _on_demand(reference.NO_NAME, "races"),
    _on_demand(reference.STORE_RULES, "silence"),
    FleetBug(
        name=reference.NO_FENCE,
        hosts="client",
        mix="races",
        edits=(_edit(_ENTRIES, "                is_unchanged(fence_of_user, fence),\n", ""),),
    ),
    FleetBug(
        name=reference.NO_ID,
        hosts="client",
        mix="duplicates",
        edits=(
            _edit(
                _ENTRIES,
                "                if taken is not None and"
                " is_name_of(parse_holder(container, taken), entry):\n",
                "                if taken is not None:\n",
            ),
        ),
    ),
    FleetBug(
        name=reference.STALE_COUNT,
        hosts="client",
        mix="races",
        edits=(
            _edit(
                "ds01d/adapters/fleet/etcd_messages.py",
                '        "range_end": end,\n        "limit": str(limit),\n',
                '        "range_end": end,\n        "serializable": True,\n'
                '        "limit": str(limit),\n',
            ),
            # A fence that is as old as the count fails the transaction: it has to be read apart.
            _edit(
                _CONTENTS,
                "                fence = key.mod_revision\n",
                "                fence = _read_fence(store, user)\n",
            ),
            _edit(
                _CONTENTS,
                "class ContentsReader:\n",
                "def _read_fence(store: EtcdStore, user: UserName) -> int:\n"
                "    from ds01d.adapters.fleet.book_keys import fence_key\n"
                "    from ds01d.adapters.fleet.etcd_messages import read_key\n"
                "    found = store.commit([], [read_key(fence_key(user))]).find_key(0)\n"
                "    return 0 if found is None else found.mod_revision\n\n\n"
                "class ContentsReader:\n",
            ),
        ),
    ),
    FleetBug(
        name=reference.NO_LEADER,
        hosts="client",
        mix="no leader",
        edits=(
            _edit(
                "ds01d/adapters/fleet/etcd_connections.py",
                '        "Grpc-Metadata-hasleader": "true",\n',
                "",
            ),
        ),
    ),
    FleetBug(
        name=reference.NO_NAME,
        hosts="client",
        mix="races",
        edits=(_edit(_ENTRIES, "                is_unchanged(name, name_revision),\n", ""),),
    ),
    FleetBug(
        name=reference.LEASE_DEAD,
        hosts="ds01d",
        mix="silence",
        edits=(
            _edit(
                "ds01d/daemon/fleet_worker.py",
                "{host.node: host.host for host in report.hosts}\n",
                "{\n"
                "            h.node: h.host for h in report.hosts if h.unseen_since is None\n"
                "        }\n",
            ),
            _edit(
                "ds01d/reconcile/fleet_booking.py",
                "            use = measure_use(\n                question, entries.entries,",
                "            names = self.host_names()\n"
                "            living = [one for one in entries.entries if one.node in names]\n"
                "            use = measure_use(\n                question, living,",
            ),
        ),
    ),
    FleetBug(
        name=reference.WITHDRAW_UNREADABLE,
        hosts="ds01d",
        mix="books",
        edits=(
            _edit(
                _SESSION,
                "            return Unknown(source=Source.STATE, reason=str(error))\n",
                "            del error\n            return {}\n",
            ),
            # The second guard of the same: what is not there has to be missing in a whole sweep.
            _edit(
                _SESSION,
                "        is_whole = report.is_sweep and report.needed_sources_ok\n",
                "        is_whole = report.is_sweep\n",
            ),
        ),
    ),
    FleetBug(
        name=reference.UNDER_LOCK,
        hosts="ds01d",
        mix="locks",
        edits=(
            # In the thread that serves the releases.
            _edit(
                "ds01d/daemon/fleet_reservations.py",
                "        self._jobs.put(_Job(plan, is_wanted=is_wanted))\n",
                "        self._serve_job(_Job(plan, is_wanted=is_wanted))\n",
            ),
        ),
    ),
    FleetBug(
        name=reference.NO_RESTORE,
        hosts="ds01d",
        mix="backups",
        edits=(
            # It is noticed in three places; here nobody is waited for.
            _edit(
                "ds01d/reconcile/fleet_member.py",
                "            missing = list_unreported(contents, memory.nodes, restored_at)\n",
                "            missing: list[str] = []\n",
            ),
        ),
    ),
    FleetBug(
        name="shared slot withdrawn first",
        hosts="ds01d",
        mix="shared slots",
        edits=(
            _edit(
                "ds01d/decide/fleet_drifts.py",
                "    if drift.entry.booking not in gate.proven and not drift.is_undercounted:\n",
                "    if drift.entry.booking not in gate.proven:\n",
            ),
            _edit(
                "ds01d/reconcile/fleet_pass.py",
                "self._repair_drift(defer_withdrawal(gated, undercounted))\n",
                "self._repair_drift(gated)\n",
            ),
        ),
    ),
)


def main(words: Sequence[str] | None = None) -> int:
    """Plant each; how many were not caught."""
    parser = argparse.ArgumentParser(
        prog="make soak-fleet-bugs", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--hosts", help="only bugs of these hosts")
    parser.add_argument("--clean", action="store_true", help="the same mixes without a bug, too")
    parser.add_argument("names", nargs="*", help="only bugs whose names have one of these words")
    arguments = parser.parse_args(words)
    escaped = 0
    say("| planted bug | in | faults | caught as | after |", "|---|---|---|---|---|")
    with copy_tree() as tree:
        for bug in BUGS:
            is_named = not arguments.names or any(word in bug.name for word in arguments.names)
            if not is_named or arguments.hosts not in {None, bug.hosts}:
                continue
            start = f"| {bug.hosts} | {bug.mix}"
            seed, minutes = arguments.seed, arguments.minutes
            if arguments.clean and (found := run(tree, bug, seed, minutes, is_clean=True)[0]):
                say(f"| (none) {start} | {', '.join(found)} | |")
                escaped += 1
            with planted(bug.as_planted, tree):
                found, seconds = run(tree, bug, seed, minutes)
            escaped += not found
            caught = ", ".join(found) or "NOT CAUGHT"
            say(f"| {bug.name} {start} | {caught} | {seconds:.0f} s |")
    return escaped


def run(
    tree: Path, bug: FleetBug, seed: int, minutes: float, *, is_clean: bool = False
) -> tuple[list[str], float]:
    """A campaign in a tree, until something is found: the kinds, and after how long."""
    command = [sys.executable, "-m", "tests.verification.fleet.run", "--stop-early"]
    command += ["--hosts", bug.hosts, "--mix", bug.mix]
    command += ["--seed", str(seed), "--minutes", str(minutes)]
    if not bug.edits and not is_clean:
        command += ["--bug", bug.name]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ds01-fleet-bug-") as keep:
        done = subprocess.run(
            [*command, "--keep", f"{keep}/kept"],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("VIOLATION ")]
    kinds = dict.fromkeys(line.removeprefix("VIOLATION ").partition(":")[0] for line in lines)
    if bool(done.returncode) is not bool(kinds):
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return list(kinds), time.monotonic() - began


if __name__ == "__main__":
    sys.exit(min(main(), 1))
