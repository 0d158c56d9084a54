"""What is fuzzed: each parser of what others write, with the errors that it may raise.

A target takes bytes and returns, or raises one of its errors, which has to say something in one
line. Whatever else comes out of it is a finding. Where a parser has a writer, what was understood
has to survive being written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, cast

import msgspec

from ds01d.adapters.books import (
    group_members,
    limits_rules,
    limits_sections,
    metadata_format,
    operations_format,
    state_format,
)
from ds01d.adapters.books.limits_layers import parse_layer
from ds01d.adapters.books.strict_yaml import read_yaml
from ds01d.adapters.docker import cache_file, listing, parsing
from ds01d.adapters.host import dpkg, image_catalogue, owners_file
from ds01d.adapters.host.processes import Processes
from ds01d.adapters.host.reserving_processes import ReservingProcesses
from ds01d.adapters.nvml import xid_journal
from ds01d.config_checks import describe_risks
from ds01d.config_file import parse_config
from ds01d.errors import Ds01Error
from ds01d.model.checkpoint import Checkpoint, DriftFirstSeen
from ds01d.model.containers import Request
from ds01d.model.drift import DriftKey
from ds01d.model.history import BooksState, Entry, Phase
from ds01d.model.primitives import Boot, ContainerName, SlotId, UserName, Wall
from ds01d.model.reservation import ReservingProcess, parse_booking_id
from ds01d.reconcile import history
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.ports import StateDir
from ds01d.service import (
    booking_messages,
    container_parameters,
    operations_calls,
    quota_calls,
    report_calls,
    varlink,
)
from tests.verification.fuzz import fleet_targets

ROOT: Final = Path(__file__).parents[3]
DATA: Final = ROOT / "tests" / "data"
CORPUS: Final = DATA / "corpus"

_NAME: Final = ContainerName("box._.1001")
_LISTED: Final = listing.ClockReading(wall=Wall(1.8e9), boot=Boot(1000.0))
_CGROUPS: Final = (
    b"0::/system.slice/docker-" + b"ab" * 32 + b".scope\n",
    b"12:devices:/docker/" + b"cd" * 32 + b"\n1:name=systemd:/docker/" + b"cd" * 32 + b"/init\n",
    b"0::/kubepods.slice/cri-containerd-" + b"ef" * 32 + b".scope (deleted)\n",
    b"0::/user.slice/user-1001.slice/session-3.scope\n",
)
_LOG: Final = (
    b"2026-03-01 10:00:00|create_start|ann|box._.1001|1.2|started|details\n",
    b"2026-03-01 10:00:00|create_failed|ann|a\\x7cb\\n|N/A|failed|no | more",
)
_XID: Final = (
    b"NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus.",
    b"NVRM: Xid (PCI:0000:3b:00.0): 13, Graphics Exception",
)
_CALLS: Final = (
    b'{"method":"io.github.ds01.Containers.Create","parameters":{"name":"a","framework":"b"}}',
    b'{"method":"io.github.ds01.Containers.Create","parameters":{"name":"a","slots":["1.2"]}}',
    b'{"method":"io.github.ds01.Containers.Stop","parameters":{"name":"a","kill_after_s":9}}',
    b'{"method":"io.github.ds01.Containers.Remove","parameters":{"name":"a","force":true}}',
    b'{"method":"io.github.ds01.Containers.List","parameters":{"all":true}}',
    b'{"method":"io.github.ds01.Containers.Enter","parameters":{"name":"a","command":["b"]}}',
    b'{"method":"io.github.ds01.Containers.Logs","parameters":{"name":"a","tail":9}}',
    b'{"method":"io.github.ds01.Booking.Allocate","parameters":{"container":"a","most":2}}',
    b'{"method":"io.github.ds01.Booking.Allocate","parameters":{"count":2,"profile":"1g.10gb"}}',
    b'{"method":"io.github.ds01.Booking.Allocate","parameters":{"reason":"a course","wait":true}}',
    b'{"method":"io.github.ds01.Booking.Allocate","parameters":{"process":true,"user":"a"}}',
    b'{"method":"io.github.ds01.Booking.Release","parameters":{"id":"r-0123456789ab"}}',
    b'{"method":"io.github.ds01.Booking.Status","more":true}',
    b'{"method":"io.github.ds01.Booking.Explain","parameters":{"subject":"a._.1001"}}',
    b'{"method":"io.github.ds01.Booking.Reconcile","parameters":{"wait":true,"timeout_s":1.5}}',
    b'{"method":"io.github.ds01.Booking.Freeze","parameters":{"subject":"1.2","reason":"a fan"}}',
    b'{"method":"io.github.ds01.Booking.Thaw","parameters":{"engine":false}}',
    b'{"method":"io.github.ds01.Booking.Undo","parameters":{"entry":"x","dry_run":null}}',
    b'{"method":"org.varlink.service.GetInfo","parameters":{},"oneway":true}',
)
_PARAMETERS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "Allocate": booking_messages.AllocateParameters,
    "Release": booking_messages.ReleaseParameters,
    "Explain": operations_calls.SubjectParameters,
    "Reconcile": operations_calls.ReconcileParameters,
    "Freeze": operations_calls.FreezeParameters,
    "Thaw": operations_calls.ThawParameters,
    "Undo": operations_calls.UndoParameters,
    "Report": report_calls.ReportParameters,
    "Create": container_parameters.CreateParameters,
    "Start": container_parameters.NameParameters,
    "Stop": container_parameters.StopParameters,
    "Remove": container_parameters.RemoveParameters,
    "List": container_parameters.ListParameters,
    "Enter": container_parameters.EnterParameters,
    "Resize": container_parameters.ResizeParameters,
    "InspectSession": container_parameters.SessionParameters,
    "Logs": container_parameters.LogsParameters,
}
_OWNERS: Final = (
    b'{"containers": {"%s": {"owner": "alice", "owner_uid": 1001, "name": "x"}}}' % (b"ab" * 32),
)
_DPKG: Final = (b"cuda-cudart-12-4\t12.4.127-1\ncuda-toolkit-12-4\t\n",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parser: `parse` raises only `Ds01Error`s on purpose; `seeds`: what it is made for."""

    name: str
    parse: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]

    def try_(self, data: bytes) -> None:
        """Parse; an error of ours is an answer if it says something that fits one log line."""
        said = self._error(data)
        assert said is None or said.strip(), "an error without a word"
        assert said is None or said.isascii() or said.encode().decode() == said

    def _error(self, data: bytes) -> str | None:
        try:
            self.parse(data)
        except Ds01Error as error:
            return str(error)
        return None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _state(data: bytes) -> None:
    state = state_format.parse_state(data, "gpu-state.json")
    assert state_format.render_state(data, state) == data
    fresh = state_format.render_state(None, state)
    again = state_format.parse_state(fresh, "gpu-state.json")
    assert {name: slot.containers for name, slot in again.slots.items()} == {
        name: slot.containers for name, slot in state.slots.items()
    }


