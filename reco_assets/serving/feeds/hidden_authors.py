"""Whom users hide, remembered from their requests: for feeds that are answered while the database is gone."""

from collections import OrderedDict
from collections.abc import Container, Set
from hashlib import blake2b
from typing import Final

_USERS: Final = 10_000
_ID_BYTES: Final = 16


class HiddenAuthors:
    """The users of a process who hide somebody, the ones seen last; at most 200 authors of each.

    An author takes 16 bytes, a user about 300 more: 35 MB if all of them hide 200.
    """

    def __init__(self, size: int = _USERS) -> None:
        self._size = size
        self._of_user: OrderedDict[str, bytes] = OrderedDict()

    def note(self, user: str, authors: Set[str]) -> None:
        """Take in what the database said just now."""
        if not authors:
            if self._of_user:
                self._of_user.pop(user, None)
            return
        self._of_user[user] = b"".join(map(_packed, authors))
        self._of_user.move_to_end(user)
        if len(self._of_user) > self._size:
            self._of_user.popitem(last=False)

    def of(self, user: str) -> Container[str | None]:
        """Whom the user hides, as far as is remembered."""
        return _Authors(self._of_user.get(user, b""))


class _Authors:
    """Ids one behind the other."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def __contains__(self, author: object) -> bool:
        if not self._packed or not isinstance(author, str):
            return False
        wanted = _packed(author)
        at = self._packed.find(wanted)
        while at % _ID_BYTES and at >= 0:  # found across the border of two
            at = self._packed.find(wanted, at + 1)
        return at >= 0


def _packed(author: str) -> bytes:
    """A UUID's bytes; of an id that is none, a digest."""
    try:
        found = bytes.fromhex(author.replace("-", ""))
    except ValueError:
        found = b""
    return found if len(found) == _ID_BYTES else blake2b(author.encode(), digest_size=_ID_BYTES).digest()
