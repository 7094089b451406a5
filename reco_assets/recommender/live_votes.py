"""The daily fit and every event since: kept by one thread, which hands out states that do not change."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reco_assets.errors import CorruptArtifact
from reco_assets.recommender.id_space import IdSpace
from reco_assets.recommender.interaction_log import UNKNOWN_TIME, InteractionLog
from reco_assets.recommender.interaction_matrix import InteractionMatrix, sum_events, weights_of_types
from reco_assets.recommender.list_scoring import PostFactors
from reco_assets.recommender.live_lists import LiveState, NeighborCache
from reco_assets.recommender.live_rows import LiveRows
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets.recommender.weighting import age_in_days, decay

Array = npt.NDArray[Any]

_CACHED_USERS = 10_000


@dataclass(frozen=True, eq=False)
class DailyFit:
    """A day's model with the log and the matrix that it was fitted on.

    Attributes:
        model, matrix, log: of one code space.
        interaction_weights: by type; events of other types do not count.
        max_repeats: as for `InteractionMatrix.from_log`.
    """

    model: UserKNNRecommender
    matrix: InteractionMatrix
    log: InteractionLog
    interaction_weights: Mapping[str, float]
    max_repeats: int

    def __post_init__(self) -> None:
        model, matrix = self.model, self.matrix
        same = {
            "users": [model.user_ids_, matrix.user_ids, self.log.user_ids],
            "posts": [model.post_ids_, matrix.post_ids, self.log.post_ids],
            "pairs": [model.votes_.indices, matrix.weights.indices],
            "times": [model.last_interaction_at_, matrix.last_interaction_at.data],
        }
        for what, (first, *others) in same.items():
            if not all(np.array_equal(first, other) for other in others):
                raise CorruptArtifact(
                    f"Model, matrix and log do not hold the same {what}: they are of different runs. Make "
                    "them again with `reco run --partition DATE`."
                )


@dataclass(frozen=True, eq=False)
class EventBatch:
    """Events, each once, in any order.

    Attributes:
        user_ids, post_ids: (n, 16) uint8.
        types: (n,) int8, position in the fit's `log.interaction_types`.
        created_at: (n,) int64 µs since the epoch, UTC.
    """

    user_ids: Array
    post_ids: Array
    types: Array
    created_at: Array

    def __len__(self) -> int:
        return len(self.created_at)


@dataclass(frozen=True, eq=False)
class PostFacts:
    """What is known of posts now.

    Attributes:
        post_ids: (n, 16) uint8.
        author_ids: (n, 16) uint8, zeros for none.
        created_at: (n,) int64 µs or `UNKNOWN_TIME`.
        eligible: (n,) bool.
    """

    post_ids: Array
    author_ids: Array
    created_at: Array
    eligible: Array


class _Coded(NamedTuple):
    """The columns of `EventBatch`, users and posts as int32 codes."""

    users: Array
    posts: Array
    types: Array
    created_at: Array

    def where(self, chosen: Array) -> "_Coded":
        return _Coded(*(column[chosen] for column in self))

    def and_(self, other: "_Coded") -> "_Coded":
        return _Coded(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


class _EventStore:
    """Events in the order of arrival, 17 to 34 bytes each."""

    def __init__(self) -> None:
        self._room = _no_events()
        self._used = 0

    def __len__(self) -> int:
        return self._used

    @property
    def events(self) -> _Coded:
        """All of them, not to be kept."""
        return _Coded(*(column[: self._used] for column in self._room))

    def append(self, new: _Coded) -> None:
        """Take more."""
        end = self._used + len(new.users)
        if end > len(self._room.users):
            grown = _Coded(*(np.empty(2 * end, column.dtype) for column in self._room))
            for old, larger in zip(self.events, grown, strict=True):
                larger[: self._used] = old
            self._room = grown
        for column, values in zip(self._room, new, strict=True):
            column[self._used : end] = values
        self._used = end

    def keep(self, chosen: Array) -> None:
        """Drop the others."""
        self._room = self.events.where(chosen)
        self._used = len(self._room.users)


def _no_events() -> _Coded:
    return _Coded(*(np.empty(0, dtype) for dtype in (np.int32, np.int32, np.int8, np.int64)))


class LiveVotes:
    """Takes events and hands out a `LiveState` per tick. For one thread.

    Users and posts of the fit keep their rows as codes; later ones come behind them. Of a user with an
    event since the fit the whole row is summed up anew, from the events of the log and the new ones.

    An event takes 17 bytes, a user with events since the fit 20 to 40 bytes for every post of their row
    and about 50 more, a later user or post about 400.
    """

    def __init__(self, fit: DailyFit) -> None:
        self.fit = fit
        log, model = fit.log, fit.model
        self.user_ids, self.post_ids = IdSpace(log.user_ids), IdSpace(log.post_ids)
        self._author_ids = IdSpace(log.author_ids)
        self._rows = LiveRows(fit.matrix)
        self._type_weights = weights_of_types(
            log.interaction_types, log.interaction_type, fit.interaction_weights
        )
        # Which events are whose: the log is in no order.
        self._event_order = np.argsort(log.user_index, kind="stable").astype(
            np.int32 if log.n_interactions < 1 << 31 else np.int64
        )
        self._event_indptr = np.concatenate(
            [[0], np.cumsum(np.bincount(log.user_index, minlength=log.n_users))]
        ).astype(np.int64)
        self._known_since = log.post_known_since()
        self._eligible = np.array(log.post_eligible, dtype=bool)
        self._has_time = log.post_created_at != UNKNOWN_TIME
        self._events = _EventStore()
        self._later = _no_events()
        self._later_posts: dict[bytes, tuple[int, ...]] = {}
        self._hidden_by: dict[int, tuple[bytes, ...]] = {}
        self._neighbors_found = NeighborCache(_CACHED_USERS)
        self._masks = model.masks_

    @property
    def n_events(self) -> int:
        """Events since the fit that are held."""
        return len(self._events) + len(self._later.users)

    def type_codes(self) -> dict[str, int]:
        """The types that count, and their codes."""
        return {
            name: code
            for code, name in enumerate(self.fit.log.interaction_types)
            if name in self.fit.interaction_weights
        }

    def add(self, batch: EventBatch) -> None:
        """Take events; they count from the first tick after their time."""
        coded = _Coded(
            self.user_ids.add(batch.user_ids),
            self.post_ids.add(batch.post_ids),
            batch.types.astype(np.int8),
            batch.created_at.astype(np.int64),
        )
        self._later = self._later.and_(coded)
        self._make_room_for_posts()
        without_time = ~self._has_time[coded.posts]
        posts, times = coded.posts[without_time], coded.created_at[without_time]
        since = self._known_since
        since[posts] = np.where(since[posts] == UNKNOWN_TIME, np.iinfo(np.int64).max, since[posts])
        np.minimum.at(since, posts, times)

    def note_posts(self, facts: PostFacts) -> None:
        """Take what the catalogue says now; of posts without an event it is not kept."""
        for row, id_bytes in enumerate(map(bytes, facts.post_ids)):
            post = self.post_ids.code(id_bytes)
            if post < 0:
                continue
            self._eligible[post] = facts.eligible[row]
            if post < self.post_ids.n_fitted:
                continue
            if facts.created_at[row] != UNKNOWN_TIME:
                self._known_since[post], self._has_time[post] = facts.created_at[row], True
            if facts.author_ids[row].any():
                author = facts.author_ids[row].tobytes()
                others = self._later_posts.get(author, ())
                self._later_posts[author] = others if post in others else (*others, post)

    def note_hidden(self, user_id: bytes, author_ids: tuple[bytes, ...]) -> None:
        """Take the authors that a later user hides."""
        self._hidden_by[self.user_ids.code(user_id)] = author_ids

    def tick(self, as_of_us: int) -> tuple[LiveState, Array]:
        """The state as of an instant, and (m,) codes: whose events it is the first to count."""
        due = self._later.created_at < as_of_us
        affected = np.empty(0, dtype=np.int32)
        if due.any():
            new = self._later.where(due)
            self._later = self._later.where(~due)
            self._events.append(new)
            affected = np.unique(new.users)
            self._sum_up(affected)
        return self._state(as_of_us), affected

    def forget_oldest(self, keep: int) -> None:
        """Keep only the newest events; rows of users without any are as in the fit again."""
        if len(self._events) <= keep:
            return
        n_gone = len(self._events) - keep
        gone = np.zeros(len(self._events), dtype=bool)
        gone[np.argpartition(self._events.events.created_at, n_gone - 1)[:n_gone]] = True
        affected = np.unique(self._events.events.users[gone])
        self._events.keep(~gone)
        self._sum_up(affected)
        left = affected[np.isin(affected, self._events.events.users, invert=True)]
        self._rows.as_in_the_fit(left[left < self.user_ids.n_fitted])

    def _sum_up(self, users: Array) -> None:
        """Write the rows of these users anew."""
        place = np.full(len(self.user_ids), -1, dtype=np.int32)
        place[users] = np.arange(len(users), dtype=np.int32)
        live = self._events.events
        live = live.where(place[live.users] >= 0)
        log, n_fitted = self.fit.log, self.user_ids.n_fitted
        fitted = users[users < n_fitted]
        starts, stops = self._event_indptr[fitted], self._event_indptr[fitted + 1]
        offsets = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
        positions = np.repeat(starts - offsets[:-1], stops - starts) + np.arange(offsets[-1])
        old = self._event_order[positions]
        # As the matrix does: the log may hold events that are not before its instant.
        old = old[log.created_at[old] < self.fit.matrix.as_of_us]
        rows = sum_events(
            place[np.concatenate([log.user_index[old], live.users])],
            np.concatenate([log.post_index[old], live.posts]),
            np.concatenate([log.interaction_type[old], live.types]),
            np.concatenate([log.created_at[old], live.created_at]),
            self._type_weights,
            n_users=len(users),
            n_posts=len(self.post_ids),
            max_repeats=self.fit.max_repeats,
        )
        self._rows.replace(users, rows, len(self.user_ids))

    def _state(self, as_of_us: int) -> LiveState:
        model = self.fit.model
        rows = self._rows.view(len(self.user_ids))
        n_posts = len(self.post_ids)
        known_since = self._known_since[:n_posts]
        eligible = self._eligible & (known_since < as_of_us) & (known_since != UNKNOWN_TIME)
        freshness = decay(age_in_days(known_since, as_of_us), model.freshness_half_life_days)
        readers = rows.readers(as_of_us, model.popularity_half_life_days, n_posts)
        factors = PostFactors.of(freshness, readers, eligible)
        _ = factors.by_popularity  # now, not in a request
        return LiveState(
            model=model,
            as_of_us=as_of_us,
            user_ids=self.user_ids,
            post_ids=self.post_ids,
            rows=rows,
            factors=factors,
            masks=replace(self._masks, eligible=eligible),
            author_ids=self._author_ids,
            later_posts=dict(self._later_posts),
            hidden_by=dict(self._hidden_by),
            neighbors_found=self._neighbors_found,
        )

    def _make_room_for_posts(self) -> None:
        missing = len(self.post_ids) - len(self._eligible)
        if missing:
            self._eligible = np.concatenate([self._eligible, np.zeros(missing, dtype=bool)])
            self._has_time = np.concatenate([self._has_time, np.zeros(missing, dtype=bool)])
            self._known_since = np.concatenate([self._known_since, np.full(missing, UNKNOWN_TIME)])
