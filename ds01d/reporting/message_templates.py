"""One readable sentence for each event, for MESSAGE= and the console.

Pure text from the event's keys; says nothing that the keys do not say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ds01d.model.drift import Action
from ds01d.reporting.message_ids import Event
from ds01d.reporting.status import format_span

# {key} is the key's value, {lasted} its `seconds` for people, {done} its `action`;
# [ … ] is left out unless each key in it has one.
TEMPLATES: Mapping[str, str] = {
    Event.DAEMON_START: "ds01d [{version} ]starts[ in mode {mode}][, configured by {file}]",
    Event.DAEMON_READY: "Ready[: {status}]",
    Event.DAEMON_STOP: "Stops[: {reason}]",
    Event.DAEMON_FAILED: "ds01d cannot go on, and ends: {reason}",
    Event.DAEMON_SILENT: "The worker has made no progress for {seconds} s; systemd restarts it",
    Event.DAEMON_RELOAD: "Configuration read again[ from {file}]",
    Event.CONFIG_REFUSED: "Configuration refused, the old one stays: {reason}",
    Event.CONFIG_RISK: "Risky configuration: {reason}",
    Event.PASS_FAILED: "A pass failed, and is tried again and again: {reason}",
    Event.PASS_WORKS: "Passes work again[ after {lasted}][, {times} times in between]",
    Event.PASS_SLOW: "A pass over everything took {seconds} s",
    Event.PASS_QUICK: "Passes are quick again[ after {lasted}][, {times} times in between]",
    Event.SOURCE_DOWN: "{source} does not answer; what needs it is left alone: {reason}",
    Event.SOURCE_UP: "{source} answers again after {lasted}[, {times} times in between]",
    Event.DRIFT_FOUND: "{drift}:[ {container}][ on {slot}] found ({reason})[; waits for {gate}]",
    Event.DRIFT_BLOCKED: "{drift}:[ {container}][ on {slot}] cannot be settled for now: {reason}",
    Event.DRIFT_FAILED: (
        "[{drift}:][{count} drifts][ {container}][ on {slot}] could not be settled: {reason}"
    ),
    Event.DRIFT_SETTLED: "{drift}:[ {container}][ on {slot}] {done}[ ({reason})][ after {lasted}]",
    Event.DRIFT_GONE: "{drift}:[ {container}][ on {slot}] no more after {lasted}, without a repair",
    Event.FINDING_NEW: "{finding}:[ {container}][ on {slot}]: {reason}",
    Event.FINDING_GONE: (
        "{finding}:[ {container}][ on {slot}] no more after {lasted}[, {times} times in between]"
    ),
    Event.ENGINE_CHANGED: (
        "Another Docker engine than before; nothing is released until `ds01ctl "
        "thaw --engine`[: {reason}]"
    ),
    Event.ENGINE_TRUSTED: "The trusted Docker engine answers after {lasted}",
    Event.ENGINE_WARNING: "Docker answers, but {reason}",
    Event.ENGINE_WARNING_OVER: "No longer so after {lasted}: {reason}",
    Event.INVENTORY_CHANGED: "The GPUs have changed; releases and moves wait until they are steady",
    Event.INVENTORY_STEADY: "The GPUs are steady again after {lasted}",
    Event.PACE_REACHED: (
        "Pace reached after {released} releases, {count} more wait: {reason}. "
        "`ds01ctl freeze` stops all"
    ),
    Event.PACE_OVER: "The pace holds nothing any more after {lasted}",
    Event.FREEZE_SET: "Frozen by {by}: {subject}[ until {until}][ ({reason})]",
    Event.FREEZE_OVER: "No longer frozen: {subject}, after {lasted}",
    Event.HISTORY_FAILED: "The history cannot be written, so nothing is repaired: {reason}",
    Event.HISTORY_WORKS: "The history can be written again after {lasted}",
    Event.MEMORY_LOST: "The memory is lost: {reason}",
    Event.TROUBLE_MET: "Degraded: {reason}[; {effect}]",
    Event.TROUBLE_OVER: "Not met any more after {lasted}: {reason}",
    Event.LOG_FAILED: "{count} log entries were lost: {reason}",
    Event.BOOKING_CHANGED: (
        "{operation}: {container}[ on {slot}][ of {user}] {outcome}[, by {login}][ (uid {uid})]"
        "[, pid {pid}][, sudo by {sudo_login}][ (uid {sudo_uid})]"
    ),
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
}

_OPTIONAL = re.compile(r"\[([^\]]*)\]")
_KEY = re.compile(r"\{(\w+)\}")


def render_message(event: str, keys: Mapping[str, str]) -> str:
    """The sentence; an event without a template is shown with its keys."""
    template = TEMPLATES.get(event)
    if template is None:
        return " ".join([event, *(f"{key}={value}" for key, value in keys.items())])
    values = {
        "done": _DONE.get(keys.get("action", ""), "settled"),
        **keys,
        **_format_duration(keys),
    }

    def optional(part: re.Match[str]) -> str:
        return part[1] if all(values.get(key) for key in _KEY.findall(part[1])) else ""

    return _KEY.sub(lambda key: values.get(key[1]) or "?", _OPTIONAL.sub(optional, template))


def _format_duration(keys: Mapping[str, str]) -> dict[str, str]:
    try:
        return {"lasted": format_span(float(keys["seconds"]))}
    except (KeyError, ValueError, OverflowError):
        return {}
