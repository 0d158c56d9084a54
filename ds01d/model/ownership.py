"""Whose a container is, and how that is known. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from ds01d.model.primitives import UserName, Word


class OwnerSource(Word):
    """The sources of a container's owner, in order of trust."""

    BOOKING = "booking"
    NAME = "name"  # the uid at its end
    # Decision 225: `docker run --label` writes any name; only its slice makes it certain.
    LABEL = "label"
    OWNERS_FILE = "owners-file"
    SLICE = "slice"  # its cgroup's parent
    FOLDER = "folder"  # a home folder that it mounts, or that it was made from


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A user, and the source of that.

    `is_guess`: the container's creator can have written it, with any owner (decision 225).
    """

    user: UserName
    source: OwnerSource
    is_guess: bool = False

    @property
    def shown(self) -> str:
        """The user for people: a guess is called one."""
        return f"{self.user} (guess)" if self.is_guess else self.user
