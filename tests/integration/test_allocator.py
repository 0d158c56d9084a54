"""The allocator among real parts: NVML as it changes, the daemon's word, other users' rights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simulation.fake_engine import FakeEngine, request
from simulation.nvml import SimFault, World, prod4
from tests.support.allocator import AllocatorSite
from tests.support.daemon import ROOT, RunningDaemon
from tests.support.fixtures import NvmlWorld

BOOKED = "job._.1001"


@pytest.fixture
def site(tmp_path: Path, nvml_world: NvmlWorld) -> AllocatorSite:
    """A host with the GPUs of the sample, as NVML tells them."""
    nvml_world.set(prod4())
    return AllocatorSite(tmp_path, "v3-dcce6c2-prod4", source="nvml", env=nvml_world.env)


def allocated(site: AllocatorSite, name: str = BOOKED) -> str:
    return site.run("allocate", "alice", name, "99", "10").stdout


def other_uuids(world: World) -> World:
    """The same layout, made anew: every MIG device has another UUID."""
    gpus = [
        replace(
            gpu,
            migs=tuple(replace(mig, uuid=f"MIG-new-{gpu.minor}-{mig.index}") for mig in gpu.migs),
        )
        for gpu in world.gpus
    ]
    return replace(world, gpus=tuple(gpus))


def test_a_device_that_is_there(site: AllocatorSite) -> None:
    assert f"DOCKER_ID={site.uuid('1.0')}\n" in allocated(site)


def test_a_driver_that_is_down_is_no_reason_to_guess(
    site: AllocatorSite, nvml_world: NvmlWorld
) -> None:
    nvml_world.set(replace(prod4(), faults=(SimFault(function="nvmlInit", code=9),)))
    done = site.run("allocate", "alice", BOOKED, "2", "10")
    assert done.returncode == 0
    assert done.stdout.startswith("✗ Allocation failed: GPU_INVENTORY_UNKNOWN (NVML: ")
    assert site.bookings() == set()
    assert site.run("sync").returncode == 1
    assert site.run("status").returncode == 0


@pytest.mark.parametrize("code", [4, 6, 8, 10, 15, 19, 27, 28, 999])
@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetMigMode"]
)
def test_one_sick_gpu_is_left_out_and_the_others_are_handed_out(
    site: AllocatorSite, nvml_world: NvmlWorld, function: str, code: int
) -> None:
    before = site.gpus()
    nvml_world.set(prod4().with_fault(function, code, gpu=1))
    assert "✓ Allocated GPU/MIG 2.0" in allocated(site)
    refused = site.run("allocate", "alice", BOOKED, "9", "10", "--slot", "1.0").stdout
    assert "DOCKER_ID" not in refused
    done = site.run("sync")
    assert "not all GPUs are known: GPU 1" in done.stdout
    assert site.gpus().keys() == before.keys()


def test_a_device_whose_process_list_is_corrupt_is_not_handed_out(
    site: AllocatorSite, nvml_world: NvmlWorld
) -> None:
    lists = prod4().with_process("1.0", 0, None).with_process("1.1", 4_294_967_295, None)
    nvml_world.set(lists)
    assert "✓ Allocated GPU/MIG 1.2" in allocated(site)


def test_dead_uuids_are_not_handed_out_and_sync_refreshes_them(
    site: AllocatorSite, nvml_world: NvmlWorld
) -> None:
    allocated(site, "before._.1001")
    nvml_world.set(other_uuids(prod4()))
    said = allocated(site)
    assert "✗ Allocation failed: NO_GPU_AVAILABLE (12 slots: 12 unusable)" in said
    again = site.run("allocate", "alice", "before._.1001", "99", "10").stdout
    assert "SLOT_UNUSABLE" in again
    assert "DOCKER_ID" not in again
    done = site.run("sync")  # then it asks Docker, which is not there
    assert (done.returncode, "nothing can be proven" in done.stdout) == (1, True)
    assert site.uuid("1.1") == "MIG-new-1-1"
    assert "DOCKER_ID=MIG-new-1-1\n" in allocated(site)
    assert ("before._.1001", "1.0") in site.bookings()  # ds01d finds out what became of it


def test_sync_makes_the_first_state_of_a_new_host(site: AllocatorSite) -> None:
    site.state.unlink()
    assert site.run("allocate", "alice", BOOKED, "2", "10").returncode == 1
    site.run("sync")
    assert len(site.gpus()) == 12
    assert "✓ Allocated GPU/MIG 1.0" in allocated(site)
    site.state.unlink()
    assert "ds01d rebuilds it" in site.run("sync").stdout
    assert not site.state.exists()


def test_a_process_on_a_free_slot_keeps_it_taken(
    site: AllocatorSite, nvml_world: NvmlWorld
) -> None:
    nvml_world.set(prod4().with_process("1.0", os.getpid()))
    assert "✓ Allocated GPU/MIG 1.1" in allocated(site)


def test_reservations_keep_others_out(site: AllocatorSite) -> None:
    site.limits.write_text(
        "user_overrides: {john: {reserved_gpus: [1, 2.0], reservation_end: 2100-01-01}}\n"
        "defaults: {max_mig_instances: 3}\n"
    )
    assert "✓ Allocated GPU/MIG 2.1" in allocated(site)
    theirs = site.run("allocate", "john", "john._.1002", "9", "10").stdout
    assert "✓ Allocated GPU/MIG 1.0" in theirs
    site.limits.write_text("user_overrides: [broken\n")
    refused = site.run("allocate", "eve", "eve._.1003", "9", "10").stdout
    assert "LIMITS_UNREADABLE" in refused


# --- the daemon's word ---------------------------------------------------------------------------


def test_what_the_daemon_sees_of_others_counts_as_taken(
    tmp_path: Path, fake_engine: FakeEngine
) -> None:
    site = AllocatorSite(
        tmp_path,
        "v3-dcce6c2-prod4",
        url=fake_engine.url,
        daemon={"sweep_interval": "1s"},
        docker={"timeout": "900ms"},
        gpu={"source": "none", "timeout": "900ms"},
        policy={"creation_grace": "10m", "absence_grace": "10m"},  # no booking ends meanwhile
    )
    fake_engine.data_root = str(tmp_path)
    fake_engine.containers.add(
        "vscode", start=True, requests=[request(site.uuid("1.0"), site.uuid("1.1"))]
    )
    with RunningDaemon(site) as daemon:
        daemon.sweeps(1)
        assert "✓ Allocated GPU/MIG 1.2" in allocated(site)
        assert site.run("release-stale").stdout == "\n✓ No stale allocations found\n"
    assert "✓ Allocated GPU/MIG 1.3" in allocated(site, "later._.1001")  # Docker says so still
    fake_engine.containers.stop("vscode")
    assert "✓ Allocated GPU/MIG 1.0" in allocated(site, "last._.1001")


# --- what is stale, by the proofs of the daemon --------------------------------------------------


@pytest.fixture
def watched(tmp_path: Path, fake_engine: FakeEngine) -> AllocatorSite:
    """No daemon, short waits: a container that runs, one that is gone, and one of somebody else."""
    site = AllocatorSite(
        tmp_path,
        "v3-dcce6c2-prod4",
        url=fake_engine.url,
        policy={"settle": "50ms", "absence_grace": "100ms", "creation_grace": "1s"},
    )
    fake_engine.data_root = str(tmp_path)
    for number, (name, user) in enumerate(
        (("here._.1001", "alice"), ("gone._.1001", "alice"), ("gone._.1002", "bob"))
    ):
        site.allocator.allocate(name, user, f"1.{number}")
        path = site.metadata / f"{name}.json"
        record = json.loads(path.read_text()) | {"allocated_at": "2026-01-01T08:00:00"}
        path.write_text(json.dumps(record))
    site.allocations.unlink()
    fake_engine.containers.add("here._.1001", start=True, labels={"aime.mlc": "alice"})
    return site


def test_release_stale_proves_first_and_takes_no_more(watched: AllocatorSite) -> None:
    said = watched.run("release-stale", "alice").stdout
    assert said.startswith("\n✓ Released 1 stale GPU allocation(s):\n\n  gone._.1001: ")
    assert watched.bookings() == {("here._.1001", "1.0"), ("gone._.1002", "1.2")}
    said = watched.run("release-stale").stdout
    assert said.startswith("\n✓ Released 1 stale GPU allocation(s):\n\n  gone._.1002: ")
    assert watched.run("release-stale").stdout == "\n✓ No stale allocations found\n"
    assert watched.run("release-stale", "nobody").stdout == "\n✓ No stale allocations found\n"
    assert watched.bookings() == {("here._.1001", "1.0")}
    assert {entry["kind"] for entry in watched.history()} == {"stale-allocation"}


def test_without_docker_nothing_is_stale(watched: AllocatorSite, fake_engine: FakeEngine) -> None:
    before = watched.bookings()
    fake_engine.stop()
    done = watched.run("release-stale")
    assert done.returncode == 1
    assert "nothing can be proven: docker: " in done.stdout
    assert watched.bookings() == before


def test_release_stale_mends_nothing_else(watched: AllocatorSite, fake_engine: FakeEngine) -> None:
    def miscount(state: dict[str, Any]) -> None:
        state["gpus"]["1.0"]["users"] = {"alice": 7}

    watched.write_state(miscount)
    watched.run("release-stale")
    assert watched.users("1.0") == {"alice": 7}


def test_sync_books_what_runs(watched: AllocatorSite, fake_engine: FakeEngine) -> None:
    fake_engine.containers.add(
        "new._.1001",
        start=True,
        labels={"aime.mlc": "alice"},
        requests=[request(watched.uuid("2.0"))],
    )
    said = watched.run("sync").stdout
    assert said == "\n✓ Synced 1 container(s) with GPU allocator:\n\n  new._.1001 → GPU/MIG 2.0\n"
    assert ("new._.1001", "2.0") in watched.bookings()
    assert ("gone._.1002", "1.2") in watched.bookings()
    said = watched.run("sync").stdout
    assert said == "\n✓ All running containers already tracked (or none have GPUs)\n"


# --- who may -------------------------------------------------------------------------------------

GROUP, MEMBER, STRANGER = 54321, 54322, 54323

# Loaded before: where Python is root's own, nobody else may read it.
AS = """
import codecs, importlib, os, pkgutil, sys
import ds01d
for module in pkgutil.walk_packages(ds01d.__path__, "ds01d."):
    if not module.name.startswith(("ds01d.cli.dashboard", "ds01d.adapters.nvml")):
        importlib.import_module(module.name)
