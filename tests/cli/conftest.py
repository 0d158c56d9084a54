"""A person in front of a small host, in UTC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Desk
from tests.support.sample_host import a_host
from tests.support.world import Host


@pytest.fixture
def host() -> Host:
    return a_host()


@pytest.fixture
def desk(host: Host, tmp_path: Path) -> Desk:
    return Desk(host=host, state_dir=tmp_path)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Moments are shown in local time: make it the same everywhere."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()
