"""Varlink messages: one JSON object each, ended by a NUL byte (https://varlink.org/Wire-Protocol).

Pure. What a peer sends is hostile: every message has a size limit, unknown parameters are refused,
and whatever is invalid becomes the standard's own error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from ds01d.errors import Ds01Error

END: Final = b"\0"
STANDARD_INTERFACE: Final = "org.varlink.service"

P = TypeVar("P", bound=msgspec.Struct)


class VarlinkError(Ds01Error):
    """An error reply: `error` is its full name, `parameters` say which and why."""

    def __init__(self, error: str, **parameters: object) -> None:
        details = ", ".join(f"{name} {value}" for name, value in parameters.items())
        super().__init__(f"{error.rpartition('.')[2]}: {details}" if details else error)
        self.error = error
        self.parameters = parameters


class MalformedMessage(Ds01Error):
    """Bytes that are no Varlink message: nothing can be answered, the connection is closed."""


def invalid_parameter(parameter: str) -> VarlinkError:
    """The error for a parameter that is missing, unknown, or has another type."""
    return VarlinkError(f"{STANDARD_INTERFACE}.InvalidParameter", parameter=parameter)


def method_not_found(method: str) -> VarlinkError:
    return VarlinkError(f"{STANDARD_INTERFACE}.MethodNotFound", method=method)


def interface_not_found(interface: str) -> VarlinkError:
    return VarlinkError(f"{STANDARD_INTERFACE}.InterfaceNotFound", interface=interface)


def expected_more() -> VarlinkError:
    """The error for a call that gives several replies and was made for one."""
    return VarlinkError(f"{STANDARD_INTERFACE}.ExpectedMore")


class MethodCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call, its parameters not yet parsed.

    `oneway`: wants no reply. `more`: takes several. `upgrade`: wants another protocol afterwards.
    """

    method: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    oneway: bool = False
    more: bool = False
    upgrade: bool = False


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a call; by itself of one without any."""


_CALLS: Final = msgspec.json.Decoder(MethodCall)
_ENCODER: Final = msgspec.json.Encoder()


def parse_call(message: bytes) -> MethodCall:
    """Parse a message without its NUL byte. Raises `MalformedMessage`."""
    try:
        return _CALLS.decode(message)
    # UnicodeDecodeError is a ValueError; RecursionError comes of deep nesting.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MalformedMessage(f"not a Varlink call: {error}") from error


def parse_parameters(call: MethodCall, kind: type[P]) -> P:
    """Parse the parameters of a call. Raises `VarlinkError` (InvalidParameter)."""
    raw = bytes(call.parameters)
    try:
        # Parameters are optional, and null is how some encoders write what is not given.
        return msgspec.json.decode(b"{}" if raw == b"null" else raw, type=kind)
    except msgspec.ValidationError as error:
        raise invalid_parameter(_find_parameter(str(error))) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise invalid_parameter("parameters") from error


def encode_reply(parameters: object, *, continues: bool = False) -> bytes:
    """A reply with its NUL byte; `continues`: more replies to the same call follow."""
    reply: dict[str, object] = {"parameters": parameters}
    if continues:
        reply["continues"] = True
    return _encode_message(reply)


def encode_error(error: VarlinkError) -> bytes:
    """An error reply with its NUL byte."""
    return _encode_message({"error": error.error, "parameters": error.parameters})


def _encode_message(message: Mapping[str, object]) -> bytes:
    try:
        return _ENCODER.encode(message) + END
    # Half a surrogate pair: file names and foreign values may have one, and what cannot be encoded
    # would end the thread that answers.
    except UnicodeEncodeError:
        return _ENCODER.encode(_escape_text(msgspec.to_builtins(message))) + END


def _escape_text(value: object) -> object:
    """The same value, all of whose text can be encoded."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_escape_text(key): _escape_text(item) for key, item in value.items()}
    return [_escape_text(item) for item in value] if isinstance(value, list) else value


def _find_parameter(problem: str) -> str:
    """The parameter that msgspec's message names: "… unknown field `x`", "… - at `$.x`"."""
    quoted = problem.split("`")[1::2]
    path = next((text for text in quoted if text.startswith("$.")), None)
    if path is not None:
        return path[2:]
    return quoted[-1] if " field `" in problem else "parameters"
