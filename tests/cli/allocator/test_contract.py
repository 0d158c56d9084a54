"""Every recorded call of the old allocator, made again: the same bytes, lines, books and log.

The books before the first call of a sample are those it leaves behind, with nobody in them.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simulation.nvml import SimGpu, World
from tests.support.allocator import DATA, AllocatorSite
from tests.support.fixtures import NvmlWorld

STATES = DATA / "states"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}")
REPLAYED = (
    "drift-seed",
    "v1-3ce8a4f-mig",
    "v2-a2a2ae8-mig-enabled",
    "v3-4779337-mig",
    "v3-dcce6c2-prod4",
    "v3-dcce6c2-shared",
)


@dataclass(frozen=True)
class Recorded:
    """A call of a sample and what it printed."""

    words: tuple[str, ...]
    printed: str
    code: int


def recorded(sample: str) -> list[Recorded]:
    """The calls of a sample that end with a code; what an old version told of MIG is left out."""
    text = (STATES / sample / "stdout.txt").read_text(encoding="utf-8")
    found = re.findall(
        r"^\$ gpu_allocator\.py (.*?)\n(.*?)^\[exit (\d+)\]\n", text, re.MULTILINE | re.DOTALL
    )
    return [Recorded(tuple(shlex.split(call)), out, int(code)) for call, out, code in found]


def without_changes(printed: str) -> str:
    """Without the notice on a change of the GPUs, which nothing reads any more."""
    return re.sub(r"\n=+\nGPU Configuration Change.*=\n\n(?=✓)", "", printed, flags=re.DOTALL)


def without_device(printed: str) -> str:
    """Without the line that the oldest versions did not print yet."""
    return re.sub(r"^DOCKER_ID=.*\n", "", printed, flags=re.MULTILINE)


def books(folder: Path) -> dict[str, Any]:
    """State and metadata; times, and the IDs that ds01d adds, are not compared."""
    found: dict[str, Any] = {"state": (folder / "gpu-state.json").read_text()}
    for path in (folder / "container-metadata").iterdir():
        text = TIME.sub("TIME", path.read_text())
        found[path.name] = re.sub(r',\n  "booking_id": "r-[0-9a-f]{12}"', "", text)
    return found


def log(path: Path) -> list[str]:
    """Its lines; that a slot is shared is told in more words than before."""
    text = re.sub(
        r"; no slot was free: .*$", "", TIME.sub("TIME", path.read_text()), flags=re.MULTILINE
    )
    lines = text.splitlines()
    return [line for line in lines if "|CONFIG_CHANGE|" not in line]


@pytest.mark.parametrize("sample", REPLAYED)
def test_a_sample_replayed_gives_the_same_bytes_books_and_log(
    sample: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = AllocatorSite(tmp_path, sample)
    calls = recorded(sample)
    assert calls
    prints_devices = "DOCKER_ID=" in "".join(call.printed for call in calls)
    for call in calls:
        printed, code = site.here(capsys, *call.words)
        wanted = without_changes(call.printed)
        assert (printed if prints_devices else without_device(printed)) == wanted, call.words
        assert code == call.code
    assert books(site.state.parent) == books(STATES / sample / "lib")
    assert log(site.allocations) == log(STATES / sample / "log" / "gpu-allocations.log")


@pytest.mark.parametrize("sample", ["v3-4779337-full"])
def test_whole_gpus_show_what_nvml_tells_of_them(
    sample: str, tmp_path: Path, nvml_world: NvmlWorld
) -> None:
    """Through the simulated NVML, and as scripts see it: one stream."""
    mib = 1 << 20
    nvml_world.set(
        World(
            gpus=tuple(
                SimGpu(
                    uuid=f"GPU-{index}",
                    minor=index,
                    pci_bus=0x10 + index,
                    mig=None,
                    memory=40 << 30,
                    used=used * mib,
                )
                for index, used in enumerate((4, 51))
            )
        )
    )
    site = AllocatorSite(tmp_path, sample, source="nvml", env=nvml_world.env)
    for call in recorded(sample):
        done = site.run(*call.words)
        assert without_device(done.stdout) == without_changes(call.printed)
        assert done.returncode == call.code
    assert books(site.state.parent) == books(STATES / sample / "lib")


def test_what_is_left_of_a_changed_layout_is_shown_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = STATES / "v3-full-to-mig"
    site = AllocatorSite(tmp_path, "v3-full-to-mig", empty=False)
    shown = (sample / "stdout.txt").read_text().partition("\nGPU Status (MIG ENABLED)")
    printed, _ = site.here(capsys, "status")
    assert printed.rstrip("\n") == (shown[1] + shown[2]).rstrip("\n")


# --- the lines of the contract, with the greps of those who call ---------------------------------


@pytest.fixture
def site(tmp_path: Path) -> AllocatorSite:
    return AllocatorSite(tmp_path, "v3-4779337-mig")


def grep(expression: str, text: str) -> list[str]:
    """As `grep -oP` does, line by line."""
    done = subprocess.run(
        ["grep", "-oP", expression], input=text, capture_output=True, text=True, check=False
    )
    return done.stdout.splitlines()


def test_wrappers_find_the_slot_and_the_device(site: AllocatorSite) -> None:
    said = site.run("allocate", "alice", "a._.1001", "2", "10").stdout
    assert grep("✓ Allocated", said)
    assert grep(r"(?<=GPU/MIG )\S+(?= to)", said) == ["1.0"]
    assert grep(r"^DOCKER_ID=\K.*", said) == [site.gpus()["1.0"]["docker_id"]]
    again = site.run("allocate", "alice", "a._.1001", "2", "10")
    assert again.returncode == 0
    assert again.stdout == (
        "⚠ Container a._.1001 already has GPU/MIG 1.0 allocated\n"
        f"DOCKER_ID={site.gpus()['1.0']['docker_id']}\n"
    )
    assert not grep("✓ Allocated", again.stdout)
    assert grep(r"^\s+- \K.*", site.run("status").stdout) == ["a._.1001"]


def test_refusals_are_answers(site: AllocatorSite, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a._.1001", "b._.1001"):
        site.here(capsys, "allocate", "alice", name, "2", "10")
    for words, told in (
        (("allocate", "alice", "c._.1001", "2", "10"), "✗ Allocation failed: USER_AT_LIMIT (2/2)"),
        (("release", "nobody._.1"), "✗ No GPU allocated to nobody._.1"),
        (("mark-stopped", "nobody._.1"), "✗ No metadata found for nobody._.1"),
        (("user-count", "nobody"), "0"),
        (("user-status", "nobody"), "\nnobody: 0 GPU/MIG instances across 0 containers\n"),
    ):
        assert site.here(capsys, *words) == (f"{told}\n", 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "missing command (see --help)"),
        (("bogus",), "unknown command 'bogus'"),
        (("allocate", "alice"), "allocate USER CONTAINER MAX_GPUS PRIORITY"),
        (("allocate", "alice", "a._.1001", "two", "10"), "invalid 'two'; expected a whole number"),
        (
            ("allocate", "alice", "../../etc/passwd", "2", "10"),
            "invalid container name '../../etc/passwd'",
        ),
        (("allocate", "ali\nce", "a._.1001", "2", "10"), "invalid user name 'ali\\nce'"),
        (("release",), "release CONTAINER"),
        (("status", "--fix"), "unknown option --fix"),
        (("--config",), "--config needs a file"),
        (("--config", "/nowhere.toml", "status"), "/nowhere.toml: no such file"),
    ],
)
def test_a_wrong_call_is_a_fault(
    site: AllocatorSite, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    before = site.bytes()
    printed, code = site.here(capsys, *words)
    assert code == 1
    assert "\n" not in printed.rstrip("\n")
    assert printed.startswith("ds01-allocator: ")
    assert told in printed
    assert site.bytes() == before


def test_books_that_cannot_be_read_are_a_fault_and_stay(
    site: AllocatorSite, capsys: pytest.CaptureFixture[str]
) -> None:
    site.state.write_text("{broken", encoding="utf-8")
    for words in (("status",), ("allocate", "alice", "a._.1001", "2", "10"), ("release", "a")):
        printed, code = site.here(capsys, *words)
        assert code == 1
        assert "invalid JSON" in printed
    assert site.state.read_text() == "{broken"


def test_status_writes_nothing(site: AllocatorSite, capsys: pytest.CaptureFixture[str]) -> None:
    def files() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_ino)
            for path in site.folder.rglob("*")
        }

    before = files()
    for words in (("status",), ("user-status", "alice"), ("user-count", "alice")):
        assert site.here(capsys, *words)[1] == 0
    assert files() == before


def test_a_log_that_cannot_be_written_is_one_line_beside_the_booking(site: AllocatorSite) -> None:
    site.allocations.unlink(missing_ok=True)
    site.allocations.mkdir()
    done = site.run("allocate", "alice", "a._.1001", "2", "10", merged=False)
    assert done.returncode == 0
    assert done.stdout.startswith("✓ Allocated GPU/MIG 1.0 to a._.1001\n")
    assert len(done.stderr.splitlines()) == 1
    assert site.gpus()["1.0"]["containers"] == ["a._.1001"]
    assert site.run("release", "a._.1001", merged=False).stdout == (
        "✓ Released GPU/MIG 1.0 from a._.1001\n"
    )


def test_a_second_stop_does_not_start_the_hold_again(
    site: AllocatorSite, capsys: pytest.CaptureFixture[str]
) -> None:
    site.here(capsys, "allocate", "alice", "a._.1001", "2", "10")
    said = {site.here(capsys, "mark-stopped", "a._.1001")[0] for _ in range(2)}
    assert said == {"✓ Marked a._.1001 as stopped (GPU 1.0 hold timer started)\n"}
    first = site.metadata_of()["a._.1001"]["stopped_at"]
    site.here(capsys, "mark-stopped", "a._.1001")
    assert site.metadata_of()["a._.1001"]["stopped_at"] == first
    assert len([line for line in log(site.allocations) if "MARKED_STOPPED" in line]) == 1


def test_the_lock_is_waited_for_a_bounded_time_and_its_holder_is_named(
    site: AllocatorSite,
) -> None:
    site.configure(books={"lock_timeout": "200ms"})
    lock = site.state.with_name("gpu-state.json.lock")
    lock.touch()
    holder = subprocess.Popen(
        ["flock", str(lock), "sh", "-c", "echo held; read _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    with holder, holder.stdout:
        assert holder.stdout.readline() == b"held\n"
        done = site.run("allocate", "alice", "a._.1001", "2", "10")
        assert done.returncode == 1
        assert "was not free within 0.2 s: held by pid" in done.stdout
        assert "flock" in done.stdout
        assert site.run("status").returncode == 0  # it needs none
        holder.communicate(b"\n")
    assert site.run("allocate", "alice", "a._.1001", "2", "10").returncode == 0


def test_a_late_writer_without_the_lock_loses_nothing(site: AllocatorSite) -> None:
    """What it writes lands in the file that we replaced meanwhile; the next of us takes it over."""
    with site.state.open("r+", encoding="utf-8") as late:
        state = json.load(late)
        site.run("allocate", "alice", "a._.1001", "2", "10")
        state["gpus"]["1.0"].update(containers=["late._.1009"], users={"lea": 1})
        late.seek(0)
        late.truncate()
        json.dump(state, late, indent=2)
    site.run("allocate", "alice", "b._.1001", "2", "10")
    assert site.bookings() == {("a._.1001", "1.0"), ("late._.1009", "1.0"), ("b._.1001", "1.1")}
    assert site.users("1.0") == {"alice": 1, "lea": 1}


# --- the same, imported or run by path -----------------------------------------------------------


@pytest.fixture
def shim(site: AllocatorSite, tmp_path: Path) -> Path:
    """gpu_allocator.py, where somebody put it."""
    beside = tmp_path / "scripts" / "gpu_allocator.py"
    beside.parent.mkdir()
    shutil.copy(Path(__file__).parents[3] / "share" / "gpu_allocator.py", beside)
    site.env["DS01_ALLOCATOR"] = str(site.command(tmp_path / "ds01-allocator"))
    return beside


def test_the_shim_runs_by_path(site: AllocatorSite, shim: Path) -> None:
    done = site.python(str(shim), "allocate", "alice", "a._.1001", "2", "10")
    assert done.stdout.startswith("✓ Allocated GPU/MIG 1.0 to a._.1001\n")
    assert site.python(str(shim), "status").stdout == site.run("status").stdout
    assert site.python(str(shim), "bogus").returncode == 1


def test_the_shim_is_imported_by_path(site: AllocatorSite, shim: Path) -> None:
    program = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("gpu_allocator", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
manager = module.GPUAllocationManager()
said = [manager.allocate_gpu("alice", "a._.1001", 1, 10)]
said += [manager.allocate_gpu("alice", "a._.1001", 1, 10)]
said += [manager.allocate_gpu("alice", "b._.1001", 1, 10)]
said += [manager.get_status(), manager.get_user_gpu_count("alice"), manager.get_docker_id("1.0")]
said += [manager.mark_stopped("a._.1001"), manager.release_gpu("a._.1001")]
said += [manager.release_gpu("a._.1001")]
print(json.dumps(said))
"""
    # Isolated: no environment of ds01d is needed by whoever imports it.
    done = site.python("-I", "-c", program, str(shim))
    assert done.returncode == 0, done.stdout
    first, again, refused, status, count, device, marked, released, nothing = json.loads(
        done.stdout
    )
    assert first == ["1.0", "SUCCESS"]
    assert again == ["1.0", "ALREADY_ALLOCATED"]
    assert refused == [None, "USER_AT_LIMIT (1/1)"]
    assert (count, device) == (1, site.gpus()["1.0"]["uuid"])
    assert (marked, released) == (["1.0", "SUCCESS"], ["1.0", "SUCCESS"])
    assert nothing == [None, "NOT_ALLOCATED"]
    assert {key: status[key] for key in status if key != "gpus"} == {
        "total_gpus": 4,
        "total_allocated_containers": 1,
        "mig_enabled": True,
    }
    assert status["gpus"][0] == {
        "id": "1.0",
        "type": "mig_instance",
        "physical_gpu": "1",
        "profile": "1g.10gb",
        "uuid": device,
        "device_id": "0",
        "container_count": 1,
        "containers": ["a._.1001"],
        "users": {"alice": 1},
        "utilization": 0,
        "memory_used": 0,
        "memory_total": 0,
        "memory_percent": 0,
        "reserved": False,
        "reserved_for": None,
        "reserved_until": None,
    }


def test_the_shim_says_where_it_looked(tmp_path: Path) -> None:
    shim = Path(__file__).parents[3] / "share" / "gpu_allocator.py"
    copy = shutil.copy(shim, tmp_path / "gpu_allocator.py")
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
