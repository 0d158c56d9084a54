"""Messages: what is valid is understood, what is not becomes an error and nothing else."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.service.varlink import (
    MalformedMessage,
    VarlinkError,
    encode_error,
    encode_reply,
    invalid_parameter,
    parse_call,
    parse_parameters,
)


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    container: str
    count: int | None = None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)


def test_a_call_is_understood() -> None:
    call = parse_call(b'{"method": "a.b.C", "parameters": {"container": "x"}, "more": true}')
    assert (call.method, call.more, call.oneway) == ("a.b.C", True, False)
    assert parse_parameters(call, Parameters) == Parameters(container="x")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"method": 5}',
        b'{"method": "a.b", "more": "yes"}',
        b'{"method": "\xff"}',
        b"[" * 60_000,
        b'{"method": "a", "parameters": ' + b"[" * 60_000,
    ],
)
def test_what_is_no_call_is_malformed(message: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_call(message)


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [
        ('{"container": 5}', "container"),
        ('{"container": "x", "count": "many"}', "count"),
        ('{"pod": "x"}', "pod"),
        ("{}", "container"),
        ("null", "container"),
        ("[]", "parameters"),
        ('{"container": "x", "count": 1e400}', "count"),
    ],
)
def test_a_wrong_parameter_is_named(parameters: str, wrong: str) -> None:
    call = parse_call(f'{{"method": "a.b.C", "parameters": {parameters}}}'.encode())
    with pytest.raises(VarlinkError) as refused:
        parse_parameters(call, Parameters)
    assert refused.value.error == "org.varlink.service.InvalidParameter"
    assert refused.value.parameters == {"parameter": wrong}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_call_or_malformed(message: bytes) -> None:
    try:
        call = parse_call(message)
    except MalformedMessage:
        return
    assert isinstance(json.loads(message), dict)
    assert call.method


@given(JSON)
def test_any_parameters_are_understood_or_refused(parameters: object) -> None:
    call = parse_call(json.dumps({"method": "a.b.C", "parameters": parameters}).encode())
    try:
        parsed = parse_parameters(call, Parameters)
    except VarlinkError:
        return
    assert isinstance(parameters, dict)
    assert parsed.container == parameters["container"]


def test_replies_are_json_and_a_nul_byte() -> None:
    assert encode_reply({"a": 1}) == b'{"parameters":{"a":1}}\0'
    assert encode_reply({}, continues=True) == b'{"parameters":{},"continues":true}\0'
    error = json.loads(encode_error(invalid_parameter("x"))[:-1])
    assert error == {
        "error": "org.varlink.service.InvalidParameter",
        "parameters": {"parameter": "x"},
    }


def test_a_reply_with_half_a_surrogate_pair_is_a_reply_all_the_same() -> None:
    odd = "job\udc80"
    reply = json.loads(encode_reply({odd: [odd, 1, None, {"name": odd}]})[:-1])
    assert reply["parameters"] == {"job\\udc80": ["job\\udc80", 1, None, {"name": "job\\udc80"}]}
    error = VarlinkError("io.example.Odd", reason=odd)
    assert json.loads(encode_error(error)[:-1])["parameters"] == {"reason": "job\\udc80"}
