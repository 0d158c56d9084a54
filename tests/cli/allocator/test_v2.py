"""gpu_allocator_v2.py, byte for byte, and what the lab's scripts make of it."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import pytest

from ds01d.cli.allocator.v2.__main__ import main
from ds01d.cli.allocator.v2.reasons import remove_tokens
from ds01d.cli.base import process
from tests.support.daemon import ROOT
from tests.support.peers import public_socket

SHIM = ROOT / "share" / "gpu_allocator_v2.py"
PARSING = ROOT / "tests" / "support" / "lab" / "parsing.sh"
ERROR = "io.github.ds01.Booking."
GPU, MIG = "GPU-77aa", "MIG-33a2575f-5b1a-445e-9b82-e8528dbca0d8"
Json = dict[str, Any]


class CannedService:
    """Answers each method of the booking service with what a test gives, and notes the calls."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Json] = []
        self.answers: dict[str, list[Json]] = {
            "Quota": [{"parameters": {"quota": {"max_slots": 2, "max_gpus": None}}}],
        }
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer:
                data = b""
                while not data.endswith(b"\0") and (part := peer.recv(65536)):
                    data += part
                if data:
                    call = json.loads(data[:-1])
                    self.calls.append(call)
                    answers = self.answers[call["method"].rpartition(".")[2]]
                    answer = answers.pop(0) if len(answers) > 1 else answers[0]
                    peer.sendall(json.dumps(answer).encode() + b"\0")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(60)

    def asked(self, method: str = "Allocate") -> list[Json]:
        return [c["parameters"] for c in self.calls if c["method"].endswith(f".{method}")]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CannedService]:
    with public_socket() as path:
        config = tmp_path / "ds01d.toml"
        config.write_text(f'[service]\nsocket = "{path}"\n', encoding="utf-8")
        monkeypatch.setenv("DS01D_CONFIG", str(config))
        made = CannedService(path)
        yield made
        made.close()


def call(*words: str) -> subprocess.CompletedProcess[str]:
    """A call in this process: two interpreters for each would take their time."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
    with (
        patch.object(sys, "argv", [str(SHIM), *words]),
        patch.object(process, "prepare_streams"),
        patch.dict(os.environ, {"COLUMNS": "200"}),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), *texts)


def run(*words: str, stdout: int | IO[bytes] = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """The file by its path, as scripts call it."""
    allocator = Path(sys.executable).with_name("ds01-allocator")
    return subprocess.run(
        ["python3", str(SHIM), *words],
        env={**os.environ, "DS01_ALLOCATOR": str(allocator), "LC_ALL": "C"},
        stdout=stdout,
        stderr=subprocess.STDOUT if stdout == subprocess.PIPE else subprocess.PIPE,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def read(function: str, *words: str) -> str:
    """What one of the lab's scripts makes of an answer."""
    line = f'source "$0"; {function} "$@"'
    done = subprocess.run(
        ["bash", "-c", line, PARSING, *words], stdout=subprocess.PIPE, encoding="utf-8", check=True
    )
    return done.stdout.strip()


def booking(*slots: tuple[str, str], **fields: object) -> Json:
    rows = [
        {"slot": slot, "docker_id": slot, "device": device, "shared_with": []}
        for slot, device in slots
    ]
    known = {
        "container": "nlp._.1077",
        "user": "alice",
        "priority": 10,
        "already": False,
        "id": "r-0123456789ab",
        "until": 2e9,
        "warnings": ["limits: a warning that nobody is to see: QUOTA_EXCEEDED"],
        "slots": rows,
    }
    return {"parameters": {"booking": known | fields, "waiting": None}}


def refused(code: str, detail: str = "") -> Json:
    parameters = {"code": code, "detail": detail, "warnings": []}
    return {"error": f"{ERROR}Refused", "parameters": parameters}


def error(name: str, **parameters: str) -> Json:
    return {"error": f"{ERROR}{name}", "parameters": parameters}


