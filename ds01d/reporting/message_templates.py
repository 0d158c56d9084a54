"""The text of each event, for MESSAGE= and the console, rendered from the keys of the entry."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ds01d.model.drift import Action
from ds01d.reporting.message_ids import Event
from ds01d.text import format_span

_OBJECT = '[ "{container}"][ on slot {slot}]'
_DRIFT = f"{{drift}}:{_OBJECT}"
_TIMES = "[ (occurred {times} times)]"

# {key} is the key's value, {lasted} its `seconds` for people, {done} its `action`;
# [ … ] is left out unless each key in it has one.
TEMPLATES: Mapping[str, str] = {
    Event.DAEMON_START: "starting ds01d[ {version}][ in mode {mode}][ with {file}]",
    Event.DAEMON_READY: "ready[: {status}]",
    Event.DAEMON_STOP: "exiting[: {reason}]",
    Event.DAEMON_FAILED: "ds01d failed and exits: {reason}",
    Event.DAEMON_STALLED: "the worker made no progress for {seconds} s; systemd restarts ds01d",
    Event.DAEMON_RELOAD: "configuration reloaded[ from {file}]",
    Event.CONFIG_REFUSED: "configuration rejected, the previous one stays in force: {reason}",
    Event.CONFIG_RISK: "risky configuration: {reason}",
    Event.PASS_FAILED: "pass failed, retrying: {reason}",
    Event.PASS_WORKS: f"passes succeed again[ after {{lasted}}]{_TIMES}",
    Event.PASS_SLOW: "slow sweep: took {seconds} s",
    Event.PASS_QUICK: f"sweeps are fast again[ after {{lasted}}]{_TIMES}",
    Event.SOURCE_DOWN: "{source} unavailable: {reason}; nothing that depends on it is changed",
    Event.SOURCE_UP: f"{{source}} available again after {{lasted}}{_TIMES}",
    Event.DRIFT_FOUND: f"{_DRIFT} found ({{reason}})[; waiting for {{gate}}]",
    Event.DRIFT_BLOCKED: f"{_DRIFT} cannot be repaired: {{reason}}",
    Event.DRIFT_FAILED: f"[{{drift}}:][{{count}} drifts:]{_OBJECT} repair failed: {{reason}}",
    Event.DRIFT_SETTLED: f"{_DRIFT} {{done}}[ ({{reason}})][ after {{lasted}}]",
    Event.DRIFT_GONE: f"{_DRIFT} gone after {{lasted}} without a repair",
    Event.FINDING_NEW: f"{{finding}}{_OBJECT}: {{reason}}",
    Event.FINDING_GONE: f"{{finding}}{_OBJECT}: gone after {{lasted}}{_TIMES}",
    Event.ENGINE_CHANGED: (
        "another Docker engine answers, nothing is released[: {reason}]; "
        "fix: ds01ctl thaw --engine, if the change is intended"
    ),
    Event.ENGINE_TRUSTED: "the trusted Docker engine answers again after {lasted}",
    Event.ENGINE_WARNING: "Docker is available, but {reason}",
    Event.ENGINE_WARNING_OVER: "no longer after {lasted}: {reason}",
    Event.INVENTORY_CHANGED: "the GPUs changed; releases and moves wait until they are stable",
    Event.INVENTORY_STEADY: "the GPUs are stable again after {lasted}",
    Event.PACE_REACHED: (
        "pace reached after {released} releases, {count} more wait: {reason}; "
        "to stop all repairs: ds01ctl freeze"
    ),
    Event.PACE_OVER: "no release waits for the pace any more, after {lasted}",
    Event.FREEZE_SET: "frozen by {by}: {subject}[ until {until}][ ({reason})]",
    Event.FREEZE_OVER: "no longer frozen: {subject}, after {lasted}",
    Event.HISTORY_FAILED: "cannot write the history, nothing is repaired: {reason}",
    Event.HISTORY_WORKS: "the history can be written again after {lasted}",
    Event.CHECKPOINT_LOST: "checkpoint lost: {reason}",
    Event.DEGRADED_BEGIN: "degraded: {reason}[; {effect}]",
    Event.DEGRADED_OVER: "no longer degraded after {lasted}: {reason}",
    Event.SERVICE_FAILED: "booking service: {reason}",
    Event.LOG_FAILED: "{count} log entries lost: {reason}",
    Event.BOOKING_CHANGED: (
        "{operation}: {container}[ on {slot}][ of {user}] {outcome}[, by {login}][ (uid {uid})]"
        "[, pid {pid}][, sudo by {sudo_login}][ (uid {sudo_uid})]"
    ),
    Event.FLEET_JOINED: "this host takes part in its fleet",
    Event.FLEET_FENCED: "this host changes nothing in the store of its fleet: {reason}",
    Event.FLEET_RESTORED: "the store of the fleet was put back: {reason}",
    Event.FLEET_REPAIRED: (
        '{drift}: "{container}"[ of {user}] repaired in the store of the fleet ({reason})'
    ),
    Event.FLEET_FINDING: "{finding}: {subject}: {reason}",
    Event.STATUS_DUMP: "{subject}:[ {text}]",
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
    """The text of an entry; of an event without a template its name and keys."""
    # A new event without a template must still say what it knows.
    template = TEMPLATES.get(event)
    if template is None:
        return " ".join([event, *(f"{key}={value}" for key, value in keys.items())])
    values = {
        "done": _DONE.get(keys.get("action", ""), "repaired"),
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
