"""status.json and the one line: what they say, and that a full disk is only reported."""

from __future__ import annotations

import json
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ds01d.model.books import SlotType
from ds01d.model.checkpoint import Freeze
from ds01d.model.drift import Finding, FindingKind, Kind, Outcome
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Source, UserName, Wall
from ds01d.reporting.status import (
    DriftCount,
    Holder,
    Pace,
    SlotStatus,
    SourceStatus,
    Status,
    Sweep,
)
from ds01d.reporting.status_file import read_status, write_status
from ds01d.reporting.status_summary import format_summary

SWEPT = f"{datetime.fromtimestamp(988.0, timezone.utc).astimezone():%H:%M:%S}"
FINE = SourceStatus(ok=True, since=Wall(1.0), last_success=Wall(1000.0))


def status(**changes: Any) -> Status:
    held = SlotStatus(
        id=SlotId("1.0"),
        type=SlotType.MIG,
        uuid=DeviceUuid("MIG-1"),
        profile="1g.10gb",
        holders=(
            Holder(
                container=ContainerName("test._.1001"),
                user=UserName("test"),
                state="exited",
                until=Wall(2000.0),
            ),
        ),
        foreign=("other", "pid 7"),
    )
    fine = Status(
        written_at=Wall(1000.0),
        pid=42,
        version="1.2.3",
        mode="repair",
        ready=True,
        engine_trusted=True,
        sources=dict.fromkeys((Source.DOCKER, Source.NVML, Source.STATE), FINE),
        pace=Pace(used=0, limit=2, window_s=600.0),
        last_sweep=Sweep(at=Wall(988.0), duration_s=0.05),
        next_sweep=Wall(1048.0),
        slots=(held, SlotStatus(id=SlotId("0"), type=SlotType.PHYSICAL)),
    )
    return msgspec.structs.replace(fine, **changes)


FREEZE = Freeze(subject="*", by="root", reason="work", since=Wall(1.0))
SHARED = Finding(kind=FindingKind.SHARED_SLOT, container=None, slot=SlotId("1.0"), reason="two")


def test_the_document_comes_back_as_it_was_written(tmp_path: Path) -> None:
    drift = DriftCount(kind=Kind.WRONG_SLOT, outcome=Outcome.WAITING, count=2)
    written = status(findings=(SHARED,), freezes=(FREEZE,), drifts=(drift,), degraded=("x",))
    assert write_status(written, tmp_path) is None
    assert read_status(tmp_path) == written
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]
    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o644


def test_others_find_plain_words_and_numbers_in_it(tmp_path: Path) -> None:
    write_status(
        status(drifts=(DriftCount(kind=Kind.WRONG_SLOT, outcome=Outcome.WAITING, count=2),)),
        tmp_path,
    )
    document = json.loads((tmp_path / "status.json").read_text())
    assert document["sources"]["docker"] == {
        "ok": True, "since": 1.0, "reason": "", "last_success": 1000.0,
    }  # fmt: skip
    assert document["slots"][0]["type"] == "mig_instance"
    assert document["slots"][0]["holders"][0]["until"] == 2000.0
    assert document["drifts"] == [{"kind": "wrong-slot", "outcome": "waiting", "count": 2}]


def test_a_reader_never_sees_half_a_document(tmp_path: Path) -> None:
    write_status(status(pid=0), tmp_path)
    over = threading.Event()

    def reader() -> None:
        while not over.is_set():
            seen.append(read_status(tmp_path).pid)

    seen: list[int] = []
    thread = threading.Thread(target=reader)
    thread.start()
    for pid in range(200):
        assert write_status(status(pid=pid), tmp_path) is None
    over.set()
    thread.join()
    assert seen == sorted(seen)


def test_a_newer_document_can_be_read(tmp_path: Path) -> None:
    write_status(status(), tmp_path)
    file = tmp_path / "status.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "more": 1}))
    assert read_status(tmp_path) == status()


def test_what_cannot_be_written_is_a_reason_and_the_old_one_stays(tmp_path: Path) -> None:
    assert "No such file" in str(write_status(status(), tmp_path / "missing"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "status.json").mkdir()
    assert "Is a directory" in str(write_status(status(), tmp_path / "other"))
    write_status(status(), tmp_path)
    (tmp_path / "status.json.new").symlink_to("/dev/full")
    assert write_status(status(pid=1), tmp_path) is None, (
        "a link in the way is removed, not followed"
    )
    assert read_status(tmp_path).pid == 1
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["status.json"]


def test_a_broken_document_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_status(tmp_path)
    for text in ("", "{}", '{"pid": "x"}', "\udcff".encode("utf-8", "surrogateescape")):
        (tmp_path / "status.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ValueError, match=r"status\.json: "):
            read_status(tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, f"1 slot of 2 held, 0 drifts; docker ok, nvml ok; last sweep at {SWEPT}"),
        ({"slots": (), "last_sweep": None}, "0 slots of 0 held, 0 drifts; docker ok, nvml ok"),
        (
            {
                "drifts": (
                    DriftCount(kind=Kind.WRONG_SLOT, outcome=Outcome.WAITING, count=1),
                    DriftCount(kind=Kind.WRONG_SLOT, outcome=Outcome.DONE, count=5),
                ),
                "findings": (SHARED,),
                "last_sweep": None,
            },
            "1 slot of 2 held, 1 drift, 1 finding; docker ok, nvml ok",
        ),
        (
            {
                "mode": "observe",
                "engine_trusted": False,
                "freezes": (FREEZE,),
                "degraded": ("history full",),
                "sources": {
                    Source.DOCKER: SourceStatus(ok=False, since=Wall(0.0), reason="refused"),
                    Source.LIMITS: SourceStatus(ok=False, since=Wall(0.0), reason="no file"),
                },
                "last_sweep": None,
            },
            (
                "observing only; another Docker engine, nothing is released; frozen: everything; "
                "degraded: history full; 1 slot of 2 held, 0 drifts known; "
                "docker down (refused), limits down (no file)"
            ),
        ),
    ],
)
def test_one_line_says_it_all(changes: dict[str, Any], told: str) -> None:
    assert format_summary(status(**changes), Wall(1000.0)) == told
