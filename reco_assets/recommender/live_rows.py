"""Users' rows as of now: those of the fit, and over them the rows that have changed since.

Rows that changed are written anew behind the others, never in place. What a reader holds, a `RowsView`,
therefore stays as it was while the writer goes on, and takes no lock.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reco_assets.recommender.compiled import compiled, frozen
from reco_assets.recommender.interaction_matrix import InteractionMatrix, SummedEvents
from reco_assets.recommender.weighting import age_in_days, decay

Array = npt.NDArray[Any]

_CHUNK = 1 << 16
"""Entries whose decay is computed at a time: what is computed on the way stays in the cache."""
_FIRST_ROOM = 1024


class Entries(NamedTuple):
    """Of pairs: (n,) int32 posts, float64 weights, int64 µs of the newest event."""

    posts: Array
    weights: Array
    times: Array


class GatheredRows(NamedTuple):
    """Rows one behind the other; `indptr` is (n_rows + 1,) int64."""

    indptr: Array
    entries: Entries


@dataclass(frozen=True, eq=False)
class RowsView:
    """The rows of all users at an instant.

    Attributes:
        base_indptr: (n_fitted + 1,) int64: rows of the fit in …
        base: … these entries.
        slot: (n_users,) int32: where a changed row is noted, -1: as in the fit.
        begin, end: (n_slots,) int64: changed rows in …
        changed: … these entries.
        stamp: (n_slots,) int64: another number whenever the row has changed.
    """

    base_indptr: Array
    base: Entries
    slot: Array
    begin: Array
    end: Array
    changed: Entries
    stamp: Array

    def version(self, user: int) -> int:
        """Another number for every version of the user's row; 0 as in the fit."""
        slot = int(self.slot[user])
        return int(self.stamp[slot]) if slot >= 0 else 0

    def row(self, user: int) -> Entries:
        """One user's entries, posts ascending."""
        slot = int(self.slot[user])
        if slot >= 0:
            part, entries = slice(self.begin[slot], self.end[slot]), self.changed
        else:
            part, entries = slice(self.base_indptr[user], self.base_indptr[user + 1]), self.base
        return Entries(*(array[part] for array in entries))

    def n_entries(self, users: Array) -> int:
        """How many entries the rows of (m,) users of the fit have together."""
        slots = self.slot[users]
        changed = slots >= 0
        if not changed.any():
            return int((self.base_indptr[users + 1] - self.base_indptr[users]).sum())
        slots, users = slots[changed], users[~changed]
        of_fit = self.base_indptr[users + 1] - self.base_indptr[users]
        return int(of_fit.sum() + (self.end[slots] - self.begin[slots]).sum())

    def gather(self, users: Array, *, with_weights: bool = True) -> GatheredRows:
        """The rows of (m,) users of the fit, copied; without weights they are empty, and memory is spared."""
        changed_rows = (self.slot, self.begin, self.end)
        indptr, *entries = _copied(
            users, self.base_indptr, self.base, changed_rows, self.changed, with_weights
        )
        return GatheredRows(indptr, Entries(*entries))

    def readers(self, as_of_us: int, half_life_days: float | None, n_posts: int) -> Array:
        """(n_posts,) float64: each post's readers, decayed, added up in the order of the users.

        The same sums to the bit as those of a fit on these rows.
        """
        totals = np.zeros(n_posts)
        changed = _decayed(self.changed.times, as_of_us, half_life_days)
        n_fitted = len(self.base_indptr) - 1
        marks = np.arange(0, len(self.base.posts) + _CHUNK, _CHUNK)
        bounds = np.unique(np.concatenate([np.searchsorted(self.base_indptr, marks), [0, n_fitted]]))
        bounds = bounds[bounds <= n_fitted]
        changed_rows = (self.slot, self.begin, self.end, self.changed.posts, changed)
        for first, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            start, end = int(self.base_indptr[first]), int(self.base_indptr[stop])
            decayed = _decayed(self.base.times[start:end], as_of_us, half_life_days)
            _add_readers(first, stop, self.base_indptr, self.base.posts, decayed, changed_rows, totals)
        _add_readers(
            n_fitted, len(self.slot), self.base_indptr, self.base.posts, _NOTHING, changed_rows, totals
        )
        return totals


def _decayed(times: Array, as_of_us: int, half_life_days: float | None) -> Array:
    """What readers at these times count by now."""
    decayed = np.empty(len(times))
    for start in range(0, len(times), _CHUNK):
        part = slice(start, start + _CHUNK)
        decayed[part] = decay(age_in_days(times[part], as_of_us), half_life_days)
    return frozen(decayed, np.float64)


