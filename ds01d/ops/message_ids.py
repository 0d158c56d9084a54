"""Every event of the log: its name, its priority, its MESSAGE_ID in the journal.

Names and ids are promises to whoever filters by them (`journalctl MESSAGE_ID=…`): they never change
and are never used again for something else. No sentences here, no output.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from ds01d.model.drift import Kind
from ds01d.model.facts import Word


class Priority(IntEnum):
    """syslog's priorities, as far as they are used."""

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
    DAEMON_RELOAD = "daemon.reload"
    CONFIG_REFUSED = "config.refused"
    CONFIG_RISK = "config.risk"
    PASS_FAILED = "pass.failed"  # noqa: S105 - a pass, no password
    PASS_SLOW = "pass.slow"  # noqa: S105 - a pass, no password
    SOURCE_DOWN = "source.down"
    SOURCE_UP = "source.up"
    DRIFT_FOUND = "drift.found"
    DRIFT_SETTLED = "drift.settled"
    DRIFT_FAILED = "drift.failed"
    DRIFT_HELD = "drift.held"
    FINDING_NEW = "finding.new"
    FINDING_GONE = "finding.gone"
    ENGINE_CHANGED = "engine.changed"
    INVENTORY_CHANGED = "inventory.changed"
    PACE_REACHED = "pace.reached"
    OTHER_WRITER = "other-writer"
    HISTORY_FAILED = "history.failed"
    LOG_FAILED = "log.failed"
    MEMORY_LOST = "memory.lost"
    PICTURE = "picture"
    LIBRARY = "library.message"


# What is not here has the priority of the call that logs it.
PRIORITIES: Mapping[str, Priority] = {
    Event.CONFIG_REFUSED: Priority.ERR,
    Event.CONFIG_RISK: Priority.WARNING,
    Event.PASS_FAILED: Priority.ERR,
    Event.SOURCE_DOWN: Priority.WARNING,
    Event.DRIFT_SETTLED: Priority.NOTICE,
    Event.DRIFT_FAILED: Priority.ERR,
    Event.FINDING_NEW: Priority.WARNING,
    Event.ENGINE_CHANGED: Priority.ERR,
    Event.PACE_REACHED: Priority.ERR,
    Event.OTHER_WRITER: Priority.WARNING,
    Event.HISTORY_FAILED: Priority.ERR,
    Event.LOG_FAILED: Priority.WARNING,
    Event.MEMORY_LOST: Priority.WARNING,
}

EVENT_IDS: Mapping[str, str] = {
    Event.DAEMON_START: "cdf5f69c555b4622b5b190b0dae36277",
    Event.DAEMON_READY: "c816c9e524174ca3969a86c15c9342d0",
    Event.DAEMON_STOP: "19c42a36aea34230b037c78095688c89",
    Event.DAEMON_RELOAD: "27455aa3dd4040a39c944b159d2766f1",
    Event.CONFIG_REFUSED: "2efe160bfcda440ab89d9b3e58c41981",
    Event.CONFIG_RISK: "caf1dcb89dcf4470b7de3997f7c431b2",
    Event.PASS_FAILED: "275f4538fb3d470ca43459ea0fe3fb35",
    Event.PASS_SLOW: "1e0ad7ba2af34d9d9a76aee1390c3f3f",
    Event.SOURCE_DOWN: "03ee29b91d30403e974f3f5ca8cd92e8",
    Event.SOURCE_UP: "c4140cb6298d4012aa94be7c994596fc",
    Event.DRIFT_FOUND: "094db8c037c6477a8e016d87d095c536",
    Event.DRIFT_SETTLED: "3efcee366abc4e2089a5597f773a99be",
    Event.DRIFT_FAILED: "7166d29db1d54d25aa57376b4867ea5a",
    Event.DRIFT_HELD: "8672d56ea96f41aab01558ef31bf6adb",
    Event.FINDING_NEW: "5de734ce334c4bb09987d213a6bd3850",
    Event.FINDING_GONE: "70c526cafce74cbbbe86f55c80088edf",
    Event.ENGINE_CHANGED: "c834507c9ef346d49453d5a25a479b63",
    Event.INVENTORY_CHANGED: "cc5e04677c2d459a8bc07182304b4ac1",
    Event.PACE_REACHED: "91647882da96456581f8ef7b4b6435c4",
    Event.OTHER_WRITER: "992228d4a15b4daf8c08bebf416efc93",
    Event.HISTORY_FAILED: "5f7b316bb91c4c4ab40d85b947cd9531",
    Event.LOG_FAILED: "f2a9b93984df4f7d9c40da64ddfad314",
    Event.MEMORY_LOST: "3ae4503cb8c64ae3901f27e83fae4d7a",
    Event.PICTURE: "fa1f91df1c4a4b48b0ea47f97dd9705f",
    Event.LIBRARY: "87c1136c715549e9813625597dffcc89",
}

# A drift's event carries the id of its kind; DS01_EVENT tells found, settled, failed or held.
KIND_IDS: Mapping[str, str] = {
    Kind.STALE_ALLOCATION: "4873d1b6cdee4d49a23cbe6334b3916e",
    Kind.EXPIRED_HOLD: "da4a4165eb1b46648ee43b17313311cf",
    Kind.ORPHANED_METADATA: "742f320b562b434a90b464ce4539dcb5",
    Kind.MISSING_METADATA: "7d78b2da891340ad8ddb5f8e413cc0e4",
    Kind.WRONG_METADATA: "136ed80bc1ca412faa25cc1898b220d6",
    Kind.UNTRACKED_CONTAINER: "ecfed192154041228513addf754d7fd0",
    Kind.LOST_ALLOCATION: "43738004410d4cab950d0b504ac30e1e",
    Kind.WRONG_SLOT: "a744a1a2079f4497a0e75db191a578dd",
    Kind.DUPLICATE_ALLOCATION: "692d12b3f61144b1af0627cad1ba982e",
    Kind.WRONG_COUNT: "af90f03a85d941a4936d92ec70f92a8a",
    Kind.RENAMED_CONTAINER: "d26b9f59dbdf42218379330c436c3c5a",
    Kind.STALE_SLOT: "b395ba46e1bb4210ad0d57bab76a44c7",
    Kind.VANISHED_SLOT: "9feee6c08d754213baa6b97ee24630ff",
    Kind.UNREADABLE_STATE: "04c00a2e2430470a994151c79af32ed0",
    Kind.UNREADABLE_METADATA: "5e76a7c0b4bc441b9410a92672d1835f",
}