def _metadata(data: bytes) -> None:
    record = metadata_format.parse_record(data, _NAME)
    again = metadata_format.parse_record(metadata_format.render_record(data, record), _NAME)
    assert (again.user, again.gpu_id, again.allocated_at, again.stopped_at) == (
        record.user,
        record.gpu_id,
        record.allocated_at,
        record.stopped_at,
    )


def _operations(data: bytes) -> None:
    for text in _text(data).splitlines():
        line = operations_format.parse_line(text)
        if line is not None:
            written = operations_format.format_line(line)
            assert written.isprintable()
            assert operations_format.parse_line(written) == line


def _limits(data: bytes) -> None:
    members, _ = group_members.parse_members(data)
    assignments, _ = group_members.parse_assignments(data)
    raw = read_yaml(data, "resource-limits.yaml")
    if not isinstance(raw, dict):
        return
    beside = limits_sections.SideFiles(
        members={"group": members},
        overrides=raw,
        assignments=assignments,
        exemptions=parse_layer(raw, "", ("exemptions",), "lifecycle-exemptions.yaml"),
    )
    for side in (limits_sections.NO_SIDE_FILES, beside):
        found = limits_rules.resolve_limits(raw, "resource-limits.yaml", side)
        for user in map(UserName, ("ann", "box", *members[:1])):
            rule, quota = found.find_hold(user), found.find_gpu_quota(user)
            assert rule.seconds is None or rule.seconds >= 0
            assert quota is None or all((part or 0) >= 0 for part in (quota.gpus, quota.aggregate))
            found.find_lifecycle(user)