GIVEN: Mapping[str, tuple[list[str], Json, str, dict[str, str]]] = {
    "allocate": (
        ["allocate", "alice", "nlp._.1077", "2", "10"],
        booking(("3", GPU)),
        f"✓ Allocated GPU/MIG 3 to nlp._.1077\nDOCKER_ID={GPU}\n",
        {"read_as_mlc": f"given 3 {GPU} - - -"},
    ),
    "allocate-mig": (
        ["allocate", "alice", "nlp._.1077", "2", "10"],
        booking(("1.2", MIG)),
        f"✓ Allocated GPU/MIG 1.2 to nlp._.1077\nDOCKER_ID={MIG}\n",
        {"read_as_mlc": f"given 1.2 {MIG} - - -"},
    ),
    "allocate-again": (
        ["allocate", "alice", "nlp._.1077", "2", "10"],
        booking(("3", GPU), already=True),
        f"⚠ Container nlp._.1077 already has GPU/MIG 3 allocated\nDOCKER_ID={GPU}\n",
        {"read_as_mlc": "other"},
    ),
    "multi": (
        ["allocate-multi", "alice", "run7", "docker", "2", "--prefer-full"],
        booking(("0", "GPU-a"), ("2", "GPU-c"), container="run7"),
        (
            "✓ Allocated 2 GPU slot(s) to run7\nGPU_SLOTS=0,2\nDOCKER_IDS=GPU-a,GPU-c\n"
            "SLOT_COUNT=2\nGPU_EQUIV=2\n"
        ),
        {
            "read_as_wrapper": "given GPU-a,GPU-c",
            "read_as_mlc": "given - - 0,2 GPU-a,GPU-c 2",
        },
    ),
    "multi-again": (
        ["allocate-multi", "alice", "run7", "docker", "2"],
        booking(("0", "GPU-a"), ("2", "GPU-c"), container="run7", already=True, until=None),
        (
            "⚠ Container run7 already has GPU(s) 0 allocated\nGPU_SLOTS=0\nDOCKER_IDS=GPU-a\n"
            "SLOT_COUNT=1\nGPU_EQUIV=1\n"
        ),
        {"read_as_wrapper": "given GPU-a", "read_as_mlc": "other"},
    ),
    "external": (
        ["allocate-external", "alice", "docker"],
        booking(("2", "GPU-c"), container="r-0123456789ab._.1001"),
        "DOCKER_ID=GPU-c\nSTATUS=SUCCESS\n",
        {"read_as_wrapper": "given GPU-c"},
    ),
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_given(service: CannedService, name: str) -> None:
    words, answer, expected, readings = GIVEN[name]
    service.answers["Allocate"] = [answer]
    done = call(*words)
    assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0)
    for function, reading in readings.items():
        key = ["DOCKER_IDS" if words[0] == "allocate-multi" else "DOCKER_ID"]
        assert read(function, "0", expected, *key) == reading
    (asked,) = service.asked()
    assert asked["process"] is True
    assert "priority" not in asked


