"""What is run on the pristine machines: as a developer, as a server, as a user who is not root."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simulation.machine import Machine
from tests.fresh.roots import SUITES, place, pristine
from tests.fresh.sessions import Conditions, Outcome, Session
from tests.support.daemon import ROOT
from tests.support.package import OLDER, make_older

_BUNDLE: Final = "/srv/ds01d.bundle"
_NEW: Final = "/srv/ds01d-new.deb"
_OLD: Final = "/srv/ds01d-old.deb"

# The services of what `make setup` installs neither run nor start at the next boot.
_NO_SERVICE: Final = """
for unit in docker.socket docker.service containerd.service prometheus.service; do
    state="$(systemctl is-active "$unit" || :) $(systemctl is-enabled "$unit" || :)"
    echo "$unit: $state"
    [ "$state" = "inactive disabled" ]
done
"""
_CLONE: Final = f'git clone --quiet {_BUNDLE} "$CLONE"\n'
_DEVELOPER: Final = {
    "demo": ('cd "$CLONE"; make demo\n' + _NO_SERVICE, 1800),
    "package": ('cd "$CLONE"; make package\n', 1800),
    "test": ('cd "$CLONE"; make test ARGS=-v\n', 5400),
    # A Docker of the user's is as before: the same process, containers and images.
    "beside": (
        """
        cd "$CLONE"; make setup
        systemctl start docker.service
        tar -C / -c bin/busybox | docker import - users:image
        docker run --detach --name users --network none users:image /bin/busybox sleep 86400
        engine() {
            systemctl show --property=MainPID docker.service
            docker ps --all --no-trunc --format '{{.ID}} {{.Image}} {{.Names}} {{.State}}'
            docker images --all --no-trunc --format '{{.ID}}'
        }
        before=$(engine)
        make demo
        make test ARGS='-q -m docker'
        engine
        [ "$before" = "$(engine)" ]
        systemctl stop docker.service docker.socket
        """,
        3600,
    ),
}
# A server has no driver here: `doctor` says so, and finds nothing else.
_SERVER: Final = {
    "install": (
        f"""
        apt-get --quiet update
        DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes install {_NEW}
        """,
        900,
    ),
    "status": ("systemctl status ds01d.service --no-pager\n", 60),
    "doctor": (
        """
        if ds01ctl doctor; then exit 1; fi
        { ds01ctl doctor --json || :; } | python3 -c '
import json, sys
checks = json.load(sys.stdin)["checks"]
for health, names in {"fail": {"nvml"}, "warn": set()}.items():
    assert {check["name"] for check in checks if check["health"] == health} == names, health
