"""Whom users hide, remembered from their requests: for feeds that are answered while the database is gone."""

from collections import OrderedDict
from collections.abc import Set
from typing import Final

_USERS: Final = 10_000


class HiddenAuthors:
    """The users of a process who hide somebody, the ones seen last; at most 200 authors of each."""

    def __init__(self, size: int = _USERS) -> None:
        self._size = size
        self._of_user: OrderedDict[str, frozenset[str]] = OrderedDict()

    def note(self, user: str, authors: Set[str]) -> None:
        """Take in what the database said just now."""
        if not authors:
            if self._of_user:
                self._of_user.pop(user, None)
            return
        self._of_user[user] = frozenset(authors)
        self._of_user.move_to_end(user)
        if len(self._of_user) > self._size:
            self._of_user.popitem(last=False)

    def of(self, user: str) -> frozenset[str]:
        """Whom the user hides, as far as is remembered."""
        return self._of_user.get(user, frozenset())
