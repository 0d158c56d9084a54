"""Every message of the log: its name, its MESSAGE_ID in the journal, its priority, its keys.

MESSAGE_IDs never change and are never reused: people filter by them (`journalctl MESSAGE_ID=…`).
The message catalog, `systemd/ds01d.catalog`, explains each one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from ds01d.model.containers import EngineWarningKind
from ds01d.model.drift import Action, FindingKind, Kind
from ds01d.model.primitives import Source, Word


class Priority(IntEnum):
    """The priorities of syslog that are used.

    ERR: ds01d does not work, or hardware fails. WARNING: needs attention soon. NOTICE: a change,
    or the end of a problem. INFO: details.
    """

    ERR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


class Event(Word):
    """What can be logged."""

    DAEMON_START = "daemon.start"
    DAEMON_READY = "daemon.ready"
    DAEMON_STOP = "daemon.stop"
    DAEMON_FAILED = "daemon.failed"
    DAEMON_STALLED = "daemon.stalled"
    DAEMON_RELOAD = "daemon.reload"
    CONFIG_REFUSED = "config.refused"
    CONFIG_RISK = "config.risk"
    PASS_FAILED = "pass.failed"  # noqa: S105 - a pass, no password
    PASS_WORKS = "pass.works"  # noqa: S105 - a pass, no password
    PASS_SLOW = "pass.slow"  # noqa: S105 - a pass, no password
    PASS_QUICK = "pass.quick"  # noqa: S105 - a pass, no password
    SOURCE_DOWN = "source.down"
    SOURCE_UP = "source.up"
    DRIFT_FOUND = "drift.found"
    DRIFT_BLOCKED = "drift.blocked"
    DRIFT_FAILED = "drift.failed"
    DRIFT_SETTLED = "drift.settled"
    DRIFT_GONE = "drift.gone"
    FINDING_NEW = "finding.new"
    FINDING_GONE = "finding.gone"
    ENGINE_CHANGED = "engine.changed"
    ENGINE_TRUSTED = "engine.trusted"
    ENGINE_WARNING = "engine.warning"
    ENGINE_WARNING_OVER = "engine.warning-over"
    INVENTORY_CHANGED = "inventory.changed"
    INVENTORY_STEADY = "inventory.steady"
    PACE_REACHED = "pace.reached"
    PACE_OVER = "pace.over"
    FREEZE_SET = "freeze.set"
    FREEZE_OVER = "freeze.over"
    HISTORY_FAILED = "history.failed"
    HISTORY_WORKS = "history.works"
    CHECKPOINT_LOST = "checkpoint.lost"
    DEGRADED_BEGIN = "degraded.begin"
    DEGRADED_OVER = "degraded.over"
    SERVICE_FAILED = "service.failed"
    LOG_FAILED = "log.failed"
    BOOKING_CHANGED = "booking.changed"
    FLEET_JOINED = "fleet.joined"
    FLEET_FENCED = "fleet.fenced"
    FLEET_RESTORED = "fleet.restored"
    FLEET_REPAIRED = "fleet.repaired"
    FLEET_FINDING = "fleet.finding"
    STATUS_DUMP = "status.dump"
    LIBRARY = "library.message"


class Message(NamedTuple):
    """A MESSAGE_ID and a priority; None: that of the logging call."""

    id: str
    priority: Priority | None


# Where an event has a message for each word of one of its keys, that key.
VARIANT_KEYS: Final[Mapping[str, str]] = {
    Event.SOURCE_DOWN: "source",
    Event.DRIFT_FOUND: "drift",
    Event.DRIFT_SETTLED: "action",
    Event.FINDING_NEW: "finding",
    Event.ENGINE_WARNING: "warning",
    Event.BOOKING_CHANGED: "operation",
}

_E, _W, _N, _I = Priority.ERR, Priority.WARNING, Priority.NOTICE, Priority.INFO

_OF_EVENTS: Mapping[Event, Message] = {
    Event.DAEMON_START: Message("cdf5f69c555b4622b5b190b0dae36277", _I),
    Event.DAEMON_READY: Message("c816c9e524174ca3969a86c15c9342d0", _I),
    Event.DAEMON_STOP: Message("19c42a36aea34230b037c78095688c89", _I),
    Event.DAEMON_FAILED: Message("bf94e02b4e694efe8cb14e148327a772", _E),
    Event.DAEMON_STALLED: Message("0c0e1c09c338453baf992b4774a5f2c7", _E),
    Event.DAEMON_RELOAD: Message("27455aa3dd4040a39c944b159d2766f1", _I),
    Event.CONFIG_REFUSED: Message("2efe160bfcda440ab89d9b3e58c41981", _E),
    Event.CONFIG_RISK: Message("caf1dcb89dcf4470b7de3997f7c431b2", _W),
    Event.PASS_FAILED: Message("275f4538fb3d470ca43459ea0fe3fb35", _E),
    Event.PASS_WORKS: Message("e1cfb85fabae415f9670f75dccb50abc", _N),
    Event.PASS_SLOW: Message("1e0ad7ba2af34d9d9a76aee1390c3f3f", _W),
    Event.PASS_QUICK: Message("0f97ad87c4a94d15afaa5651c3243440", _N),
    Event.SOURCE_UP: Message("c4140cb6298d4012aa94be7c994596fc", _N),
    Event.DRIFT_BLOCKED: Message("8672d56ea96f41aab01558ef31bf6adb", _W),
    Event.DRIFT_FAILED: Message("7166d29db1d54d25aa57376b4867ea5a", _E),
    Event.DRIFT_GONE: Message("62eca65a85414a9dbfdfeecb87b8b8f0", _N),
    Event.FINDING_GONE: Message("70c526cafce74cbbbe86f55c80088edf", _N),
    Event.ENGINE_CHANGED: Message("c834507c9ef346d49453d5a25a479b63", _E),
    Event.ENGINE_TRUSTED: Message("1b2a06abf9db4a628d35fadb1c48cfdc", _N),
    Event.ENGINE_WARNING_OVER: Message("da79cd1f0ab14e41ad070e827ef32743", _N),
    Event.INVENTORY_CHANGED: Message("cc5e04677c2d459a8bc07182304b4ac1", _W),
    Event.INVENTORY_STEADY: Message("de692c1aec334608b64e2154788ac40a", _N),
    Event.PACE_REACHED: Message("91647882da96456581f8ef7b4b6435c4", _E),
    Event.PACE_OVER: Message("045563fbae004109a902e4e3c3a04401", _N),
    Event.FREEZE_SET: Message("30cff550db3f446c9ae1237a9ac4caff", _N),
    Event.FREEZE_OVER: Message("bdb5f2adfc7a4da98406427c4580b675", _N),
    Event.HISTORY_FAILED: Message("5f7b316bb91c4c4ab40d85b947cd9531", _E),
    Event.HISTORY_WORKS: Message("482a711ad4044caeaebe70a117a4a0e8", _N),
    Event.CHECKPOINT_LOST: Message("3ae4503cb8c64ae3901f27e83fae4d7a", _W),
    Event.DEGRADED_BEGIN: Message("9a90322583604a88874e3b179d7b73cd", _W),
    Event.DEGRADED_OVER: Message("0b670b2a011244609ef2067309846a8d", _N),
    Event.SERVICE_FAILED: Message("8cc27f0723ae4412b2aa191fe1514d95", _E),
    Event.LOG_FAILED: Message("f2a9b93984df4f7d9c40da64ddfad314", _W),
    Event.FLEET_JOINED: Message("4c0d8c61d9e24e3e8208f5ff1485497d", _N),
    Event.FLEET_FENCED: Message("0c7d40a4de414d18919b29ed0354ac12", _W),
    Event.FLEET_RESTORED: Message("07c68c7584b942769bf3d16a219c1bbf", _W),
    Event.FLEET_REPAIRED: Message("179437580a41499e9e0ca8d6f3b81117", _I),
    Event.FLEET_FINDING: Message("ca8c256e6e3a401f9112f8f0bdaec054", _W),
    Event.STATUS_DUMP: Message("fa1f91df1c4a4b48b0ea47f97dd9705f", _I),
    Event.LIBRARY: Message("87c1136c715549e9813625597dffcc89", None),
}

_OF_SOURCES: Mapping[Source, Message] = {
    Source.DOCKER: Message("03ee29b91d30403e974f3f5ca8cd92e8", _W),
    Source.NVML: Message("33a8ed76c7164d159164133148f8fb6d", _W),
    Source.STATE: Message("e97b7812c56240119acad5ebbc4211ef", _W),
    Source.METADATA: Message("6f072e7120034790b33c602ba3fcf576", _W),
    Source.OPERATIONS: Message("ed59e76a35804ca5ad9bf1c8634e9ffa", _W),
    Source.LIMITS: Message("ca72bb1496e146f9a8c1f659035fab4b", _W),
    Source.FLEET: Message("221c837cb3b643afb93ac43e533b99f4", _W),
}

_OF_KINDS: Mapping[Kind, Message] = {
    Kind.STALE_ALLOCATION: Message("4873d1b6cdee4d49a23cbe6334b3916e", _I),
    Kind.EXPIRED_HOLD: Message("da4a4165eb1b46648ee43b17313311cf", _I),
    Kind.ORPHANED_METADATA: Message("742f320b562b434a90b464ce4539dcb5", _I),
    Kind.MISSING_METADATA: Message("7d78b2da891340ad8ddb5f8e413cc0e4", _I),
    Kind.WRONG_METADATA: Message("136ed80bc1ca412faa25cc1898b220d6", _I),
    Kind.UNTRACKED_CONTAINER: Message("ecfed192154041228513addf754d7fd0", _I),
    Kind.LOST_ALLOCATION: Message("43738004410d4cab950d0b504ac30e1e", _I),
    Kind.WRONG_SLOT: Message("a744a1a2079f4497a0e75db191a578dd", _I),
    Kind.DUPLICATE_ALLOCATION: Message("692d12b3f61144b1af0627cad1ba982e", _I),
    Kind.WRONG_COUNT: Message("af90f03a85d941a4936d92ec70f92a8a", _I),
    Kind.RENAMED_CONTAINER: Message("d26b9f59dbdf42218379330c436c3c5a", _I),
    Kind.STALE_SLOT: Message("b395ba46e1bb4210ad0d57bab76a44c7", _I),
    Kind.VANISHED_SLOT: Message("9feee6c08d754213baa6b97ee24630ff", _I),
    Kind.UNREADABLE_STATE: Message("04c00a2e2430470a994151c79af32ed0", _W),
    Kind.UNREADABLE_METADATA: Message("5e76a7c0b4bc441b9410a92672d1835f", _W),
}

# Action.NOTHING repairs nothing, so it has no message.
_OF_ACTIONS: Mapping[Action, Message] = {
    Action.RELEASE: Message("844505aab568408baeee959496321cad", _N),
    Action.BOOK: Message("1089cea6d42b41a49c9f2b855c4f4181", _N),
    Action.MOVE: Message("9902a88fb2ff4439ba7f0028d89ef7a1", _N),
    Action.RECOUNT: Message("958ad8076093475bbd40ff50f744a770", _I),
    Action.WRITE_METADATA: Message("b6158298b87645e09248474b2ffb29ff", _I),
    Action.REMOVE_METADATA: Message("c950b2e1352b46be992508e875bb4c7f", _I),
    Action.UPDATE_SLOT: Message("2112ed4790114c67926eeff9702c29c4", _N),
    Action.REMOVE_SLOT: Message("8dd072403109490bade6a04a0d5ffb53", _N),
    Action.REBUILD: Message("b047dd16adb84cd6bd7332613e761ea0", _W),
}

_OF_FINDINGS: Mapping[FindingKind, Message] = {
    FindingKind.SHARED_SLOT: Message("af6dcc6ebd3e40cb8dadfc3322999e7a", _N),
    FindingKind.ROGUE_PROCESS: Message("1020add3a92943abbeb4ec501a8159ae", _W),
    FindingKind.FOREIGN_USE: Message("814242520d8a4257a9212d83656e5b22", _N),
    FindingKind.BROAD_REQUEST: Message("10d6bfcaa3b844008e4f0a8ddbc7d01c", _N),
    FindingKind.BOOKING_WITHOUT_DEVICE: Message("b47f2e85454b484f90d640ff82f3c4e5", _W),
    FindingKind.DEVICE_WITHOUT_SLOT: Message("6c12e97a79034e119cdcc21f35fe1217", _W),
    FindingKind.NOT_ADOPTED: Message("9935cb33fc4e463c944cb66506df7c0b", _W),
    FindingKind.LABEL_CONTRADICTION: Message("e5e9b22b5a0143bc8acf812cf6613a40", _N),
    FindingKind.UNHEALTHY_GPU: Message("b53b3a8aa1cd4214a669bd51d894ab52", _E),
    FindingKind.OTHER_WRITER: Message("992228d4a15b4daf8c08bebf416efc93", _W),
    FindingKind.UNCLEAR_LIMITS: Message("7da01bd156484dbd90b6391ea71589ba", _W),
    FindingKind.UNCLEAR_REQUEST: Message("3f0c6c1d8f5e4a27b1c98d2e6a7f4b90", _W),
    FindingKind.LONG_NAME: Message("1576e1933ba24d72ad9007512d10fd4f", _N),
    FindingKind.STUCK_REMOVAL: Message("cf71f87e8d9f45a3972c6cbc302b8bc4", _W),
    FindingKind.OVERDUE_HOLD: Message("6e0d4c1f2b7a4f54a9c3e8d1705b9a26", _N),
    FindingKind.IDLE_HOLDER: Message("1592eda482a14e91846138a4ea26a591", _N),
    FindingKind.DEVICE_LOST: Message("b30fc946b83445278d02c32e894712f9", _W),
}

_OF_WARNINGS: Mapping[EngineWarningKind, Message] = {
    EngineWarningKind.STREAM_CUT: Message("9638ce13673d46158328188d0d6a9f08", _W),
    EngineWarningKind.STREAM_REFUSED: Message("5a7adbeb5a0943029c0d81960ad2eda6", _W),
    EngineWarningKind.STREAM_LOSSY: Message("0b230b1bfc774b9889bdc99b8bb01cb2", _W),
    EngineWarningKind.NO_LASTING_ID: Message("86188011986048dcb532f87417330f81", _N),
}

# Changes of the books by commands, which are lines of the operations log, too.
_OF_OPERATIONS: Mapping[str, Message] = {
    "allocate": Message("878cc2151b4b4f8ca4325b95904e17f1", _I),
    "release": Message("92407f88ebef40468f76cd67c922524d", _I),
    "mark-stopped": Message("f299758a9aec434aa1e6c063e6e9bc7f", _I),
    "freeze": Message("a4a75b6d5575496ea5dd433deebef132", _I),
    "thaw": Message("76bc45887a01416780e6ae7e0b8801c3", _I),
    "undo": Message("4c0e46e370bc460aba561f00df994097", _I),
}

MESSAGES: Final[Mapping[tuple[str, str], Message]] = {
    **{(event, ""): entry for event, entry in _OF_EVENTS.items()},
    **{(Event.SOURCE_DOWN, word): entry for word, entry in _OF_SOURCES.items()},
    **{(Event.DRIFT_FOUND, word): entry for word, entry in _OF_KINDS.items()},
    **{(Event.DRIFT_SETTLED, word): entry for word, entry in _OF_ACTIONS.items()},
    **{(Event.FINDING_NEW, word): entry for word, entry in _OF_FINDINGS.items()},
    **{(Event.ENGINE_WARNING, word): entry for word, entry in _OF_WARNINGS.items()},
    **{(Event.BOOKING_CHANGED, word): entry for word, entry in _OF_OPERATIONS.items()},
}
"""(event, word) → message; the word is "" where the event alone is the message."""


def find_message(event: str, keys: Mapping[str, str]) -> Message | None:
    """The message that an entry is; None for an event that is not in the catalogue."""
    return MESSAGES.get((event, keys.get(VARIANT_KEYS.get(event, ""), "")))