def _configuration(data: bytes) -> None:
    describe_risks(parse_config(_text(data), origin="ds01d.toml"))


def _frameworks(data: bytes) -> None:
    image_catalogue.parse_catalogue(_text(data), origin="frameworks.toml")


def _inspect(data: bytes) -> None:
    container = parsing.read_container(data, default_runtime="runc")
    restored = cache_file.decode_cache(cache_file.encode_cache(_LISTED, [container]))
    assert restored is not None
    if isinstance(container.request, Request):
        assert restored[1][container.id].to_container(container.labels) == container


def _events(data: bytes) -> None:
    for line in data.splitlines():
        parsing.read_event(line)


def _cgroup(data: bytes) -> None:
    """The files of a process, as they would stand in /proc: cgroup, stat and status."""
    folder = _process_folder()
    cgroup, _, rest = data.partition(b"\0")
    stat, _, status = rest.partition(b"\0")
    for name, content in (("cgroup", cgroup), ("stat", stat), ("status", status)):
        (folder / "7" / name).write_bytes(content or _PROCESS[name])
    found = Processes(proc=folder).look_up([7])
    assert set(found) <= {7}
    assert all(process.command.isprintable() for process in found.values())
    reserving = ReservingProcesses(Processes(proc=folder))
    asker = reserving.find_asker(7, 1001)
    assert not isinstance(asker, ReservingProcess) or asker.command.isprintable()
    reserving.find_states([ReservingProcess(pid=7, started=12345, boot_id="boot")])


_PROCESS: Final[Mapping[str, bytes]] = {
    "cgroup": b"0::/docker/" + b"ab" * 32,
    "stat": b"7 (py) S 0 " + b"1 " * 17 + b"12345 0 0\n",
    "status": b"Uid:\t1001\t1001\n",
    "cmdline": b"sh\0-c\0true\0",
}


@cache
def _process_folder() -> Path:
    folder = Path(_kept_until_exit().name)
    (folder / "sys/kernel/random").mkdir(parents=True)
    (folder / "sys/kernel/random/boot_id").write_text("boot")
    for pid in ("1", "7"):
        (folder / pid).mkdir()
        for name, content in _PROCESS.items():
            (folder / pid / name).write_bytes(content)
    return folder


@cache
def _kept_until_exit() -> tempfile.TemporaryDirectory[str]:
    shm = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="ds01d-fuzz-", dir=shm if shm.is_dir() else None)


