"""Who changed something. Pure values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The process that made a change: its real uid, the login of that uid, and its pid.

    `sudo_uid` and `sudo_login` are whom sudo's environment names, None and "" without sudo. Root
    can set that environment to anything: it is a claim beside the uid, and never replaces it.
    """

    uid: int
    login: str
    pid: int
    sudo_uid: int | None = None
    sudo_login: str = ""

    def __str__(self) -> str:
        """For a log line: `by alice (uid 1001, pid 77)`, with what sudo claims after it."""
        text = f"by {self.login} (uid {self.uid}, pid {self.pid})"
        if self.sudo_uid is None:
            return text
        return f"{text}, sudo by {self.sudo_login} (uid {self.sudo_uid})"

    @property
    def person_uid(self) -> int:
        """Whose short names are meant: with sudo, those of whom it claims to act for."""
        return self.uid if self.sudo_uid is None else self.sudo_uid

    @property
    def short(self) -> str:
        """For a table: the login; with sudo, both of them."""
        return self.login if self.sudo_uid is None else f"{self.login} (sudo {self.sudo_login})"
