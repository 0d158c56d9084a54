"""Every error that ds01d raises on purpose.

A source that fails while observing is a value (`model.primitives.Unknown`), not an exception. These
are for operations that cannot continue: an invalid configuration, a lock that timed out, a write
that failed.
"""

from __future__ import annotations


class Ds01Error(Exception):
    """Base of all; its text is a message for people."""


class ConfigError(Ds01Error):
    """The configuration is invalid: names file, key and what is expected."""


class LockTimeout(Ds01Error):
    """Waiting for a lock timed out: names the lock file and its holder."""


class Malformed(Ds01Error):
    """The content of a file is invalid: names file and key, and what was expected."""

    def __init__(self, message: str) -> None:
        # The message quotes the file. JSON can escape a lone surrogate, which no log can write.
        super().__init__(message.encode(errors="backslashreplace").decode())


class WriteFailed(Ds01Error):
    """A file could not be written durably; its old content is unchanged."""


class NotPermitted(Ds01Error):
    """The caller lacks a permission: names the group that has it."""


class BooksUnreadable(Ds01Error):
    """The books cannot be read or parsed, so nothing can be booked."""


class BooksChanged(Ds01Error):
    """The books have changed since the decision; decide again."""


class HistoryFailed(Ds01Error):
    """The history cannot be written; without it no change is allowed."""


class CheckpointBroken(Ds01Error):
    """The checkpoint cannot be read; it is set aside and waiting times start again."""


class DeliveryFailed(Ds01Error):
    """A notice was not delivered. `is_final`: trying again would not help."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class AccountingBroken(Ds01Error):
    """The accounting is damaged; it is set aside and read from the history again."""


class EngineFailed(Ds01Error):
    """Docker gave no usable answer: names the socket and the reason."""


class EngineUnresponsive(EngineFailed):
    """Docker does not answer a ping while its stream is open without data."""


class EngineRefused(EngineFailed):
    """Docker answered with an error, and nothing was changed. `message` is Docker's own."""

    def __init__(self, text: str, *, status: int, message: str) -> None:
        super().__init__(text)
        self.status = status
        self.message = message

    def is_missing(self, kind: str) -> bool:
        """Docker itself has no such `kind`. The 404 of a proxy is no evidence of that."""
        return self.status == 404 and f"no such {kind}" in self.message.lower()


class NoSuchContainer(Ds01Error):
    """Docker itself answered 404 for a container: the only proof of absence."""


class StoreFailed(Ds01Error):
    """The fleet's store gave no usable answer; what was asked for may have been done."""


class TooMuchStored(StoreFailed):
    """The fleet's store answers, with more than is read or kept of it."""


class StoreRefused(StoreFailed):
    """The fleet's store refused, and nothing was changed. `code`: gRPC's; `message`: its words."""

    def __init__(self, text: str, *, code: int, message: str) -> None:
        super().__init__(text)
        self.code = code
        self.message = message


class Refused(Ds01Error):
    """A command is refused: the reason, and what is possible instead."""


class RefusedByHosts(Refused):
    """No host of the fleet did it; `refusal`: the allocator's word, None if it refused nothing."""

    def __init__(self, text: str, *, refusal: str | None) -> None:
        super().__init__(text)
        self.refusal = refusal


class Interrupted(Ds01Error):
    """A signal ended the command; `signal` is its number."""

    def __init__(self, words: str, *, signal: int) -> None:
        super().__init__(words)
        self.signal = signal