for encoding in ("utf-8-sig", "unicode_escape", "ascii"):
    codecs.lookup(encoding)
uid, gid = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([gid]); os.setgid(uid); os.setuid(uid)
os.umask(0o077)
sys.argv = ["ds01-allocator", *sys.argv[3:]]
sys.modules["ds01d.cli.allocator.main"].main()
"""


@pytest.fixture
def shared() -> Iterator[AllocatorSite]:
    """Books that belong to a group, in a place that everybody can reach."""
    if os.geteuid() != 0:
        pytest.skip("becomes other users: needs root")
    import tempfile  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="ds01-books-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        site = AllocatorSite(root, "v3-4779337-mig")
        site.run("allocate", "root", "first._.0", "9", "10")  # by root, before there was a group
        for path in (site.state.parent, site.metadata, site.allocations.parent):
            os.chown(path, 0, GROUP)
            path.chmod(0o2775)
        for path in (
            site.state,
            site.state.with_name("gpu-state.json.lock"),
            *site.metadata.iterdir(),
        ):
            os.chown(path, 0, GROUP)
            path.chmod(0o664)
        for log in (site.allocations, site.operations):
            log.unlink()
        yield site


def as_user(
    site: AllocatorSite, uid: int, gid: int, *words: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AS, str(uid), str(gid), *words],
        env=site.environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_members_of_the_group_book_and_the_files_stay_theirs(shared: AllocatorSite) -> None:
    said = as_user(shared, MEMBER, GROUP, "allocate", "alice", "a._.1001", "9", "10")
    assert said.returncode == 0, said.stdout
    assert "✓ Allocated GPU/MIG 1.1" in said.stdout
    assert "ds01-allocator:" not in said.stdout  # not one warning
    for words in (("release", "first._.0"), ("mark-stopped", "a._.1001"), ("status",)):
        assert as_user(shared, MEMBER + 10, GROUP, *words).returncode == 0
    assert shared.run("allocate", "root", "b._.0", "9", "10").returncode == 0
    assert as_user(shared, MEMBER, GROUP, "release", "b._.0").stdout.startswith("✓ Released")
    assert as_user(shared, MEMBER, GROUP, "release", "a._.1001").stdout.startswith("✓ Released")
    assert shared.run("allocate", "alice", "c._.1001", "9", "10").returncode == 0
    files = [shared.state, shared.allocations, *shared.metadata.iterdir()]
    for path in files:
        status = path.stat()
        assert (status.st_gid, status.st_mode & 0o777) == (GROUP, 0o664), path
    lock = shared.state.with_name("gpu-state.json.lock").stat()
    assert (lock.st_gid, lock.st_mode & 0o777) == (GROUP, 0o660), "it is the group's alone"
    assert shared.orphans() == set()


def test_strangers_are_told_which_group(shared: AllocatorSite) -> None:
    before = shared.bytes()
    for words in (
        ("allocate", "eve", "e._.1", "9", "10"),
        ("release", "first._.0"),
        ("mark-stopped", "first._.0"),
    ):
        said = as_user(shared, STRANGER, STRANGER, *words)
        assert said.returncode == 1
        assert f"only root and the group gid {GROUP} may change the books" in said.stdout
        assert len(said.stdout.splitlines()) == 1
    assert as_user(shared, STRANGER, STRANGER, "status").returncode == 0
    assert shared.bytes() == before
    shared.state.chmod(0o660)
    said = as_user(shared, STRANGER, STRANGER, "status")
    assert said.returncode == 1
    assert f"gid {GROUP}" in said.stdout


def test_members_leave_proofs_to_the_daemon(shared: AllocatorSite) -> None:
    """Its own files are root's; without a daemon that is alive only root can prove."""
    shared.state_dir.mkdir(exist_ok=True)
    said = as_user(shared, MEMBER, GROUP, "release-stale")
    assert said.returncode == 1
    assert "only root can do this" in said.stdout