class LiveRows:
    """The writer's side: replaces rows and hands out views.

    A changed row takes 20 bytes an entry, and as much again until it is tidied up.
    """

    def __init__(self, matrix: InteractionMatrix) -> None:
        self._base_indptr = frozen(matrix.weights.indptr, np.int64)
        self._base = Entries(
            frozen(matrix.weights.indices, np.int32),
            frozen(matrix.weights.data, np.float64),
            frozen(matrix.last_interaction_at.data, np.int64),
        )
        self._slot: Array = np.full(len(self._base_indptr) - 1, -1, dtype=np.int32)
        self._begin: Array = np.empty(0, dtype=np.int64)
        self._end: Array = np.empty(0, dtype=np.int64)
        self._stamp: Array = np.empty(0, dtype=np.int64)
        self._entries = _room(_FIRST_ROOM)
        self._used = 0
        self._stamps = 0

    def view(self, n_users: int) -> RowsView:
        """The rows as they are now; `n_users` may be more than ever had a row."""
        self._make_room_for_users(n_users)
        return RowsView(
            base_indptr=self._base_indptr,
            base=self._base,
            slot=frozen(self._slot, np.int32),
            begin=frozen(self._begin, np.int64),
            end=frozen(self._end, np.int64),
            changed=Entries(
                *(
                    frozen(array[: self._used], dtype)
                    for array, dtype in zip(self._entries, (np.int32, np.float64, np.int64), strict=True)
                )
            ),
            stamp=frozen(self._stamp, np.int64),
        )

    def replace(self, users: Array, rows: SummedEvents, n_users: int) -> None:
        """Give (m,) different users new rows; views that were handed out keep the old ones."""
        self._make_room_for_users(n_users)
        slot = self._slot.copy()
        begin, end, stamp = self._begin, self._end, self._stamp
        fresh = users[slot[users] < 0]
        slot[fresh] = np.arange(len(begin), len(begin) + len(fresh))
        # Copies too, however few are fresh.
        begin, end, stamp = (np.concatenate([a, np.zeros(len(fresh), np.int64)]) for a in (begin, end, stamp))
        start = self._append(Entries(rows.posts, rows.weights, rows.newest))
        begin[slot[users]], end[slot[users]] = start + rows.indptr[:-1], start + rows.indptr[1:]
        stamp[slot[users]] = np.arange(self._stamps + 1, self._stamps + 1 + len(users))
        self._stamps += len(users)
        self._slot, self._begin, self._end, self._stamp = slot, begin, end, stamp
        if self._used > _FIRST_ROOM and 2 * int((end - begin).sum()) < self._used:
            self._tidy_up()

    def as_in_the_fit(self, users: Array) -> None:
        """Forget what changed in the rows of these users, who have changed rows."""
        slot, end = self._slot.copy(), self._end.copy()
        end[slot[users]] = self._begin[slot[users]]
        slot[users] = -1
        self._slot, self._end = slot, end

    def _append(self, new: Entries) -> int:
        start, n = self._used, len(new.posts)
        if start + n > len(self._entries.posts):
            grown = _room(max(2 * len(self._entries.posts), start + n))
            for old, larger in zip(self._entries, grown, strict=True):
                larger[:start] = old[:start]
            self._entries = grown
        for array, values in zip(self._entries, new, strict=True):
            array[start : start + n] = values
        self._used = start + n
        return start

    def _tidy_up(self) -> None:
        """Copy the rows that are valid; the old entries go when the last view of them does."""
        lengths = self._end - self._begin
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self._begin - indptr[:-1], lengths) + np.arange(indptr[-1])
        tidy = _room(max(_FIRST_ROOM, 2 * int(indptr[-1])))
        for old, new in zip(self._entries, tidy, strict=True):
            new[: indptr[-1]] = old[source]
        self._entries, self._used = tidy, int(indptr[-1])
        self._begin, self._end = indptr[:-1], indptr[1:]

    def _make_room_for_users(self, n_users: int) -> None:
        if n_users > len(self._slot):
            missing = np.full(n_users - len(self._slot), -1, dtype=np.int32)
            self._slot = np.concatenate([self._slot, missing])


def _room(n: int) -> Entries:
    return Entries(np.empty(n, np.int32), np.empty(n), np.empty(n, np.int64))


@compiled
def _copied(
    users: Array, base_indptr: Array, base: Any, changed_rows: Any, changed: Any, with_weights: bool
) -> tuple[Array, Array, Array, Array]:
    slot, begin, end = changed_rows
    indptr = np.zeros(len(users) + 1, dtype=np.int64)
    for row in range(len(users)):
        user = users[row]
        s = slot[user]
        n = end[s] - begin[s] if s >= 0 else base_indptr[user + 1] - base_indptr[user]
        indptr[row + 1] = indptr[row] + n
    total = indptr[-1]
    posts, times = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.int64)
    weights = np.empty(total if with_weights else 0)
    for row in range(len(users)):
        s = slot[users[row]]
        source = changed if s >= 0 else base
        shift = (begin[s] if s >= 0 else base_indptr[users[row]]) - indptr[row]
        for to in range(indptr[row], indptr[row + 1]):
            posts[to] = source.posts[to + shift]
            times[to] = source.times[to + shift]
        if with_weights:
            for to in range(indptr[row], indptr[row + 1]):
                weights[to] = source.weights[to + shift]
    return indptr, posts, weights, times


@compiled
def _add_readers(
    first: int, stop: int, indptr: Array, posts: Array, decayed: Array, changed_rows: Any, totals: Array
) -> None:
    """Add the readers in the rows `first` to `stop`; `decayed` begins with the first of these rows."""
    slot, begin, end, changed_posts, changed_decayed = changed_rows
    n_fitted = len(indptr) - 1
    for user in range(first, stop):
        s = slot[user]
        if s >= 0:
            for entry in range(begin[s], end[s]):
                totals[changed_posts[entry]] += changed_decayed[entry]
        elif user < n_fitted:
            shift = indptr[first]
            for entry in range(indptr[user], indptr[user + 1]):
                totals[posts[entry]] += decayed[entry - shift]


_NOTHING = frozen(np.empty(0), np.float64)
