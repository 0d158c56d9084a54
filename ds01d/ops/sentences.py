"""One readable sentence for each event, for MESSAGE= and the console.

Pure text from the event's keys; says nothing that the keys do not say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ds01d.model.drift import Action
from ds01d.ops.message_ids import Event

# {key} is the key's value; [ … ] is left out unless each key in it has one.
TEMPLATES: Mapping[str, str] = {
    Event.DAEMON_START: "ds01d [{version} ]starts[ in mode {mode}][, configured by {file}]",
    Event.DAEMON_READY: "Ready[ after {seconds} s][: {status}]",
    Event.DAEMON_STOP: "Stops[: {reason}]",
    Event.DAEMON_RELOAD: "Configuration read again[ from {file}]",
    Event.CONFIG_REFUSED: "Configuration refused, the old one stays: {reason}",
    Event.CONFIG_RISK: "Risky configuration: {reason}",
    Event.PASS_FAILED: "A pass failed[ after {seconds} s]: {reason}",
    Event.PASS_SLOW: "A pass took {seconds} s[, most of it {source}]",
    Event.SOURCE_DOWN: "{source} does not answer; what needs it is left alone: {reason}",
    Event.SOURCE_UP: "{source} answers again[ after {seconds} s]",
    Event.DRIFT_FOUND: "{drift}:[ {container}][ on {slot}] found[ ({reason})]",
    Event.DRIFT_SETTLED: "{drift}:[ {container}][ on {slot}] {done}[ ({reason})]",
    Event.DRIFT_FAILED: "{drift}:[ {container}][ on {slot}] could not be settled[: {reason}]",
    Event.DRIFT_HELD: "{drift}:[ {container}][ on {slot}] waits[ for {gate}][ ({reason})]",
    Event.FINDING_NEW: "{finding}:[ {container}][ on {slot}][: {reason}]",
    Event.FINDING_GONE: "{finding}:[ {container}][ on {slot}] no more",
    Event.ENGINE_CHANGED: (
        "Another Docker engine than before; nothing is released until `ds01ctl "
        "thaw --engine`[: {reason}]"
    ),
    Event.INVENTORY_CHANGED: (
        "The GPUs have changed; releases and moves wait until they are stable[: {reason}]"
    ),
    Event.PACE_REACHED: (
        "Pace reached[ after {released} releases][: {reason}]; the rest waits. "
        "`ds01ctl freeze` stops all"
    ),
    Event.OTHER_WRITER: "Somebody else writes the books[: {reason}]",
    Event.HISTORY_FAILED: "The history cannot be written, so nothing is repaired: {reason}",
    Event.LOG_FAILED: "[{count} log entries were lost: ]{reason}",
    Event.MEMORY_LOST: "The memory is lost[: {reason}]",
    Event.PICTURE: "{subject}:[ {text}]",
    Event.LIBRARY: "{library}: {text}",
}

_DONE: Mapping[str, str] = {
    Action.RELEASE: "released",
    Action.BOOK: "booked",
    Action.MOVE: "moved",
    Action.RECOUNT: "counted again",
    Action.WRITE_METADATA: "metadata written",
    Action.REMOVE_METADATA: "metadata removed",
    Action.UPDATE_SLOT: "slot updated",
    Action.REMOVE_SLOT: "slot removed",
    Action.REBUILD: "rebuilt",
    Action.NOTHING: "nothing to do",
}

_OPTIONAL = re.compile(r"\[([^\]]*)\]")
_KEY = re.compile(r"\{(\w+)\}")


def sentence(event: str, keys: Mapping[str, str]) -> str:
    """The sentence; an event without a template is shown with its keys."""
    template = TEMPLATES.get(event)
    if template is None:
        return " ".join([event, *(f"{key}={value}" for key, value in keys.items())])
    known = {"done": _DONE.get(keys.get("action", ""), "settled"), **keys}

    def optional(part: re.Match[str]) -> str:
        return part[1] if all(known.get(key) for key in _KEY.findall(part[1])) else ""

    return _KEY.sub(lambda key: known.get(key[1]) or "?", _OPTIONAL.sub(optional, template))
