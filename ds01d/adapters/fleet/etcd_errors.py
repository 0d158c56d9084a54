"""What a member's refusals and failures mean: whether another one may do better, and the words.

Pure: no connection is opened here.
"""

from __future__ import annotations

import ssl
from typing import Final

from ds01d.adapters.fleet.etcd_messages import ErrorStatus, decode_reply
from ds01d.adapters.fleet.etcd_settings import EtcdEndpoint
from ds01d.errors import Malformed, StoreFailed, StoreRefused
from ds01d.text import make_printable

_SHOWN: Final = 200  # characters of what a server says

# gRPC's codes with which the member could not do it, and another may: canceled, unknown, deadline
# exceeded, resource exhausted, internal, unavailable, data loss.
_MEMBER_CODES: Final = frozenset({1, 2, 4, 8, 13, 14, 15})
_PERMISSION_DENIED: Final = 7
_UNAVAILABLE: Final = 14
_UNAUTHENTICATED: Final = 16
# A learner refuses with the code for a state that does not fit, as for much else.
_LEARNER: Final = "not supported for learner"
_NO_USER: Final = "user name is empty"
# These come with different codes, one of them that of a wrong password: only the text tells.
_LOGIN_WORDS: Final = ("invalid auth token", "revision of auth store is old", _NO_USER)
_AUTH_DISABLED: Final = "authentication is not enabled"


class MemberFailed(Exception):
    """A member gave no usable answer; another may. `is_alive`: it said so itself."""

    def __init__(self, reason: str, *, is_alive: bool = False) -> None:
        super().__init__(reason)
        self.is_alive = is_alive


class ReplyTooLarge(StoreFailed):
    """A member answered with more than is read: ask for less."""


def describe_refusal(endpoint: EtcdEndpoint, status: int, body: bytes) -> Exception:
    """Why a member gave no answer: an error of gRPC as JSON, or of whatever stands before it."""
    try:
        problem = decode_reply(body, ErrorStatus)
    except Malformed:
        problem = ErrorStatus()
    if problem.code >= 0 or problem.grpc_code >= 0:
        return describe_status(endpoint, problem)
    text = shorten(body.decode("utf-8", "replace").strip())
    # Plain text of etcd's own for a certificate with a common name.
    if status == 400 and "CommonName" in text:
        return StoreRefused(
            f"{endpoint}: etcd's gateway refuses a client certificate with a common name (CN): make"
            " one without",
            code=_UNAUTHENTICATED,
            message=text,
        )
    return MemberFailed(f"{endpoint}: HTTP {status}: {text}")


def describe_status(endpoint: EtcdEndpoint, status: ErrorStatus) -> Exception:
    """An error of gRPC as what may be done about it."""
    code = status.code if status.code >= 0 else status.grpc_code
    message = shorten(status.message or status.error)
    text = f"{endpoint}: {message}"
    # A member without a leader answers "unavailable": it lives, and an election may be under way.
    if code in _MEMBER_CODES or _LEARNER in message:
        return MemberFailed(text, is_alive=code == _UNAVAILABLE)
    if _NO_USER in message:
        text += ": etcd expects a user and a password (fleet.user)"
    if code == _PERMISSION_DENIED:
        text += ": fleet.user needs a role with readwrite below /ds01/v1/"
    return StoreRefused(text, code=code, message=message)


def needs_login(refusal: StoreRefused) -> bool:
    """The token counts no longer: simple ones are forgotten with a restart of the member."""
    return refusal.code == _UNAUTHENTICATED or any(
        words in refusal.message for words in _LOGIN_WORDS
    )


def is_auth_disabled(refusal: StoreRefused) -> bool:
    """A login was refused because nobody needs one."""
    return _AUTH_DISABLED in refusal.message


def describe_error(error: Exception) -> str:
    """An error of the system or of a library in a few words."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {shorten(error.verify_message)}"
    if isinstance(error, ssl.SSLEOFError):
        # Since TLS 1.3 a server that misses a certificate may say so after the handshake only.
        return "TLS failed: connection closed (does etcd expect a client certificate?)"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {shorten((error.reason or str(error)).replace('_', ' ').lower())}"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shorten(str(reason))


def shorten(text: str) -> str:
    """What another host wrote, in one short line without anything that a terminal obeys."""
    return make_printable(text)[:_SHOWN]