def test_a_fresh_log_and_lock_are_the_groups(shared: AllocatorSite) -> None:
    shared.state.with_name("gpu-state.json.lock").unlink()
    shared.run("allocate", "alice", "a._.1001", "9", "10")
    lock = shared.state.with_name("gpu-state.json.lock").stat()
    assert (lock.st_gid, lock.st_mode & 0o777) == (GROUP, 0o660)
    assert as_user(shared, MEMBER, GROUP, "release", "a._.1001").returncode == 0


def test_it_loads_nothing_that_scripts_would_have_to_wait_for(tmp_path: Path) -> None:
    """How long it takes to start is measured by bench/bookings.py."""
    site = AllocatorSite(tmp_path, "v3-dcce6c2-prod4")
    loaded = site.python(
        "-c",
        "import sys; import ds01d.cli.allocator.handlers, ds01d.config_file;"
        "print([m for m in ('docker', 'click', 'rich', 'yaml', 'pynvml') if m in sys.modules])",
    )
    assert loaded.stdout == "[]\n"
    loaded = site.python(
        "-c",
        "import sys; import ds01d.cli.allocator.bookings, ds01d.service.allocator_client;"
        "print([m for m in ('msgspec', 'hashlib', 'fractions', 'pathlib') if m in sys.modules])",
    )
    assert loaded.stdout == "[]\n"
