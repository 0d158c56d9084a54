"""The service as the daemon has it."""

from __future__ import annotations

import grp
import os
import socket
import time
from types import SimpleNamespace

import pytest

from ds01d.bootstrap_reports import read_usage
from ds01d.config import Config
from ds01d.service.report_calls import ReportCalls
from ds01d.service.requests import RequestQueue
from ds01d.service.service import Service


def test_an_operator_of_a_slow_directory_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def list_groups(*_: object) -> list[int]:
        time.sleep(0.5)
        return [4242]

    monkeypatch.setattr("ds01d.service.peers.read_credentials", lambda _: (os.getpid(), 1))
    monkeypatch.setattr(os, "getgrouplist", list_groups)
    monkeypatch.setattr(grp, "getgrnam", lambda _: SimpleNamespace(gr_gid=4242))
    service = Service(
        [], RequestQueue(lambda: None), ReportCalls(Config(), read_usage), from_containers=True
    )
    service.start()
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            assert service._server._identify(peer).is_operator
    finally:
        service.close()