'
        """,
        60,
    ),
    "upgrade": (
        f"""
        dpkg --force-downgrade --install {_OLD}
        systemctl is-active ds01d.service
        ds01d --version | grep -Fw {OLDER}
        DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes install {_NEW}
        systemctl is-active ds01d.service
        if ds01d --version | grep -Fw {OLDER}; then exit 1; fi
        """,
        300,
    ),
    "remove": (
        """
        DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes remove ds01d
        [ "$(systemctl is-active ds01d.service)" = inactive ]
        [ ! -e /usr/lib/ds01d ]
        [ -e /etc/ds01/ds01d.toml ]
        """,
        300,
    ),
    "purge": (
        """
        DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes purge ds01d
        left=$(find /etc /usr /var/lib /run -xdev -path '*ds01d*' ! -path '*/fresh-*')
        echo "left: $left"
        [ -z "$left" ]
        """,
        300,
    ),
}
COMMANDS: Final = (*_DEVELOPER, "server", "user")
"""What can be chosen. `server` is all that is done with a package, `user` a set-up without root."""

_LOGIN: Final = "worker"
_USER: Final = (
    # It says what an administrator has to run, and that can be pasted as it is.
    (
        "setup says what is missing",
        _LOGIN,
        f"""
        {_CLONE}
        cd "$CLONE"
        if make setup 2>said; then exit 1; fi
        cat said
        sed -n 's/^  //p' said >/tmp/commands
        [ -s /tmp/commands ]
        """,
        300,
    ),
    ("administrator", "root", "bash -eux /tmp/commands </dev/null\n" + _NO_SERVICE, 1200),
    ("setup", _LOGIN, 'cd "$CLONE"; make setup; .venv/bin/ds01ctl --help >/dev/null\n', 1200),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    machine: str
    command: str
    outcome: Outcome

    @property
    def detail(self) -> str:
        """What pytest says at its end; or where to read on."""
        text = self.outcome.log.read_text(encoding="utf-8", errors="replace")
        ends = re.findall(r"^=* ?(\d+ (?:passed|failed).*?) in [\d.]+s", text, re.MULTILINE)
        if not self.outcome.passed:
            ends.append(f"see {self.outcome.log}")
        return "; ".join(ends)


class Rounds:
    """All that is run on one Debian."""

    def __init__(self, suite: str, conditions: Conditions) -> None:
        self.machine = SUITES[suite]
        self._suite = suite
        self._conditions = conditions
        self._work = place(suite) / "runs"  # what commands print, and the packages that are built
        self._work.mkdir(exist_ok=True)
        self._bundle = self._work / "ds01d.bundle"
        subprocess.run(
            ("git", "bundle", "create", "--quiet", str(self._bundle), "HEAD"), cwd=ROOT, check=True
        )

    def play(self, commands: Sequence[str]) -> Iterator[Row]:
        """Run these commands; each gives its row when it has ended."""
        if developer := [name for name in _DEVELOPER if name in commands]:
            yield from self._developer(developer)
        if "server" in commands:
            yield from self._server()
        if "user" in commands:
            yield from self._user()

    def _developer(self, commands: Sequence[str]) -> Iterator[Row]:
        with self._session() as session:
            session.machine.put(_BUNDLE, self._bundle)
            yield self._row(session, "clone", _CLONE, within_s=120)
            for name in commands:
                script, within_s = _DEVELOPER[name]
                yield self._row(session, name, script, within_s=within_s)
                if name == "package":
                    self._keep_package(session)

    def _keep_package(self, session: Session) -> None:
        for package in self._work.glob("*.deb"):
            package.unlink()
        for package in session.machine.path(self._conditions.clone).glob("dist/ds01d_*.deb"):
            (self._work / package.name).write_bytes(package.read_bytes())

    def _server(self) -> Iterator[Row]:
        package = next(self._work.glob("ds01d_*.deb"), None)
        if package is None:
            raise LookupError(f"no package of {self._suite} yet: run the command `package` first")
        older = self._work / "older.deb"
        older.unlink(missing_ok=True)
        make_older(package, older)
        with self._session() as session:
            session.machine.put(_NEW, package)
            session.machine.put(_OLD, older)
            for name, (script, within_s) in _SERVER.items():
                yield self._row(session, name, script, within_s=within_s)

    def _user(self) -> Iterator[Row]:
        with self._session() as session:
            session.machine.put(_BUNDLE, self._bundle)
            session.machine.run("useradd", "--create-home", _LOGIN)
            folder = Path(self._conditions.clone).parent
            session.machine.run("install", "--directory", f"--owner={_LOGIN}", str(folder))
            for name, user, script, within_s in _USER:
                yield self._row(session, name, script, user=user, within_s=within_s)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        system = pristine(self._suite)
        with Machine(system=system, uptime_s=self._conditions.uptime_s) as machine:
            yield Session(machine, self._conditions, self._work)

    def _row(
        self, session: Session, name: str, script: str, *, user: str = "root", within_s: float
    ) -> Row:
        outcome = session.run(name, script, user=user, within_s=within_s)
        return Row(machine=self.machine, command=name, outcome=outcome)
