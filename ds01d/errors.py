"""Every error that ds01d raises on purpose.

A source that fails while observing is no exception but a value (`model.facts.Unknown`); these are
for what cannot go on: a configuration that makes no sense, a lock that is not to be had, a write
that failed.
"""

from __future__ import annotations


class Ds01Error(Exception):
    """Base of all; its text is fit for a person, as it stands."""


class ConfigError(Ds01Error):
    """The configuration cannot be used: names file, key and what would be right."""


class LockTimeout(Ds01Error):
    """A lock was not to be had in time: names the lock file and who holds it."""


class Malformed(Ds01Error):
    """The bytes of a file make no sense: names file and key, and what was expected there.

    It quotes what others wrote. JSON can name half a character; what tells of it must be writable.
    """

    def __init__(self, words: str) -> None:
        super().__init__(words.encode(errors="backslashreplace").decode())


class WriteFailed(Ds01Error):
    """A file could not be written durably; what was there before is still there."""


class NotPermitted(Ds01Error):
    """Whoever asks has not the right: names the group that has."""


class BooksUnreadable(Ds01Error):
    """The books cannot be read or understood, so nothing can be booked."""


class BooksChanged(Ds01Error):
    """The books are not as decided upon any more; decide afresh."""


class HistoryFailed(Ds01Error):
    """The history cannot be written; without it nothing may be done."""


class CheckpointBroken(Ds01Error):
    """The remembered state cannot be read; it is set aside and waiting times start again."""


class EngineFailed(Ds01Error):
    """Docker gave no usable answer: says why, and names the socket."""


class EngineUnresponsive(EngineFailed):
    """Docker does not answer a ping while a stream of it is open and quiet."""


class EngineRefused(EngineFailed):
    """Docker answered, and said no: what was asked was not done. `message` is Docker's own."""

    def __init__(self, words: str, *, status: int, message: str) -> None:
        super().__init__(words)
        self.status = status
        self.message = message


class NoSuchContainer(Ds01Error):
    """Docker itself answered 404 for a container: the only proof of absence."""


class Refused(Ds01Error):
    """What a person asked for is not done: says why, and what would be possible."""


class Interrupted(Ds01Error):
    """A person, or the system, ended it; `signal` is the number of the signal."""

    def __init__(self, words: str, *, signal: int) -> None:
        super().__init__(words)
        self.signal = signal