REFUSALS: Mapping[str, tuple[str, Json, str, str]] = {
    # kind of command: (answer, reason, what the caller makes of it)
    "allocate-limit": (
        "allocate",
        refused("USER_AT_LIMIT", "2/2"),
        "USER_AT_LIMIT (2/2)",
        "limit 2 2",
    ),
    "allocate-none": (
        "allocate",
        refused("NO_GPU_AVAILABLE", "4 slots: 4 held"),
        "No GPUs available (all allocated)",
        "no-gpu",
    ),
    "allocate-limits": (
        "allocate",
        refused("LIMITS_UNREADABLE", "limits.yaml: no YAML"),
        "INTERNAL_ERROR: limits cannot be read: limits.yaml: no YAML",
        "other",
    ),
    "allocate-theirs": (
        "allocate",
        error("NotYours", owner="bob"),
        "INTERNAL_ERROR: the container belongs to bob",
        "other",
    ),
    "allocate-full": (
        "allocate",
        refused("FULL_GPU_NOT_ALLOWED", "MIG only"),
        "FULL_GPU_NOT_ALLOWED (MIG only)",
        "no-full-gpu",
    ),
    "allocate-aggregate": (
        "allocate",
        refused("AGGREGATE_GPU_QUOTA_EXCEEDED", "2+1>2"),
        "AGGREGATE_GPU_QUOTA_EXCEEDED (2+1>2)",
        "other",
    ),
    "allocate-only-whole": (
        "allocate",
        refused("NO_GPU_AVAILABLE", "3 slots: 2 held, 1 only for users of whole GPUs"),
        "No MIG instances available (only full GPUs free, user not permitted)",
        "no-mig",
    ),
    "multi-full": (
        "multi",
        refused("FULL_GPU_NOT_ALLOWED", "only whole GPUs, and allow_full_gpu is false"),
        "QUOTA_EXCEEDED (only whole GPUs, and allow_full_gpu is false)",
        "refused only whole GPUs, and allow_full_gpu is false",
    ),
    "multi-container": (
        "multi",
        refused("EXCEEDS_CONTAINER_LIMIT", "3>2"),
        "EXCEEDS_CONTAINER_LIMIT (3>2)",
        "refused 3>2",
    ),
    "external-aggregate": (
        "external",
        refused("AGGREGATE_GPU_QUOTA_EXCEEDED", "2+1>2"),
        "AGGREGATE_GPU_QUOTA_EXCEEDED (2+1>2)",
        "refused 2+1>2",
    ),
    "multi-limit": (
        "multi",
        refused("USER_AT_LIMIT", "2/3, 2 more asked for"),
        "EXCEEDS_TOTAL_LIMIT (2+2>3)",
        "refused 2+2>3",
    ),
    "multi-none": (
        "multi",
        refused("NO_GPU_AVAILABLE", "2 asked for, 1 free"),
        "No GPUs available (all allocated)",
        "again",
    ),
    "multi-limits": (
        "multi",
        refused("LIMITS_UNREADABLE", "a (b) c"),
        "QUOTA_EXCEEDED (limits cannot be read: a [b] c)",
        "refused limits cannot be read: a [b] c",
    ),
    "multi-name": (
        "multi",
        refused("INVALID_NAME", "invalid container name 'a b'"),
        "QUOTA_EXCEEDED (INVALID_NAME [invalid container name 'a b'])",
        "refused INVALID_NAME [invalid container name 'a b']",
    ),
    "external-limit": (
        "external",
        refused("USER_AT_LIMIT", "2/2"),
        "QUOTA_EXCEEDED:2/2",
        "refused",
    ),
    "external-none": (
        "external",
        refused("NO_GPU_AVAILABLE", "4 slots"),
        "No GPUs available (all allocated)",
        "again",
    ),
    "external-inventory": (
        "external",
        refused("GPU_INVENTORY_UNKNOWN", "nvml: no answer within 5 s"),
        "INTERNAL_ERROR: GPU_INVENTORY_UNKNOWN (nvml: no answer within 5 s)",
        "again",
    ),
    "external-docker": (
        "external",
        error("Unavailable", reason="docker: USER_AT_LIMIT DOCKER_ID=GPU-1"),
        "INTERNAL_ERROR: docker: … …GPU-1",
        "again",
    ),
    "external-limits": (
        "external",
        refused("LIMITS_UNREADABLE", "no YAML"),
        "QUOTA_EXCEEDED (limits cannot be read: no YAML)",
        "refused limits cannot be read: no YAML",
    ),
    "external-other": (
        "external",
        error("NotPermitted", needs="root or group ds01-operators"),
        "QUOTA_EXCEEDED (permission denied: needs root or group ds01-operators)",
        "refused permission denied: needs root or group ds01-operators",
    ),
}
WORDS = {
    "allocate": ["allocate", "alice", "nlp._.1077", "2", "10"],
    "multi": ["allocate-multi", "alice", "run7", "docker", "2"],
    "external": ["allocate-external", "alice", "docker"],
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused(service: CannedService, name: str) -> None:
    kind, answer, reason, reading = REFUSALS[name]
    service.answers["Allocate"] = [answer]
    done = call(*WORDS[kind])
    status = "QUOTA_EXCEEDED" if reason.startswith("QUOTA_EXCEEDED") else "FAILED"
    external = f"STATUS={status}\nREASON={reason}\n"
    expected = external if kind == "external" else f"✗ Allocation failed: {reason}\n"
    assert (done.stdout, done.stderr, done.returncode) == (expected, "", 1)
    function = "read_as_mlc" if kind == "allocate" else "read_as_wrapper"
    assert read(function, "1", expected, "DOCKER_ID") == reading


@pytest.mark.parametrize(
    ("kind", "detail", "reading"),
    [
        ("allocate", "2/2", "limit 2 2"),
        ("multi", "2/3, 2 more asked for", "refused 2+2>3"),
        ("external", "2/2", "refused nlp"),
    ],
)
def test_who_is_at_the_limit_reads_what_holds_behind_the_reason(
    service: CannedService, kind: str, detail: str, reading: str
) -> None:
    answer = refused("USER_AT_LIMIT", detail)
    answer["parameters"]["held"] = "alice holds 0 (nlp), 3 (run7)"
    service.answers["Allocate"] = [answer]
    done = call(*WORDS[kind])
    assert done.stderr == "gpu_allocator_v2.py: alice holds 0 (nlp), 3 (run7)\n"
    function = "read_as_mlc" if kind == "allocate" else "read_as_wrapper"
    assert read(function, "1", done.stdout + done.stderr, "DOCKER_ID") == reading


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come back: the wrapper asks again, whatever stream it finds this in."""
    config = tmp_path / "ds01d.toml"
    config.write_text(f'[service]\nsocket = "{tmp_path}/nobody"\n', encoding="utf-8")
    monkeypatch.setenv("DS01D_CONFIG", str(config))
    for kind, words in WORDS.items():
        done = call(*words)
        assert done.returncode == 1
        assert "INTERNAL_ERROR: cannot reach ds01d" in done.stdout
        if kind != "allocate":
            assert read("read_as_wrapper", "1", done.stdout, "DOCKER_ID") == "again"
    for line in (["status"], ["user-count", "alice"], ["release", "a"]):
        failed = call(*line)
        assert (failed.stdout, failed.returncode) == ("", 1)
        assert failed.stderr.startswith("gpu_allocator_v2.py: cannot reach ds01d")


def test_a_fewer_number_of_slots_is_what_it_has(service: CannedService) -> None:
    has_one = booking(("0", "GPU-a"), container="run7", already=True, until=None)
    service.answers["Allocate"] = [refused("FEWER_SLOTS_BOOKED", "run7 holds only 0"), has_one]
    done = call(*WORDS["multi"])
    assert done.stdout.startswith("⚠ Container run7 already has GPU(s) 0 allocated\nGPU_SLOTS=0\n")
    assert [asked.get("count") for asked in service.asked()] == [2, None]


def test_the_number_of_the_call_only_lowers_the_limit(service: CannedService) -> None:
    service.answers["Allocate"] = [booking(("0", "GPU-a"))]
    for number, most in (("1", 1), ("2", 2), ("999", None), ("-5", -5)):
        call("allocate", "alice", "a", number, "10")
        assert service.asked()[-1].get("most") == most
    service.answers["Quota"] = [{"parameters": {"quota": {"max_slots": None, "max_gpus": None}}}]
    call("allocate", "alice", "a", str(10**30), "10")
    assert service.asked()[-1]["most"] == 2**31 - 1


STATUS = {
    "parameters": {
        "status": {
            "slots": [
                {"id": "0", "uuid": "GPU-a", "holders": []},
                {
                    "id": "1",
                    "uuid": "GPU-b",
                    "holders": [
                        {"container": "a", "user": "alice"},
                        {"container": "b", "user": None},
                    ],
                },
                {"id": "2", "uuid": "GPU-c", "holders": [{"container": "a", "user": "alice"}]},
                {"id": "3.0", "uuid": MIG, "holders": [{"container": "c", "user": "bob"}]},
            ]
        }
    }
}


def test_status(service: CannedService) -> None:
    service.answers["Status"] = [STATUS]
    done = run("status")
    assert done.stdout == (
        "\nGPU Status: 3/4 allocated (75.0% utilization)\n\n"
        "GPU/MIG 1:\n  UUID: GPU-b\n  Containers: a, b\n\n"
        "GPU/MIG 2:\n  UUID: GPU-c\n  Containers: a\n\n"
        f"GPU/MIG 3.0:\n  UUID: {MIG}\n  Containers: c\n\n"
    )
    assert done.returncode == 0
    assert [call("user-count", user).stdout for user in ("alice", "bob", "eve")] == [
        "1\n",
        "1\n",
        "0\n",
    ]
    service.answers["Status"] = [{"parameters": {"status": {"slots": []}}}]
    assert call("status").stdout == "\nGPU Status: 0/0 allocated (0.0% utilization)\n\n"


def test_release(service: CannedService) -> None:
    reply = {"container": "a", "slots": ["1"], "user": "alice", "warnings": ["✓ Allocated"]}
    service.answers |= {"Release": [{"parameters": reply}], "Status": [STATUS]}
    done = call("release", "a")
    assert (done.stdout, done.stderr) == ("✓ Released GPU/MIG 1 from a\n", "")
    # Its container exists: the answer is as ever, and nothing is freed.
    service.answers["Release"] = [refused("NOT_POSSIBLE", "a has 1, 2 by its own request")]
    done = call("release", "a")
    assert (done.stdout, done.returncode) == ("✓ Released GPU/MIG 1,2 from a\n", 0)
    service.answers["Release"] = [refused("NOT_ALLOCATED", "x holds no slot")]
    done = call("release", "x")
    assert (done.stdout, done.returncode) == ("✗ No GPU allocated to x\n", 0)
    service.answers["Release"] = [error("NotYours", owner="bob")]
    done = call("release", "c")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr == "gpu_allocator_v2.py: the container belongs to bob\n"


def test_nothing_is_stale_and_nothing_removed(service: CannedService) -> None:
    for words in (["release-stale"], ["release-stale", "alice"]):
        done = call(*words)
        assert (done.stdout, done.returncode) == ("✓ No stale containers found\n", 0)
        assert read("read_as_cleanup", done.stdout) == "0"
    assert service.calls == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 1),
        (["-h"], 0),
        (["allocate"], 2),
        (["allocate", "a", "b", "2.5", "1"], 2),
        (["allocate", "a", "b", "2", "x"], 2),
        (["allocate-multi", "a", "b", "c", "1.0"], 2),
        (["allocate-external", "a"], 2),
        (["mark-stopped", "a"], 2),
        (["user-count"], 2),
        (["status", "--json"], 2),
    ],
)
def test_a_wrong_call(service: CannedService, words: list[str], code: int) -> None:
    done = call(*words)
    assert done.returncode == code
    stream = done.stderr if code == 2 else done.stdout
    assert stream.startswith("usage: gpu_allocator_v2.py")
    assert (done.stdout if code == 2 else done.stderr) == ""
    assert service.calls == []


def test_nobody_gets_less_than_one(service: CannedService) -> None:
    for count in ("0", "-1"):
        done = call("allocate-multi", "alice", "x", "docker", "--", count)
        assert (done.stdout, done.returncode) == ("✗ Allocation failed: NO_GPU_AVAILABLE\n", 1)
    assert service.calls == []


def test_what_nobody_reads_is_not_reserved(service: CannedService) -> None:
    reply = {"container": "r", "slots": ["1"], "user": "alice", "warnings": []}
    service.answers |= {"Allocate": [booking(("3", GPU))], "Release": [{"parameters": reply}]}
    with Path("/dev/full").open("wb") as full:
        done = run(*WORDS["external"], stdout=full)
    assert done.returncode == 1
    assert len(service.asked("Release")) == 1


def test_the_file_says_where_it_looked(tmp_path: Path) -> None:
    copy = shutil.copy(SHIM, tmp_path / "gpu_allocator_v2.py")
    done = subprocess.run(
        [sys.executable, "-I", str(copy), "status"],
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    if not Path("/opt/ds01d/bin/ds01-allocator").exists():
        assert done.returncode == 1
        assert "ds01-allocator was not found" in done.stderr


def test_no_word_of_ours_is_a_token() -> None:
    text = "a DOCKER_ID=x AGGREGATE_GPU_QUOTA_EXCEEDED (1) ✓ Allocated\nSTATUS=SUCCESS"
    cleaned = remove_tokens(text)
    assert "\n" not in cleaned
    assert read("read_as_wrapper", "0", cleaned, "DOCKER_ID") == "again"
    assert read("read_as_mlc", "0", cleaned) == "other"
