"""Which engine answers: its ID, data root, storage driver and runtimes, as /info has them."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace

from ds01d.adapters.docker.engine_info import EngineInfo, read_info
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.model.containers import EngineIdentity


class EngineIdentifier:
    """Fetches /info, and keeps it until `invalidate`."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._info: EngineInfo | None = None
        self._lasting_id: str | None = None

    def invalidate(self) -> None:
        """Another process may answer from now on. For any thread."""
        self._info = None

    def fetch_info(self) -> EngineInfo:
        """`id` is "" for an engine without a lasting one. Raises `EngineFailed`, `Malformed`."""
        info = self._info
        if info is None:
            info = self._request_info()
            if info.id != self._lasting_id:
                info = self._verify_id(info)
            self._info = info
        return info

    def _verify_id(self, info: EngineInfo) -> EngineInfo:
        # decision 84: an ID that is new is asked for again. Podman has another one in each answer;
        # two that alternate are two engines behind one address.
        self._lasting_id = None
        second = self._request_info()
        if info.id == second.id:
            self._lasting_id = info.id
            return info
        if self._request_info().id in {info.id, second.id}:
            raise self._client.make_error("several engines answer by turns")
        return replace(info, id="")

    def _request_info(self) -> EngineInfo:
        return read_info(self._client.get("/info"))


def describe_identity(info: EngineInfo) -> EngineIdentity:
    """With inode and device 0 where the data root cannot be read.

    It cannot for a remote engine, or where the data root is not mounted: the identity is then the
    same from pass to pass, and changes when the data root comes or goes.
    """
    inode = device = 0
    with suppress(OSError, ValueError):
        status = os.stat(info.root_dir)  # noqa: PTH116 - Docker's path, not one of ours
        inode, device = status.st_ino, status.st_dev
    return EngineIdentity(
        id=info.id,
        root_dir=info.root_dir,
        inode=inode,
        device=device,
        driver=info.driver,
        image_store=info.image_store,
    )
