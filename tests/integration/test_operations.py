"""Operations through the socket of a real daemon, by root and by a user in no group."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from ds01d.errors import Refused
from ds01d.model.drift import Kind, Outcome
from ds01d.service.operations_client import RemoteOperations
from simulation.fake_engine import FakeEngine
from tests.integration.test_booking_service import LIMITS, allocate, socket_of
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site
from tests.support.peers import DAEMON, call_as, public_socket, read_error

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users, which root can")


def test_operations_from_the_plan_to_the_undo(tmp_path: Path, fake_engine: FakeEngine) -> None:
    with public_socket() as path:
        site = Site(
            tmp_path,
            fake_engine.url,
            service={"socket": str(path)},
            policy={"creation_grace": "1s", "absence_grace": "1s", "settle": "1s"},
        )
        site.limits.write_text(LIMITS, encoding="utf-8")
        with RunningDaemon(site) as daemon:
            operations = RemoteOperations(socket_of(site))
            following = operations.stream("Status", {})
            assert next(following)["status"]["freezes"] == []
            frozen = operations.freeze_subject(None, 3600.0, "a test")
            reasons = (
                [freeze["reason"] for freeze in reply["status"]["freezes"]] for reply in following
            )
            assert next(filter(None, reasons)) == ["a test"]
            del reasons, following  # which disconnects
            assert (frozen.freeze.by, frozen.warnings) == ("root", ())
            given = allocate(site, "alice", "job._.1001")
            until(lambda: site.status()["open_drifts"], what="a drift in the status")
            assert [freeze["reason"] for freeze in site.status()["freezes"]] == ["a test"]

            (drift,) = operations.plan_pass().drifts
            assert (drift.kind, drift.container) == (Kind.STALE_ALLOCATION, "job._.1001")
            reply = call_as(DAEMON, path, "Plan")["parameters"]["report"]["drifts"]
            assert [shown["evidence"] for shown in reply] == [[]]
            shown = call_as(DAEMON, path, "Explain", subject="job._.1001")
            (document,) = shown["parameters"]["explanation"]["documents"]
            assert document["verdict"]["words"].startswith("free: no container has this name")
            assert "metadata" not in document
            for method in ("Reconcile", "Freeze", "Thaw"):
                refused = call_as(DAEMON, path, method)
                assert read_error(refused)[0] == "NotPermitted"

            with pytest.raises(Refused, match="job is not frozen; frozen: everything"):
                operations.thaw_subject("job", engine=False)
            assert operations.thaw_subject(None, engine=False).lines
            report = operations.run_passes(60.0, lambda _: nullcontext())
            assert report.consistent
            daemon.booked()
            release = site.history()[-1]
            assert release["action"] == "release"

            undo = operations.undo_entry(release["id"], dry_run=False)
            assert undo.undone
            actor = site.history()[-1]["actor"]
            assert (actor["uid"], actor["login"], actor["pid"]) == (0, "root", os.getpid())
            daemon.booked(("job._.1001", given.slot))  # type: ignore[union-attr]
            daemon.sweeps(1)
            (held,) = operations.run_passes(0.0, lambda _: nullcontext()).drifts
            assert (held.verdict, held.gate) == (Outcome.WAITING, "undone")
