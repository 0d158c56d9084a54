"""The set-up of docs/fleet.md, command by command: certificates, etcd, users, ds01d, restore.

The commands are those of the document, run on three machines; only the addresses are of their
network. etcd is that of Debian 13, with the unit of its package.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from demo.fleet_stage import ADDRESSES, FleetStage, GpuHost
from simulation.etcd import EtcdPrograms, EtcdUnavailable
from simulation.sshd import SshdUnavailable, find_sshd
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.proofs import PROOFS
from tests.support.service import CONFIG

pytestmark = [
    pytest.mark.proof,
    pytest.mark.machine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PROOFS, reason="a minute of four machines: make proofs"),
]

EXAMPLE: Final = "/usr/share/doc/ds01d/examples/ds01d-fleet.conf"
# As the packages etcd-server and etcd-client leave a host. What is fetched lies below /root.
PACKAGE: Final = """
systemctl stop etcd; rm -rf /etc/systemd/system/ds01d.service.d /usr/local/bin/etcdctl
chmod 755 /root /root/.cache /root/.cache/ds01d
useradd --system --home-dir /var/lib/etcd etcd
install -d -o etcd -g etcd -m 700 /var/lib/etcd
systemctl daemon-reload
"""


class Document:
    """The commands of the set-up, in their order. `on` adapts them to a host."""

    def __init__(self) -> None:
        text = (ROOT / "docs" / "fleet.md").read_text("utf-8")
        text = text[text.index("### One member or three") :]
        self.shell = self._find_blocks(text, "sh")
        (self.settings,) = self._find_blocks(text, "toml")

    @staticmethod
    def _find_blocks(text: str, language: str) -> list[str]:
        blocks = re.findall(rf"^ *```{language}\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
        return [re.sub(r"^ {3}", "", block, flags=re.MULTILINE) for block in blocks]

    @staticmethod
    def on(host: GpuHost, text: str) -> str:
        """For this host, where the document has gpu01; lists of all hosts stay as they are."""
        lines = []
        for line in text.replace("10.0.0.", "10.99.0.").splitlines():
            is_list = "gpu02" in line or "10.99.0.2" in line or line.startswith("sign ")
            own = line.replace("gpu01", host.name).replace(ADDRESSES["gpu01"], host.address)
            lines.append(line if is_list else own)
        return "\n".join(lines) + "\n"


def run(host: GpuHost, script: str) -> str:
    """Run commands as root, as somebody who types them; the first that fails ends it."""
    words = ("bash", "-euc", f"export HOME=/root; cd; {script}")
    return host.machine.run(*words).stdout


@pytest.fixture(scope="module")
def stage(machine_host: None) -> Iterator[FleetStage]:
    try:
        find_sshd()
        programs = EtcdPrograms()
    except (SshdUnavailable, EtcdUnavailable) as error:
        pytest.skip(str(error))
    root = Path(programs.command("etcd")[-1]).parents[2]
    unit = next(root.glob("**/etcd.service"))
    with FleetStage() as stage:
        for host in stage.hosts.values():
            for program in ("etcd", "etcdctl", "etcdutl"):
                script = f'#!/bin/sh\nexec {shlex.join(programs.command(program))} "$@"\n'
                host.machine.put(f"/usr/bin/{program}", script, mode=0o755)
            run(host, PACKAGE)
            host.machine.put("/etc/systemd/system/etcd.service", unit)
            host.machine.put(EXAMPLE, ROOT / "systemd" / "ds01d-fleet.conf")
        yield stage


def hand_over(host: GpuHost, file: str, source: GpuHost) -> None:
    """As an administrator copies it."""
    host.machine.put(f"/root/{file}", source.machine.path(f"/root/{file}").read_bytes(), mode=0o600)


def describe(stage: FleetStage) -> str:
    """How each host stands, and the end of its log, for a failure."""
    lines = []
    for host in stage.hosts.values():
        membership = host.read_membership()
        lines += [host.name, str(membership.get("state")), str(membership.get("reason"))]
        lines += host.service.tail().splitlines()[-6:]
    return "\n".join(lines)


def list_states(stage: FleetStage) -> list[Any]:
    return [host.read_membership().get("state") for host in stage.hosts.values()]


def test_the_set_up_of_the_document(stage: FleetStage) -> None:
    document = Document()
    certificates, etcd, look, users, files, unit, backup, restore, _ = document.shell
    first, *others = stage.hosts.values()
    variables = "".join(line + "\n" for line in look.splitlines() if line.startswith("export"))

    script = document.on(first, certificates).replace("# and so on, one for each GPU host", "")
    run(
        first,
        f"{script}sign gpu03 DNS:gpu03,IP:{ADDRESSES['gpu03']},IP:127.0.0.1\ncp ca.pem gpu* ~",
    )
    for host in stage.hosts.values():
        for file in ("ca.pem", f"{host.name}.pem", f"{host.name}.key"):
            hand_over(host, file, first)
        run(host, document.on(host, etcd))
    health = f"{variables}etcdctl endpoint health 2>&1 || :"
    until(lambda: run(first, health).count("is healthy") == 3)
    assert run(first, look).count("https://gpu0") == 3
    run(first, variables + users)

    for host in stage.hosts.values():
        hand_over(host, f"{host.name}.password", first)
        run(host, document.on(host, files))
        settings = host.machine.path(CONFIG).read_text("utf-8")
        settings = re.sub(r"^etcd = .*\n", "", settings, flags=re.MULTILINE)
        own = document.on(host, document.settings).replace("[fleet]\n", "")
        host.machine.put(CONFIG, settings + own)
        # Its exit status is that of the whole host, which has no journal on disk.
        checked = run(
            host, document.on(host, unit).replace("ds01ctl doctor", "ds01ctl doctor || :")
        )
        assert "3 members with a leader" in checked, checked
        host.machine.run("systemctl", "start", "ds01d.socket")
    until(lambda: list_states(stage) == ["member"] * 3, what=lambda: describe(stage))

    create = "cd; for name in a b c; do container-create $name pytorch --any-host; done"
    words = ("runuser", "-u", "amy", "--", "sh", "-c", create)
    done = stage.login.run(*words, check=False)
    assert done.stdout.count(" runs on GPU ") == 2, done
    assert "USER_AT_LIMIT" in done.stderr

    # All members put back from a backup: every host reports what it has.
    run(first, variables + backup)
    for host in others:
        hand_over(host, "etcd.snapshot", first)
    for host in stage.hosts.values():
        run(host, "systemctl stop etcd")
    for host in stage.hosts.values():
        run(host, document.on(host, restore))
    until(lambda: list_states(stage) == ["member"] * 3, 300, what=lambda: describe(stage))
    done = stage.login.run(*words, check=False)
    assert "USER_AT_LIMIT" in done.stderr or "is on gpu01 already" in done.stderr, done
