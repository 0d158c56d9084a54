"""What tests do with a Docker engine, whoever runs it: containers as DS01 makes them, and by hand.

Starts and stops no engine; `engine` and `machine` do.
"""

import io
import re
import shutil
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import docker
from docker.errors import NotFound

IMAGE: Final = "ds01d-test:latest"
APPLETS: Final = ("sh", "sleep", "true", "false", "cat", "echo", "ls", "ps", "env", "kill", "touch")

Devices = int | str | Sequence[str] | None
"""What `--gpus` names: nothing, a count, "all", or indices and UUIDs."""


class EngineClient:
    """The engine at `url`, for the caller's thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: docker.APIClient | None = None

    @property
    def client(self) -> docker.APIClient:
        """A client of this engine."""
        if self._client is None:
            self._client = docker.APIClient(base_url=self.url, version="auto", timeout=60)
        return self._client

    def provide_image(self) -> None:
        """Import the test image, unless it is there."""
        if not self.client.images(IMAGE):
            self.client.import_image_from_data(
                _image(), repository=IMAGE.split(":")[0], tag="latest"
            )

    def close_client(self) -> None:
        """Close the connections; the next use opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def run(
        self,
        name: str,
        *,
        devices: Devices = None,
        labels: Mapping[str, str] | None = None,
        command: Sequence[str] = ("sleep", "600"),
        start: bool = True,
        privileged: bool = False,
        env: Mapping[str, str] | None = None,
        runtime: str | None = None,
        restart: str = "no",
        driver: str = "",
        host_devices: Sequence[str] = (),
        image: str = IMAGE,
        binds: Sequence[str] = (),
    ) -> str:
        """Create a container, start it unless told otherwise, and return its id.

        `devices` are what `--gpus` names, `driver` is "cdi" for CDI names in their place (newer
        engines), `host_devices` are what `--device` names.
        """
        client = self.client
        host = client.create_host_config(
            network_mode="none",
            privileged=privileged,
            runtime=runtime,
            restart_policy={"Name": restart},
            devices=list(host_devices),
            binds=list(binds),
        )
        if devices is not None:
            host["DeviceRequests"] = [_request(devices, driver)]
        made = client.create_container(
            image,
            list(command),
            name=name,
            labels=dict(labels or {}),
            environment=dict(env or {}),
            stop_signal="SIGKILL",  # What runs as process 1 ignores SIGTERM for ten seconds.
            host_config=host,
        )
        if start:
            client.start(made["Id"])
        return str(made["Id"])

    def mlc_create(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        devices: Devices = None,
        gap_s: float = 0,
        start: bool = True,
    ) -> str:
        """Create a container as DS01 does, and return the id of the one that stays.

        Run without labels, commit, destroy, create again under the same name with labels, start.
        For `gap_s` seconds in between no such container exists.
        """
        client = self.client
        first = self.run(name, devices=devices, command=("true",))
        client.wait(first, timeout=30)
        repository, tag = IMAGE.split(":")[0], re.sub(r"[^\w.-]", "-", name)
        client.commit(first, repository=repository, tag=tag)
        client.remove_container(first, force=True)
        time.sleep(gap_s)
        final = self.run(
            name, devices=devices, labels=labels, image=f"{repository}:{tag}", start=False
        )
        client.update_container(final, cpu_shares=1024)
        if start:
            client.start(final)
        return final

    def pid_of(self, name: str) -> int:
        """Return the host's process id of a running container's first process."""
        return int(self.client.inspect_container(name)["State"]["Pid"])

    def stop_container(self, name: str) -> None:
        """Stop a container, at once."""
        self.client.stop(name, timeout=0)

    def remove(self, name: str) -> None:
        """Remove a container, whatever it is doing."""
        self.client.remove_container(name, force=True)

    def clear(self) -> None:
        """Remove all containers."""
        for row in self.client.containers(all=True, quiet=True):
            with suppress(NotFound):
                self.remove(row["Id"])


def _request(devices: int | str | Sequence[str], driver: str) -> dict[str, object]:
    """Ask for GPUs in the very words of the docker command, which the SDK does not use."""
    count, ids = 0, None
    if devices == "all":
        count = -1
    elif isinstance(devices, int):
        count = devices
    else:
        ids = [devices] if isinstance(devices, str) else list(devices)
    return {
        "Driver": driver,
        "Count": count,
        "DeviceIDs": ids,
        "Capabilities": [["gpu"]] if not driver else None,
        "Options": {},
    }


def _image() -> bytes:
    """Pack busybox and links for what tests run."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise RuntimeError("busybox-static is not installed")
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        tar.add(busybox, "bin/busybox", filter=_plain)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return target.getvalue()


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.mode = 0o755
    return entry
