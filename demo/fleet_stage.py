"""The lab on which the demonstration of several hosts plays: three GPU hosts and a login server.

Each is a machine of its own (`simulation.machine`): systemd, journald, dockerd, a simulated driver,
sshd, and on the GPU hosts a member of etcd. They share a network: a bridge in the login server's
namespace, with a cable to each host. All of it is gone afterwards, also if this process is killed.
"""

import base64
import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from simulation import nvml
from simulation.engine import IMAGE
from simulation.etcd import EtcdPrograms
from simulation.machine import Machine
from simulation.signals import deaf
from simulation.sshd import find_sshd
from tests.support.books import until
from tests.support.service import CONFIG, PLACE, Service, binds

ROOT: Final = Path(__file__).parent.parent
HOSTS: Final = ("gpu01", "gpu02", "gpu03")
USERS: Final = {"amy": 2001, "ben": 2002}
QUOTA: Final = 2
BRIDGE: Final = "lab"
NETWORK: Final = "10.99.0"
ADDRESSES: Final = {name: f"{NETWORK}.{number}" for number, name in enumerate(HOSTS, 1)}
LOGIN_ADDRESS: Final = f"{NETWORK}.100"
BOOKS: Final = ("/var/lib/ds01", "/var/lib/ds01d")
COMMANDS: Final = ("create", "list", "remove", "stop", "start", "enter", "logs")

CONFIGURATION: Final = """\
[docker]
timeout = "4s"
[gpu]
source = "nvml"
timeout = "4s"
[books]
writers = "service"
[service]
socket = "/run/ds01d/booking.sock"
containers = true
[allocator]
sharing = "never"
[daemon]
sweep_interval = "5s"
[policy]
settle = "2s"
absence_grace = "10s"
[fleet]
hosts = {hosts}
etcd = {members}
"""
LIMITS: Final = f"""\
defaults: {{gpu_hold_after_stop: null, priority: 1, max_mig_instances: {QUOTA}}}
default_group: student
groups:
  student: {{members: [amy, ben], priority: 10, max_mig_instances: {QUOTA}}}
"""
CATALOGUE: Final = f"""\
[container]
command = ["sleep", "3600"]
[[image]]
framework = "pytorch"
image = "{IMAGE}"
"""
LOGIN_CONFIGURATION: Final = """\
[fleet]
hosts = {hosts}
"""
SSHD: Final = """\
HostKey /etc/ssh/demo_key
AuthorizedKeysFile /etc/ssh/demo_keys_%u
UsePAM no
StrictModes no
PidFile none
"""
DROP_IN: Final = f"""\
[Service]
IPAddressAllow={NETWORK}.0/24
"""


def list_words(words: Sequence[str]) -> str:
    """A list as TOML has it."""
    return json.dumps(list(words))


