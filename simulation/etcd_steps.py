"""What a request to etcd's gateway does to the keys of a fleet, as far as faults go by it."""

import base64
import enum
import json
from typing import Any


class Step(enum.Enum):
    """What a request does, by the keys that it reads and changes."""

    READ = "read what a user has"
    LOOK = "read one entry or name"
    CONTENTS = "read everything"
    RESERVE = "reserve an entry"
    CONFIRM = "make an entry held"
    REPORT = "report an entry"
    WITHDRAW = "withdraw an entry"
    IDENTITY = "take an identity"
    WATCH = "watch"
    OTHER = "anything else"


def read_step(path: str, body: bytes) -> Step:
    """What a request of the gateway does."""
    if path.endswith("/watch"):
        return Step.WATCH
    try:
        message = json.loads(body or b"{}")
        if path.endswith("/kv/range"):
            return _read_range([message])
        if path.endswith("/kv/txn"):
            return _read_transaction(message)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return Step.OTHER


def _read_range(ranges: list[dict[str, Any]]) -> Step:
    keys = {_text(one["key"]): "range_end" in one for one in ranges}
    if any(not is_long and ("/held/" in key or "/names/" in key) for key, is_long in keys.items()):
        return Step.LOOK
    if any("/users/" in key for key in keys):
        return Step.READ
    return Step.CONTENTS if any(key.endswith("/v1/") for key in keys) else Step.OTHER


def _read_transaction(message: dict[str, Any]) -> Step:
    operations: list[dict[str, Any]] = message.get("success") or []
    puts = {
        _text(one["request_put"]["key"]): one["request_put"]
        for one in operations
        if "request_put" in one
    }
    deletes = [
        _text(one["request_delete_range"]["key"])
        for one in operations
        if "request_delete_range" in one
    ]
    if any("/held/" in key or "/names/" in key for key in deletes):
        return Step.WITHDRAW
    for key, put in puts.items():
        if "/held/" in key:
            if json.loads(_text(put["value"])).get("phase") == "reserved":
                return Step.RESERVE
            return Step.REPORT if any(one.endswith("/fence") for one in puts) else Step.CONFIRM
        if key.endswith("/identity"):
            return Step.IDENTITY
    ranges = [one["request_range"] for one in operations if "request_range" in one]
    return _read_range(ranges) if ranges and not puts else Step.OTHER


def _text(value: str) -> str:
    return base64.b64decode(value).decode("utf-8", errors="replace")
