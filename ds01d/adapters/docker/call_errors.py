"""What went wrong with a call to the engine, in words: each names its address, on one line."""

from __future__ import annotations

import socket

import msgspec

from ds01d.text import make_printable


class _Refusal(msgspec.Struct):
    message: str


def describe_problem(url: str, reason: str) -> str:
    """The reason may quote anything that the engine sent."""
    return f"Docker at {url}: {make_printable(reason[:300].strip())}"


def describe_failure(error: Exception, url: str, timeout_s: float) -> str:
    """Why there is no usable answer."""
    root: BaseException = error
    # http.client wraps the error of the socket; the root names the cause for an administrator.
    while (inner := root.__cause__ or root.__context__) is not None:
        root = inner
    unreachable = f"cannot reach Docker at {url}: "
    match root:
        case FileNotFoundError():
            return unreachable + "no such socket"
        case ConnectionRefusedError():
            return unreachable + "connection refused"
        case socket.gaierror():
            return unreachable + f"its host name cannot be resolved: {root.strerror}"
        case PermissionError():
            return unreachable + "permission denied"
        case TimeoutError():
            return describe_problem(url, f"timed out after {timeout_s:g} s")
        case ConnectionError():
            return describe_problem(url, f"connection lost: {root}")
        case _:
            reason = f"invalid or incomplete answer: {type(root).__name__}: {root}"
            return describe_problem(url, reason)


def read_refusal(body: bytes) -> str:
    """Docker's own message in an answer that is an error."""
    try:
        return msgspec.json.decode(body, type=_Refusal).message
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "not an error message of Docker's"
