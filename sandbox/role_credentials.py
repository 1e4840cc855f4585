"""Credentials of a function's execution role: what a worker is born with, and when it has to go because of them.

The control process makes them and sends newer ones from time to time. Nobody can change what a process has in its environment, or
what a library has read from there. So a worker keeps what it got, and is replaced long before that expires.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

# Of their whole life, credentials may be so old when they begin to be replaced: those in the memory of a snapshot, whose workers
# live on for a while, and those of a worker, which may have an invocation of 15 minutes to finish. The first is well below the second.
SNAPSHOT_SHARE = 1 / 3
WORKER_SHARE = 2 / 3
# Of a version's workers that are all too old at the same time, so many go at once, and the others in the seconds after.
AT_ONCE = 1 / 16


@dataclass(frozen=True, slots=True)
class RoleCredentials:
    """`role` is the unique id of the role: another one of the same name is another. Times are seconds of the epoch."""

    role: str
    access_key_id: str
    secret_access_key: str = field(repr=False)  # for no log
    session_token: str = field(repr=False)
    issued: float
    expires: float

    @classmethod
    def from_message(cls, message: object) -> RoleCredentials | None:
        """None stands for none. Raises KeyError, TypeError or ValueError."""
        if message is None:
            return None
        fields = cast("dict[str, object]", message)
        return cls(
            role=str(fields["role"]),
            access_key_id=str(fields["access_key_id"]),
            secret_access_key=str(fields["secret_access_key"]),
            session_token=str(fields["session_token"]),
            issued=float(cast(float, fields["issued"])),
            expires=float(cast(float, fields["expires"])),
        )

    def document(self) -> dict[str, object]:
        """As the guest wants it (environment.py)."""
        return {
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "session_token": self.session_token,
        }


Held = RoleCredentials | None


def is_anothers(held: Iterable[Held], current: Held) -> bool:
    """Whether any of these is not of the role that the function has now."""
    return any(_role(one) != _role(current) for one in held)


def is_old(held: Iterable[Held], current: Held, now: float, share: float) -> bool:
    """Whether one of these is older than this share of its life, and there are newer ones."""
    return current is not None and any(
        one is not None
        and current.issued > one.issued
        and now > one.issued + share * (one.expires - one.issued)
        for one in held
    )


def _role(held: Held) -> str:
    return "" if held is None else held.role
