"""ds01d.service at the start of a host on which much is missing; then it comes, piece by piece."""

from __future__ import annotations

import pytest

from simulation import nvml
from simulation.machine import Machine
from tests.machine.conftest import SHORT_UNIT
from tests.machine.stories import TRAIN, booked, is_well, says
from tests.support.books import until
from tests.support.service import UNIT, Service

pytestmark = pytest.mark.machine


def test_it_is_up_without_docker_driver_and_state_and_picks_them_up(machine: Machine) -> None:
    service = Service(machine)
    service.install(None)
    machine.put("/etc/systemd/system/ds01d.service.d/short.conf", SHORT_UNIT)
    for unit in ("docker.service", "docker.socket"):
        link = machine.path(f"/etc/systemd/system/{unit}")
        link.symlink_to("/dev/null")
    wants = machine.path("/etc/systemd/system/multi-user.target.wants")
    wants.mkdir()
    (wants / UNIT).symlink_to(f"/usr/lib/systemd/system/{UNIT}")
    whole = service.books.state.read_bytes()
    service.books.state.write_bytes(whole[: len(whole) // 2])
    machine.boot()

    # Up, with everything that is missing named.
    assert service.active == "active"
    line = says(service, "docker down", "nvml down", "libnvidia-ml.so.1", "gpu-state.json")
    assert "no such socket" in line
    assert machine.show(UNIT, "NRestarts") == {"NRestarts": "0"}
    assert service.books.state.read_bytes() == whole[: len(whole) // 2]
    pid = service.pid

    # A driver is loaded.
    machine.install_driver(nvml.build() / nvml.NAME, nvml.prod4().text())
    says(service, "nvml ok")

    # Docker is installed. Its socket's group is the one that was made for ds01d.
    for unit in ("docker.service", "docker.socket"):
        machine.path(f"/etc/systemd/system/{unit}").unlink()
    machine.run("systemctl", "daemon-reload")
    engine = machine.start_docker()
    says(service, "docker ok")

    # The state is made anew from what is there; the broken one is kept.
    slots = {slot for slot in nvml.prod4().slots() if "." in slot}
    until(lambda: set(service.books.read_state()["gpus"]) == slots, what=service.tail)
    assert list(service.books.state_dir.glob("gpu-state.broken-*"))
    device = service.books.uuid("1.1")
    engine.run(TRAIN, devices=[device], labels={"aime.mlc": "alice", "ds01.managed": "true"})
    booked(service, (TRAIN, "1.1"))
    is_well(service)
    assert service.pid == pid

    # The group is taken away: it says so, and that is all. With the group it is well again.
    machine.run("gpasswd", "--delete", "ds01d", "docker")
    service.systemctl("restart")
    assert "permission denied" in says(service, "docker down")
    machine.run("groupdel", "docker")
    service.systemctl("restart")
    says(service, "docker down")
    assert service.books.bookings() == {(TRAIN, "1.1")}
    machine.run("systemd-sysusers")
    machine.run("systemctl", "restart", "docker.socket", "docker.service")
    machine.docker.client.start(TRAIN)
    service.systemctl("restart")
    is_well(service)

    # A configuration that cannot be read at the start: it stays down, for a stated reason.
    service.systemctl("reset-failed")  # it has been started often enough in a minute
    machine.put("/etc/ds01/ds01d.toml", "[docker\n")
    assert service.systemctl("restart", check=False).returncode != 0
    told = service.tells("ActiveState", "Result", "ExecMainStatus", "NRestarts")
    failed = {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78"}
    assert told == {**failed, "NRestarts": "0"}
    # journald reads what it has printed when it can.
    why = "/etc/ds01/ds01d.toml: is not TOML"
    until(lambda: any(why in str(entry["MESSAGE"]) for entry in service.log()), what=service.tail)
