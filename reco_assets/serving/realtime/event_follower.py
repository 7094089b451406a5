"""Keeps live votes up with the events in the database, whichever process stored them.

Events are told apart by `created_at`, the time their transaction began; transactions commit in another order,
and clocks differ. So every look goes back a little behind the last one, now and then a good deal further, and
what comes twice is known by its id. An event of a transaction that stayed open longer than that is met
with the next publication only.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from reco_assets.store.live_events import (
    EventRows,
    hidden_authors,
    post_facts,
    read_events,
    server_time,
)

if TYPE_CHECKING:
    import psycopg

    from reco_assets.recommender.live_votes import LiveVotes

_OVERLAP: Final = timedelta(seconds=2)
_WIDE_OVERLAP: Final = timedelta(minutes=2)
_WIDE_EVERY: Final = timedelta(minutes=1)
_REMEMBERED: Final = timedelta(minutes=5)
_POSTS_ASKED_AGAIN: Final = 2000
"""The newest posts, of which the wider looks ask whether they may be recommended by now."""


class EventFollower:
    """Reads what is new into `votes`. For one thread.

    An event of the last five minutes takes about 130 bytes beside what `votes` keeps.

    Attributes:
        lost_track: the clocks were set back by more than is remembered: new events cannot be told from those
            that were met in the time that comes again. None is read twice, some are not read at all, until
            another follower begins anew.

    Args:
        votes: of the published day.
        since: the day's end: what happened from then on is not in the fit.
        max_events: events kept at most; the oldest go first.
        clock: what time it is.
    """

    def __init__(
        self, votes: "LiveVotes", since: datetime, max_events: int, clock: Callable[[], datetime]
    ) -> None:
        self.votes = votes
        self._since = since
        self._max_events = max_events
        self._clock = clock
        self._codes = votes.type_codes()
        self._last: datetime | None = None
        self._last_wide: datetime | None = None
        self._met: dict[bytes, int] = {}
        self._remembered_since = since
        self.lost_track = False

    def catch_up(self, connection: "psycopg.Connection[Any]") -> int:
        """Read what is new; returns how many events that was.

        Raises: as the driver does.
        """
        # Whichever clock is behind decides: an event must not fall between two looks.
        now = min(self._clock(), server_time(connection))
        wide = self._last_wide is None or abs(now - self._last_wide) >= _WIDE_EVERY
        since = self._since
        if self._last is None:
            # At first everything is new; only what may come again has to be remembered.
            self._remembered_since = now - _REMEMBERED
        else:
            overlap = _WIDE_OVERLAP if wide else _OVERLAP
            since = max(since, self._last - overlap, self._remembered_since)
        rows = read_events(connection, since, list(self._codes), self._max_events)
        fresh = self._not_met(rows)
        n_users, n_posts = len(self.votes.user_ids), len(self.votes.post_ids)
        if len(fresh):
            self._add(rows, fresh)
            self._note_hidden(connection, n_users)
        asked_again = _POSTS_ASKED_AGAIN if wide else 0
        self._note_posts(connection, max(self.votes.post_ids.n_fitted, n_posts - asked_again))
        if self.votes.n_events > self._max_events:
            # A quarter at once, or every look would have to.
            self.votes.forget_oldest(self._max_events * 3 // 4)
        self._last = now
        if wide:
            self._last_wide = now
            self._forget_met(now - _REMEMBERED)
        self.lost_track = self.lost_track or now - _WIDE_OVERLAP < self._remembered_since
        return len(fresh)

    def _not_met(self, rows: EventRows) -> Any:
        """(m,) positions of the rows that were not read before."""
        import numpy as np

        ids, times = rows.ids.tobytes(), rows.created_at.tolist()
        horizon = _us(self._remembered_since)
        fresh: list[int] = []
        for position, created_at in enumerate(times):
            if created_at < horizon:
                fresh += range(position, len(times))  # they come newest first
                break
            event = ids[16 * position : 16 * position + 16]
            if event not in self._met:
                self._met[event] = created_at
                fresh.append(position)
        return np.array(fresh, dtype=np.int64)

    def _add(self, rows: EventRows, fresh: Any) -> None:
        import numpy as np

        from reco_assets.recommender.live_votes import EventBatch

        codes = np.array(list(self._codes.values()), dtype=np.int8)
        fresh = fresh[::-1]  # in the order of time, so that later posts are numbered as they came
        self.votes.add(
            EventBatch(
                rows.user_ids[fresh], rows.post_ids[fresh], codes[rows.types[fresh]], rows.created_at[fresh]
            )
        )

    def _note_posts(self, connection: "psycopg.Connection[Any]", start: int) -> None:
        """Tell `votes` what the catalogue says of the later posts from `start` on."""
        import numpy as np

        from reco_assets.recommender.interaction_log import UNKNOWN_TIME
        from reco_assets.recommender.live_votes import PostFacts

        if start >= len(self.votes.post_ids):
            return
        ids = self.votes.post_ids.later_ids(start)
        found = post_facts(connection, _uuids(ids))
        facts = [found.get(each) for each in _uuids(ids)]
        authors = [fact.author_id.bytes if fact and fact.author_id else bytes(16) for fact in facts]
        times = [_us(fact.created_at) if fact and fact.created_at else UNKNOWN_TIME for fact in facts]
        self.votes.note_posts(
            PostFacts(
                ids,
                np.frombuffer(b"".join(authors), dtype=np.uint8).reshape(-1, 16),
                np.array(times, dtype=np.int64),
                np.array([fact is not None for fact in facts]),
            )
        )

    def _note_hidden(self, connection: "psycopg.Connection[Any]", start: int) -> None:
        if start >= len(self.votes.user_ids):
            return
        users = _uuids(self.votes.user_ids.later_ids(start))
        for user, authors in hidden_authors(connection, users).items():
            self.votes.note_hidden(user.bytes, tuple(author.bytes for author in authors))

    def _forget_met(self, before: datetime) -> None:
        if before > self._remembered_since:
            self._remembered_since, horizon = before, _us(before)
            self._met = {event: met for event, met in self._met.items() if met >= horizon}


def _uuids(ids: Iterable[Any]) -> list[UUID]:
    return [UUID(bytes=row.tobytes()) for row in ids]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