class GpuHost:
    """A host with GPUs: ds01d, Docker, sshd, and a member of etcd."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name, self.machine = name, machine
        self.service = Service(machine)
        self.address = ADDRESSES[name]
        self._image: Path | None = None

    def install(self) -> None:
        """Put everything in place, before it boots."""
        self.service.install(nvml.prod4())
        machine = self.machine
        for command in COMMANDS:
            path = f"{PLACE}/bin/container-{command}"
            machine.path(f"/usr/bin/container-{command}").symlink_to(path)
        machine.put("/usr/lib/systemd/system/ds01d.socket", ROOT / "systemd" / "ds01d.socket")
        places = "/etc/systemd/system/ds01d.service.d"
        machine.put(f"{places}/fleet.conf", ROOT / "systemd" / "ds01d-fleet.conf")
        machine.put(f"{places}/lab.conf", DROP_IN)
        machine.put("/opt/ds01-infra/config/resource-limits.yaml", LIMITS)
        machine.put("/etc/ds01/frameworks.toml", CATALOGUE)
        members = [f"http://{address}:2379" for address in ADDRESSES.values()]
        settings = CONFIGURATION.format(hosts=list_words(HOSTS), members=list_words(members))
        machine.put(CONFIG, settings)
        machine.put("/etc/hostname", f"{self.name}\n")
        machine.put("/etc/ssh/demo_sshd", SSHD)
        script = f'#!/bin/sh\nexec {shlex.join(EtcdPrograms().command("etcdctl"))} "$@"\n'
        machine.put("/usr/local/bin/etcdctl", script, mode=0o755)
        for unit, words in (("etcd", self._etcd_command()), ("sshd", _sshd_command())):
            unit_text = f"[Service]\nExecStart={shlex.join(words)}\n"
            machine.put(f"/etc/systemd/system/{unit}.service", unit_text)

    def start_services(self) -> None:
        """What boots with a server, once its cable is in."""
        self.machine.run("mkdir", "-p", "-m", "755", "/run/sshd")
        self.machine.run("systemctl", "start", "etcd", "sshd")
        self.machine.start_docker()

    def start_ds01d(self) -> None:
        """Once a majority of etcd's members is there."""
        self.machine.run("systemctl", "start", "ds01d.socket")
        self.service.start()

    def image_disk(self) -> None:
        """Take an image of the disk with the books; Docker's is another one."""
        self._image = Path(self.machine.path("/")) / "image"
        for place in BOOKS:
            target = f"/image{place}"
            self.machine.run("sh", "-euc", f"mkdir -p {target}; cp -a {place}/. {target}")

    def restore_disk(self) -> None:
        """Put the image back, while it is off."""
        for place in BOOKS:
            shutil.rmtree(self.machine.path(place))
            _copy_tree(self.machine.path(f"/image{place}"), self.machine.path(place))

    def read_status(self) -> dict[str, Any]:
        """What its ds01d says itself."""
        document: dict[str, Any] = self.service.ctl("status")
        return document

    def read_membership(self) -> dict[str, Any]:
        """How it stands in its fleet; empty before its ds01d has published that."""
        text = self.machine.path("/var/lib/ds01d/status.json").read_text("utf-8")
        return json.loads(text).get("fleet") or {}

    def list_held(self) -> dict[str, str]:
        """Who is booked there by its own books: container by slot."""
        slots = self.read_status()["slots"]
        return {slot["slot"]: h["container"] for slot in slots for h in slot["holders"]}

    def _etcd_command(self) -> list[str]:
        peers = ",".join(f"{name}=http://{address}:2380" for name, address in ADDRESSES.items())
        client, peer = f"http://{self.address}:2379", f"http://{self.address}:2380"
        options = {
            "name": self.name,
            "data-dir": "/var/lib/etcd-demo",
            "listen-client-urls": f"{client},http://127.0.0.1:2379",
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": peers,
            "initial-cluster-state": "new",
            "log-level": "warn",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        return EtcdPrograms().command("etcd", *words)


class FleetStage:
    """The lab, as a context manager. `login`: where users ask from; `hosts`: by name."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.hosts: dict[str, GpuHost] = {}
        self.machines: list[Machine] = []
        self.login: Machine

    def __enter__(self) -> "FleetStage":  # noqa: PYI034 - typing has no Self in Python 3.10
        """Build it, up to hosts that are on and have no ds01d yet."""
        try:
            shared = binds()
            self.login = self._add_machine(shared)
            for name in HOSTS:
                self.hosts[name] = GpuHost(name, self._add_machine(shared))
            self._boot_login()
            for host in self.hosts.values():
                host.install()
                self._boot(host)
            self._write_keys()
            for host in self.hosts.values():
                host.start_services()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take everything down, whatever signal still comes."""
        deaf()
        self.close()

    def close(self) -> None:
        """End all machines, and with them their network."""
        self._stack.close()

    def _add_machine(self, shared: Mapping[str, Path]) -> Machine:
        machine = Machine(binds=shared)
        self._stack.callback(machine.close)
        self.machines.append(machine)
        return machine

    # ---- power and cables

    def _boot_login(self) -> None:
        login = self.login
        login.put("/etc/hostname", "login\n")
        for command in ("ds01ctl", "container-create", "container-list", "container-remove"):
            login.path(f"/usr/bin/{command}").symlink_to(f"{PLACE}/bin/{command}")
        text = LOGIN_CONFIGURATION.format(hosts=list_words(HOSTS))
        login.put(CONFIG, text)
        login.boot()
        self._settle_in(login, "login")
        login.run("ip", "link", "add", BRIDGE, "type", "bridge")
        login.run("ip", "link", "set", BRIDGE, "up")
        login.run("ip", "address", "add", f"{LOGIN_ADDRESS}/24", "dev", BRIDGE)

    def _boot(self, host: GpuHost) -> None:
        host.machine.boot()
        self._settle_in(host.machine, host.name)
        self.plug_in(host)
        host.service.chown_books()

    def _settle_in(self, machine: Machine, name: str) -> None:
        names = [f"{address} {host}" for host, address in ADDRESSES.items()]
        machine.put("/etc/hosts", "\n".join(["127.0.0.1 localhost", *names]) + "\n")
        machine.run("hostname", name)
        machine.run("ip", "link", "set", "lo", "up")
        for user, uid in USERS.items():
            if machine.run("id", user, check=False).returncode != 0:
                words = ("--create-home", "-U", "-p", "*", "-s", "/bin/sh", "-u", str(uid))
                machine.run("useradd", *words, user)
        machine.run("sh", "-c", "id sshd || useradd --system --no-create-home sshd")

    def plug_in(self, host: GpuHost) -> None:
        """Lay the cable from a host that has booted to the bridge."""
        # The pid is one of this process' namespace, so only that of the network is entered.
        inside = ("nsenter", f"--net=/proc/{self.login.leader}/ns/net", "ip", "link")
        peer = ("type", "veth", "peer", "name", "eth0", "netns", str(host.machine.leader))
        _run((*inside, "add", host.name, *peer))
        _run((*inside, "set", host.name, "master", BRIDGE, "up"))
        # Without it Docker warns at each container.
        forward = "echo 1 >/proc/sys/net/ipv4/ip_forward"
        _run(("nsenter", f"--net=/proc/{host.machine.leader}/ns/net", "sh", "-c", forward))
        host.machine.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.machine.run("ip", "link", "set", "eth0", "up")

    def power_on(self, host: GpuHost) -> None:
        """Boot a host that was off, with all that boots with it."""
        self._boot(host)
        host.start_services()
        host.start_ds01d()

    def _write_keys(self) -> None:
        """A key for each user, known to all hosts, and the hosts' keys known to all."""
        login = self.login
        for user in USERS:
            script = "umask 077; mkdir -p .ssh; ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519"
            login.run("runuser", "-u", user, "--", "sh", "-euc", f"cd; {script}")
        known = []
        for host in self.hosts.values():
            machine = host.machine
            machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/demo_key")
            for user in USERS:
                key = login.path(f"/home/{user}/.ssh/id_ed25519.pub").read_text("ascii")
                machine.put(f"/etc/ssh/demo_keys_{user}", key)
            known.append(f"{host.name} {machine.path('/etc/ssh/demo_key.pub').read_text('ascii')}")
        login.put("/etc/ssh/ssh_known_hosts", "".join(known))

    # ---- what is there

    def view(self) -> dict[str, dict[str, Any]]:
        """All hosts as amy sees them."""
        words = ("runuser", "-u", "amy", "--", "ds01ctl", "fleet", "status", "--json")
        document = json.loads(self.login.run(*words, check=False).stdout)
        return {host["host"]: host for host in document["hosts"]}

    def read_store(self, prefix: str = "/ds01/v1/") -> dict[str, Any]:
        """What etcd has below a prefix, by key; of the first member that answers."""
        for host in self.hosts.values():
            words = ("etcdctl", "get", "--prefix", prefix, "--write-out=json")
            with suppress(RuntimeError, ValueError, KeyError):
                done = json.loads(host.machine.run(*words).stdout)
                return {
                    _decode(row["key"]): json.loads(_decode(row["value"]) or "null")
                    for row in done.get("kvs", [])
                }
        return {}


def await_store(stage: FleetStage) -> None:
    """Until etcd has a leader that answers."""
    first = next(iter(stage.hosts.values())).machine
    until(lambda: first.run("etcdctl", "endpoint", "health", check=False).returncode == 0)


def _sshd_command() -> list[str]:
    return [*find_sshd(), "-D", "-e", "-f", "/etc/ssh/demo_sshd"]


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()


def _copy_tree(source: Path, target: Path) -> None:
    _run(("cp", "--archive", str(source), str(target)))


def _run(words: Sequence[str]) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(words)}: {done.stderr.strip()}")
