"""What is fuzzed of a fleet's store: keys and values that any host may write, and answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ds01d.adapters.fleet import book_format, book_keys
from ds01d.adapters.fleet.etcd_messages import (
    ErrorStatus,
    KeepAliveReply,
    KeyValue,
    RangeReply,
    StatusReply,
    TxnReply,
    WatchReply,
    decode_reply,
)
from ds01d.adapters.fleet.stored_values import parse_key
from ds01d.errors import Malformed
from ds01d.model.fleet_books import FleetEntry, NameEntry, NodeIdentity

KEYS: Final = (
    (
        b'/ds01/v1/users/alice/held/n1/b1\n{"v":1,"phase":"held","container":"a._.1001","count":1,'
        b'"sevenths":7,"slots":["1.2"],"since":1700000000.5,"team":{"x":[1]}}'
    ),
    b'/ds01/v1/users/a%2Fb/fence\n{"v":1}',
    b'/ds01/v1/names/a._.1001\n{"v":1,"node":"n1","booking":"b1"}',
    (
        b'/ds01/v1/nodes/n1/identity\n{"v":1,"host":"gpu01","incarnation":3,"boot_id":"b",'
        b'"engine_id":"e","version":"1","protocols":[1],"limits_digest":"d","nonce":"n"}'
    ),
    b'/ds01/v1/nodes/n1/alive\n{"v":1}',
    b'/ds01/v1/summary/n1\n{"v":1,"free":{"1g.10gb":2}}',
    b'/ds01/v1/fleet\n{"v":1,"name":"lab"}',
)
"""A key, and its value behind the first line."""

_HEADER: Final = b'"header":{"cluster_id":"17","member_id":"18","revision":"9","raft_term":"2"}'
_KEY: Final = (
    b'{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"1","value":"Yg=="}'
)
REPLIES: Final = (
    b"{" + _HEADER + b',"kvs":[' + _KEY + b'],"more":true,"count":"7"}',
    b"{" + _HEADER + b',"succeeded":true,"responses":[{"response_put":{"header":{}}}]}',
    b"{" + _HEADER + b',"responses":[{"response_range":{"kvs":[' + _KEY + b"]}}]}",
    b'{"result":{' + _HEADER + b',"created":true,"events":[{"type":"DELETE","kv":' + _KEY + b"}]}}",
    b'{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}',
    b'{"error":"etcdserver: permission denied","code":7,"message":"etcdserver: permission denied"}',
    b'{"result":{"ID":"7587","TTL":"30"}}',
    b"{" + _HEADER + b',"version":"3.5.16","leader":"18","errors":["NOSPACE"]}',
)

_FORMS: Final = (
    RangeReply,
    TxnReply,
    WatchReply,
    KeepAliveReply,
    StatusReply,
    ErrorStatus,
)


def parse_store_key(data: bytes) -> None:
    """Whatever a key has, something is known of it; and what is understood is written the same."""
    key, _, value = data.partition(b"\n")
    parsed = parse_key(KeyValue(key=key, value=value))
    match parsed:
        case FleetEntry():
            assert book_keys.held_key(parsed) == key
            again = book_format.parse_entry(
                parsed.user, parsed.node, parsed.booking, book_format.encode_entry(parsed)
            )
            assert again == replace(parsed)
        case NameEntry() if parsed.node:
            assert book_keys.name_key(parsed.container) == key
            assert book_format.parse_name(
                parsed.container, book_format.encode_name(parsed)
            ) == replace(parsed)
        case NodeIdentity():
            assert book_keys.identity_key(parsed.node) == key
            again_identity = book_format.parse_identity(
                parsed.node, book_format.encode_identity(parsed)
            )
            assert again_identity == replace(parsed)
        case _:
            pass


def parse_replies(data: bytes) -> None:
    """An answer of etcd is understood as one of those that are asked for, or is malformed."""
    problems = [problem for form in _FORMS if (problem := _find_problem(data, form)) is not None]
    if len(problems) == len(_FORMS):
        raise problems[0]


def _find_problem(data: bytes, form: type[object]) -> Malformed | None:
    try:
        decode_reply(data, form)
    except Malformed as error:
        return error
    return None
