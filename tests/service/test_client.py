"""The client of the service: which calls it makes again when no answer comes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ds01d.model.primitives import ContainerName, UserName
from ds01d.service.allocator_client import RemoteAllocator
from ds01d.service.exchange import ServiceUnanswered

ALICE, TRAIN = UserName("alice"), ContainerName("train._.1001")


@contextmanager
def deaf_service(path: Path) -> Iterator[list[bytes]]:
    """Takes each call and closes the connection without an answer; gives the calls."""
    calls: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    peer, _ = listening.accept()
                except OSError:
                    return
                with peer:
                    calls.append(peer.recv(1 << 16))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield calls
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(60)


@pytest.mark.parametrize(
    ("container", "another", "times"), [(TRAIN, False, 2), (TRAIN, True, 1), (None, False, 1)]
)
def test_only_what_is_one_booking_twice_is_asked_for_again(
    tmp_path: Path, container: ContainerName | None, *, another: bool, times: int
) -> None:
    path = tmp_path / "s"
    with deaf_service(path) as calls:
        with pytest.raises(ServiceUnanswered):
            RemoteAllocator(path).allocate(ALICE, container, another=another)
        assert len(calls) == times
