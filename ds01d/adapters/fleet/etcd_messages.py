"""What goes over etcd's JSON gateway: requests as dictionaries, answers as typed values.

The gateway writes 64-bit numbers as text, keys and values in base64, and leaves out what is zero or
empty (protobuf's JSON mapping); field names are those of etcd's rpc.proto. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec

from ds01d.errors import Malformed

Form = TypeVar("Form")

# Revisions, IDs and sizes of etcd are never negative: such an answer is not of etcd.
_Number = Annotated[int, msgspec.Meta(ge=0)]

ABSENT: Final = 0
"""The revision of a key that is not there, as etcd compares it."""


class ReplyHeader(msgspec.Struct, frozen=True):
    """`revision`: of the whole store as it answered; `raft_term`: one more with each election."""

    cluster_id: _Number = 0
    revision: _Number = 0
    raft_term: _Number = 0

    @property
    def cluster(self) -> str:
        """The cluster's ID as etcdctl shows it."""
        return format(self.cluster_id, "x")


class KeyValue(msgspec.Struct, frozen=True):
    """`mod_revision`: when the key was changed last; `lease`: with which it ends, 0: with none."""

    key: bytes
    value: bytes = b""
    mod_revision: _Number = 0
    version: _Number = 0
    lease: int = 0


class RangeReply(msgspec.Struct, frozen=True):
    """`count`: of all keys in the range; `more`: there are further ones behind `kvs`."""

    header: ReplyHeader = ReplyHeader()
    kvs: tuple[KeyValue, ...] = ()
    more: bool = False
    count: _Number = 0


# Puts and deletions answer with nothing that is needed here.
class OperationReply(msgspec.Struct, frozen=True):
    response_range: RangeReply | None = None


class TxnReply(msgspec.Struct, frozen=True):
    """`succeeded`: the compares held; `responses`: one for each operation that was made."""

    header: ReplyHeader
    succeeded: bool = False
    responses: tuple[OperationReply, ...] = ()

    def find_key(self, index: int) -> KeyValue | None:
        """The key that operation `index`, a range of one key, found. Raises Malformed."""
        part = self.responses[index].response_range if index < len(self.responses) else None
        if part is None:
            raise Malformed("an answer of etcd has fewer parts than the transaction")
        return part.kvs[0] if part.kvs else None


class LeaseReply(msgspec.Struct, frozen=True, rename={"lease_id": "ID", "ttl_s": "TTL"}):
    """`ttl_s`: how many seconds are left; 0: the lease has ended."""

    header: ReplyHeader = ReplyHeader()
    lease_id: int = 0
    ttl_s: int = 0


class KeepAliveReply(msgspec.Struct, frozen=True):
    result: LeaseReply


class AuthReply(msgspec.Struct, frozen=True):
    token: str


class StatusReply(msgspec.Struct, frozen=True, rename={"size": "dbSize", "quota": "dbSizeQuota"}):
    """`version`: of the member's etcd. `leader`: 0 while there is none. Sizes are in bytes.

    `quota`: at which it takes no more writes; etcd tells it from 3.6 on, 0 before.
    """

    header: ReplyHeader
    size: _Number = 0
    quota: _Number = 0
    version: str = ""
    leader: _Number = 0
    errors: tuple[str, ...] = ()


class WatchEvent(msgspec.Struct, frozen=True):
    kv: KeyValue
    # PUT is 0 in mvccpb.Event, and the gateway leaves out what is 0.
    type: str = "PUT"


class WatchResult(msgspec.Struct, frozen=True):
    """What a watch sends at once. `created`: it stands now.

    `compact_revision`: the oldest that etcd still has, where what was asked for is gone; else 0.
    """

    header: ReplyHeader = ReplyHeader()
    created: bool = False
    canceled: bool = False
    cancel_reason: str = ""
    compact_revision: _Number = 0
    events: tuple[WatchEvent, ...] = ()


class ErrorStatus(msgspec.Struct, frozen=True):
    """gRPC's status; older gateways call the text `error`, and in streams the code `grpc_code`."""

    # Not given; 0 would be gRPC's OK.
    code: int = -1
    grpc_code: int = -1
    message: str = ""
    error: str = ""


class WatchReply(msgspec.Struct, frozen=True):
    result: WatchResult | None = None
    error: ErrorStatus | None = None


def decode_reply(body: bytes, form: type[Form]) -> Form:
    """JSON of etcd's gateway as `form`. Raises Malformed."""
    # Not strict, since 64-bit numbers come as text. Beside msgspec's own errors: JSON that is
    # nested too deep, and half a surrogate pair.
    try:
        return msgspec.json.decode(body, type=form, strict=False)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed(f"invalid answer of etcd: {error}") from error


def range_of(
    key: bytes,
    end: bytes = b"",
    *,
    limit: int = 0,
    revision: int = 0,
    changed_since: int = 0,
    keys_only: bool = False,
) -> dict[str, Any]:
    """Read `key`, or all up to `end`. Linearizable: `serializable` is left at false.

    `changed_since`: only what was changed at this revision or later; `count` is of all even so.
    """
    return {
        "key": key,
        "range_end": end,
        "limit": str(limit),
        "revision": str(revision),
        "min_mod_revision": str(changed_since),
        "keys_only": keys_only,
    }


def read_key(key: bytes) -> dict[str, Any]:
    """Reads one key, as a part of a transaction."""
    return {"request_range": {"key": key}}


def put_key(key: bytes, value: bytes, lease: int = 0) -> dict[str, Any]:
    """Writes one key, as a part of a transaction."""
    return {"request_put": {"key": key, "value": value, "lease": str(lease)}}


def delete_key(key: bytes) -> dict[str, Any]:
    """Deletes one key, as a part of a transaction."""
    return {"request_delete_range": {"key": key}}


def is_unchanged(key: bytes, revision: int) -> dict[str, Any]:
    """Compares when a key was changed last; `ABSENT`: it is not there."""
    # By revision, not by value: a value that was changed and put back is another state.
    return {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def txn(
    compares: Sequence[dict[str, Any]],
    then: Sequence[dict[str, Any]],
    otherwise: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """All of `then` in one revision if every compare holds, else `otherwise`."""
    return {"compare": list(compares), "success": list(then), "failure": list(otherwise)}


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix`, which ends with a slash."""
    # A slash has a successor, so nothing carries over as it may in clientv3.GetPrefixRangeEnd.
    return prefix[:-1] + bytes([prefix[-1] + 1])