class _OneMemory:
    """A state directory in which nothing but a memory lies."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def load_checkpoint(self) -> bytes:
        return self.data

    def save_checkpoint(self, data: bytes) -> None:
        self.data = data


def _list(data: bytes) -> None:
    parsing.read_rows(data)


def _memory(data: bytes) -> None:
    folder = _OneMemory(data)
    memory, trouble = CheckpointStore(cast("StateDir", folder)).load()
    if not trouble:
        store = CheckpointStore(cast("StateDir", folder))
        store.save(memory)
        assert store.load() == (memory, "")


def _history(data: bytes) -> None:
    for entry in history.read_entries(data.splitlines()):
        sorted(entry.names)


def _kernel(data: bytes) -> None:
    found = xid_journal.parse_xid(_text(data))
    assert found is None or (found[0] and found[1].isprintable())


def _packages(data: bytes) -> None:
    dpkg.parse_packages(_text(data), origin="dpkg-query")


def _owners(data: bytes) -> None:
    owners = owners_file.parse_owners(data)
    assert all(len(container) == 64 and owner for container, owner in owners.items())


def _varlink(data: bytes) -> None:
    """A message to the booking service: a call whose parameters are understood, or an error."""
    call = varlink.parse_call(data)
    kind = _PARAMETERS.get(call.method.rpartition(".")[2], quota_calls.UserParameters)
    found = varlink.parse_parameters(call, kind)
    if isinstance(found, booking_messages.AllocateParameters):
        assert 1 <= (found.count or 1) <= 1024
        assert len(found.reason or "") <= 256
    if isinstance(found, container_parameters.CreateParameters):
        assert 0 <= (found.gpus or 0) <= 64
        assert len(found.slots) <= 64
        assert len(found.name) <= 256
    if isinstance(found, container_parameters.StopParameters):
        assert 0 <= (found.kill_after_s or 0) <= 3600
    if isinstance(found, booking_messages.ReleaseParameters):
        assert parse_booking_id(found.id) in (None, found.id)
    if isinstance(found, report_calls.ReportParameters):
        query = report_calls.build_query(found, Wall(1e9))
        assert 0 <= query.since <= query.until
        assert 1 <= (query.most or 0) <= 1000
    assert varlink.encode_reply(found).count(varlink.END) == 1


def _files(pattern: str) -> Callable[[], Iterator[bytes]]:
    return lambda: (path.read_bytes() for path in sorted(ROOT.glob(pattern)))


def _lines(pattern: str) -> Callable[[], Iterator[bytes]]:
    return lambda: (
        line for path in sorted(ROOT.glob(pattern)) for line in path.read_bytes().splitlines()
    )


def _remembered() -> Iterator[bytes]:
    store = CheckpointStore(cast("StateDir", folder := _OneMemory(b"")))
    store.save(
        Checkpoint(
            boot_id="b",
            sightings={
                DriftKey("k", ContainerName("a"), SlotId("1")): DriftFirstSeen(
                    first=Boot(1.0), fingerprint="f"
                )
            },
        )
    )
    yield folder.data


def _listed() -> Iterator[bytes]:
    for body in _files("tests/data/docker-inspect-*.json")():
        told = msgspec.json.decode(body)
        for one in told if isinstance(told, list) else [told]:
            row = {
                "Id": one["Id"],
                "Names": [one["Name"]],
                "State": one["State"]["Status"],
                "Status": "Created",
                "Labels": one["Config"]["Labels"],
                "Created": 1_800_000_000,
            }
            yield msgspec.json.encode([row])


def _inspected() -> Iterator[bytes]:
    for body in _files("tests/data/docker-inspect-*.json")():
        told = msgspec.json.decode(body)
        for one in told if isinstance(told, list) else [told]:
            yield msgspec.json.encode(one)


def _entered() -> Iterator[bytes]:
    yield msgspec.json.encode(
        Entry(
            id="1-0",
            at="2026-03-01T10:00:00.000+00:00",
            phase=Phase.BEGIN,
            container="box",
            before=BooksState(slots={"1.2": None}, metadata={"box": "{}"}),
        )
    )


def _recorded() -> Iterator[bytes]:
    for path in sorted(ROOT.glob("tests/data/states/*/lib/container-metadata/*.json")):
        yield path.read_bytes().replace(path.stem.encode(), _NAME.encode())


def _given(*seeds: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter(seeds)


_STATES: Final = "tests/data/states/*/lib/gpu-state.json"

TARGETS: Final = {
    target.name: target
    for target in (
        Target(name="state", parse=_state, seeds=_files(_STATES)),
        Target(name="metadata", parse=_metadata, seeds=_recorded),
        Target(name="operations-log", parse=_operations, seeds=_given(*_LOG)),
        Target(name="limits", parse=_limits, seeds=_files("tests/data/resource-limits.yaml")),
        Target(name="configuration", parse=_configuration, seeds=_files("etc/ds01d.toml")),
        Target(name="frameworks", parse=_frameworks, seeds=_files("etc/frameworks.toml")),
        Target(name="events", parse=_events, seeds=_lines("tests/data/docker-events-*.jsonl")),
        Target(name="list", parse=_list, seeds=_listed),
        Target(name="inspect", parse=_inspect, seeds=_inspected),
        Target(name="cgroup", parse=_cgroup, seeds=_given(*_CGROUPS)),
        Target(name="memory", parse=_memory, seeds=_remembered),
        Target(name="history", parse=_history, seeds=_entered),
        Target(name="kernel-log", parse=_kernel, seeds=_given(*_XID)),
        Target(name="varlink", parse=_varlink, seeds=_given(*_CALLS)),
        Target(name="owners", parse=_owners, seeds=_given(*_OWNERS)),
        Target(name="packages", parse=_packages, seeds=_given(*_DPKG)),
        Target(
            name="fleet-store",
            parse=fleet_targets.parse_store_key,
            seeds=_given(*fleet_targets.KEYS),
        ),
        Target(
            name="fleet-replies",
            parse=fleet_targets.parse_replies,
            seeds=_given(*fleet_targets.REPLIES),
        ),
    )
}
