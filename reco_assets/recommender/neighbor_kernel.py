"""The compiled loops of the neighbour search, which `neighbor_search` arranges and runs.

Gustavson's product of a sparse matrix with its own transpose, one user's row at a time: for each of
the user's posts, walk the post's readers and add to each reader's dot product. What makes it fast:

* **Tiles.** Dot products are kept for a few thousand readers at a time, which stay in the first-level
  cache; a tile's postings are read by a whole block of users before the next tile's, and stay in the
  second-level cache. Readers within a tile are numbered with 16 bits.
* **Symmetry.** The product of two blocks of users serves both: what a row finds for itself goes to
  its own list, what it finds for the readers to theirs. That halves the additions.
* **Floors.** A user who has k neighbours needs no one below the k-th. A tile's products are compared
  with the floors of both sides in vector registers, and only spans that hold something are looked
  into. Each user's first neighbours come from the user's own block, where a cheap bound
  (`reached_by`) stands in for the floor.

A dot product is summed in the order of the posts' indices, whichever side and tile it is computed
for, and the best k are chosen by a total order: so the result depends on neither.

The loops take arrays out of their tuples before they begin: numba counts references to an array each
time a tuple yields it, which would cost more than the loop.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reco_assets.recommender.compiled import compiled
from reco_assets.recommender.selection import keep_best, lanes_for, reached_by, room_for, sort_best_first

Array = npt.NDArray[Any]

_SPAN = 8  # products compared at once
_FEW = 4  # with fewer additions than a tile's users / _FEW, only those reached are looked at
_BOUNDED = 1 << 14  # users that the first bound is taken from: the more, the higher and the later
_FOUND = 1 << 17  # candidates that a thread collects before it puts them on the lists
# Floors are rounded down by far more than the few roundings between a product and its key.
_SLACK = 1.0 - 1e-12


class Rows(NamedTuple):
    """A block of users: of row r, the entries indptr[r] … indptr[r + 1] of `posts` and `weights`."""

    indptr: Array  # (m + 1,) int64
    posts: Array  # uint32
    weights: Array  # float64
    squared_norms: Array  # (m,) float64
    norms: Array  # (m,) float64


class Lists(NamedTuple):
    """The best of each user of a block so far; all arrays are views of the block's rows."""

    keys: Array  # (m, room) float64, see _key
    users: Array  # (m, room) int32
    sizes: Array  # (m,) int32
    floors: Array  # (m,) float64: similarities below are of no use
    squared_norms: Array  # (m,) float64


class Found(NamedTuple):
    """Candidates on their way to a block's lists."""

    rows: Array  # int32, of the block
    keys: Array  # float64
    users: Array  # int32


class Readers(NamedTuple):
    """A tile's postings: of post p, the entries indptr[p] … indptr[p + 1] of `users` and `weights`."""

    indptr: Array  # (n_posts + 1,) uint32
    users: Array  # uint16 or uint32, counted from the tile's first
    weights: Array  # float64
    squared_norms: Array  # (users of the tile,) float64
    norms: Array  # float64


class Query(NamedTuple):
    """What is searched for."""

    k: int
    shrinkage: float
    min_overlap: int


class Workspace(NamedTuple):
    """What a thread computes in; `dots` is zero between rows."""

    dots: Array  # (users of a tile,) float64
    spans: Array  # int32, or the users of the tile that few additions reached
    similarities: Array  # float64
    lanes: Array  # (lanes_for(k),) float64
    scratch: Array  # (room,) float64


def empty_lists(squared_norms: Array, k: int) -> Lists:
    """Lists of the best `k` for users of these norms, without memory for the keys until it is written."""
    m = len(squared_norms)
    return Lists(
        np.empty((m, room_for(k))),
        np.empty((m, room_for(k)), dtype=np.int32),
        np.zeros(m, dtype=np.int32),
        np.zeros(m),
        np.array(squared_norms),
    )


def nothing_found(tile_users: int) -> Found:
    """Room for the candidates of one search of pairs: at least for those of one row."""
    room = max(_FOUND, tile_users)
    return Found(np.empty(room, dtype=np.int32), np.empty(room), np.empty(room, dtype=np.int32))


def workspace(tile_users: int, k: int) -> Workspace:
    """For one thread."""
    return Workspace(
        np.zeros(tile_users),
        np.empty(tile_users // min(_SPAN, _FEW) + 1, dtype=np.int32),
        np.empty(max(min(tile_users, _BOUNDED), tile_users // _FEW + 1)),
        np.empty(lanes_for(k)),
        np.empty(room_for(k)),
    )


@compiled
def _key(dot: float, norm: float, other_norm: float, other_squared_norm: float, shrinkage: float) -> float:
    """What a user's neighbours are ranked by: dot² / ‖other‖², which orders like the cosine.

    With whole-number weights and dots below 2^26.5 both are exact and the quotient is rounded once, so
    equal cosines give equal keys; a square root per vector would not.
    """
    return dot / (norm * other_norm + shrinkage) if shrinkage > 0.0 else dot * dot / other_squared_norm


@compiled
def _similarity(key: float, squared_norm: float, shrinkage: float) -> float:
    """Undo the square that ranking uses; with shrinkage the key is the similarity itself."""
    return key if shrinkage > 0.0 else np.sqrt(key / squared_norm)


@compiled
def _thin_out(row: int, lists: Any, query: Any, scratch: Array) -> None:
    """Leave the best k on a list that has more, and raise its floor."""
    size = lists.sizes[row]
    if size > query.k:
        keys, users = lists.keys[row, :size], lists.users[row, :size]
        limit = keep_best(keys, users, query.k, scratch)
        lists.sizes[row] = query.k
        lists.floors[row] = _SLACK * _similarity(limit, lists.squared_norms[row], query.shrinkage)


@compiled
def _n_additions(rows: Any, row: int, readers: Any) -> int:
    """How many readers a tile has of a row's posts, with repetitions."""
    posts, indptr = rows.posts, readers.indptr
    added = np.int64(0)
    for p in range(rows.indptr[row], rows.indptr[row + 1]):
        added += np.int64(indptr[posts[p] + 1]) - np.int64(indptr[posts[p]])
    return int(added)


@compiled
def _add_products(rows: Any, row: int, readers: Any, dots: Array) -> None:
    """Add one row's dot products with a tile's users to `dots`."""
    posts, weights, indptr = rows.posts, rows.weights, readers.indptr
    users, reader_weights = readers.users, readers.weights
    for p in range(rows.indptr[row], rows.indptr[row + 1]):
        weight = weights[p]
        # Unsigned, because a signed index may count from the end, which costs a test per addition.
        start, end = np.uint64(indptr[posts[p]]), np.uint64(indptr[posts[p] + 1])
        for q in range(start, end):
            dots[users[q]] += weight * reader_weights[q]


@compiled
def _add_few_products(rows: Any, row: int, readers: Any, dots: Array, reached: Array) -> int:
    """`_add_products`, and who was `reached`, each once; returns how many."""
    posts, weights, indptr = rows.posts, rows.weights, readers.indptr
    users, reader_weights = readers.users, readers.weights
    n_reached = 0
    for p in range(rows.indptr[row], rows.indptr[row + 1]):
        weight = weights[p]
        start, end = np.uint64(indptr[posts[p]]), np.uint64(indptr[posts[p] + 1])
        for q in range(start, end):
            user = users[q]
            dot = dots[user]
            reached[n_reached] = user
            n_reached += dot == 0.0
            dots[user] = dot + weight * reader_weights[q]
    return n_reached


@compiled
def _leave_out(rows: Any, row: int, readers: Any, min_overlap: int, dots: Array) -> None:
    """Forget the products with users who share fewer than `min_overlap` posts."""
    posts, indptr, users = rows.posts, readers.indptr, readers.users
    overlaps = np.zeros(len(dots), dtype=np.int32)
    for p in range(rows.indptr[row], rows.indptr[row + 1]):
        for q in range(indptr[posts[p]], indptr[posts[p] + 1]):
            overlaps[users[q]] += 1
    for v in range(len(dots)):
        if overlaps[v] < min_overlap:
            dots[v] = 0.0


@compiled
def _similarities_of_all(dots: Array, norm: float, norms: Array, shrinkage: float, out: Array) -> None:
    for v in range(len(out)):
        out[v] = dots[v] / (norm * norms[v] + shrinkage)


@compiled
def _similarities_of_few(
    dots: Array, reached: Array, norm: float, norms: Array, shrinkage: float, out: Array
) -> None:
    for i in range(len(reached)):
        out[i] = dots[reached[i]] / (norm * norms[reached[i]] + shrinkage)


@compiled
def _find_spans(
    dots: Array, norm: float, norms: Array, floor: float, floors: Array, shrinkage: float, spans: Array
) -> int:
    """Where someone's similarity exceeds the row's floor or the tile user's own; returns how many spans.

    Counting instead of leaving at the first keeps the loop free of branches, hence vectorised.
    """
    n_spans = 0
    for start in range(0, len(dots), _SPAN):
        products, others, limits = (
            dots[start : start + _SPAN],
            norms[start : start + _SPAN],
            floors[start : start + _SPAN],
        )
        hits = 0
        for i in range(len(products)):
            limit = limits[i] if limits[i] < floor else floor
            hits += products[i] > limit * (norm * others[i] + shrinkage)
        spans[n_spans] = start
        n_spans += hits > 0
    return n_spans


@compiled
def _find_spans_one_way(
    dots: Array, norm: float, norms: Array, floor: float, shrinkage: float, spans: Array
) -> int:
    """`_find_spans` for the row's floor alone."""
    n_spans = 0
    for start in range(0, len(dots), _SPAN):
        products, others = dots[start : start + _SPAN], norms[start : start + _SPAN]
        hits = 0
        for i in range(len(products)):
            hits += products[i] > floor * (norm * others[i] + shrinkage)
        spans[n_spans] = start
        n_spans += hits > 0
    return n_spans


@compiled
def search_tile(
    rows: Any, first_user: int, readers: Any, first_reader: int, query: Any, lists: Any, space: Any
) -> None:
    """Offer a tile's users to the lists of a block's rows; row r is user first_user + r, or nobody."""
    norms, squared_norms, shrinkage = readers.norms, readers.squared_norms, query.shrinkage
    n_readers, room = len(norms), lists.keys.shape[1]
    dots, spans = space.dots[:n_readers], space.spans
    for row in range(len(rows.norms)):
        added = _n_additions(rows, row, readers)
        if added == 0:
            continue
        dense = added > n_readers // _FEW
        n_spans = 0
        if dense:
            _add_products(rows, row, readers, dots)
        else:
            n_spans = _add_few_products(rows, row, readers, dots, spans)
        if query.min_overlap > 1:
            _leave_out(rows, row, readers, query.min_overlap, dots)
        itself = first_user + row - first_reader
        if first_user >= 0 and 0 <= itself < n_readers:
            dots[itself] = 0.0
        norm, size = rows.norms[row], lists.sizes[row]
        if size == 0:
            if dense:
                some = space.similarities[: min(n_readers, _BOUNDED)]
                _similarities_of_all(dots, norm, norms, shrinkage, some)
            else:
                some = space.similarities[:n_spans]
                _similarities_of_few(dots, spans[:n_spans], norm, norms, shrinkage, some)
            lists.floors[row] = _SLACK * reached_by(some, query.k, space.lanes)
        floor = lists.floors[row]
        keys, users = lists.keys[row], lists.users[row]
        width = _SPAN if dense else 1
        if dense:
            n_spans = _find_spans_one_way(dots, norm, norms, floor, shrinkage, spans)
        for i in range(n_spans):
            for v in range(spans[i], min(spans[i] + width, n_readers)):
                dot = dots[v]
                dots[v] = 0.0
                if dot > floor * (norm * norms[v] + shrinkage):
                    keys[size] = _key(dot, norm, norms[v], squared_norms[v], shrinkage)
                    users[size] = first_reader + v
                    size += 1
                    if size == room:
                        lists.sizes[row] = size
                        _thin_out(row, lists, query, space.scratch)
                        size, floor = query.k, lists.floors[row]
        lists.sizes[row] = size
        if dense:
            dots[:] = 0.0


@compiled
def search_pairs(
    row: int,
    rows: Any,
    first_user: int,
    readers: Any,
    first_reader: int,
    query: Any,
    floors: Array,
    reader_floors: Array,
    found: Any,
    found_for_readers: Any,
    space: Any,
) -> tuple[int, int, int]:
    """Compare a block's rows, from `row` on, with a tile of other users, both ways.

    The floors may rise meanwhile, as other threads put their candidates on the lists: a floor read too
    low lets more candidates through than necessary, none too few.

    Returns the row to go on with once the candidates are on the lists, and how many there are.
    """
    norms, squared_norms, shrinkage = readers.norms, readers.squared_norms, query.shrinkage
    n_readers, room = len(norms), len(found.rows)
    dots, spans = space.dots[:n_readers], space.spans
    own_rows, own_keys, own_users = found.rows, found.keys, found.users
    their_rows, their_keys, their_users = (
        found_for_readers.rows,
        found_for_readers.keys,
        found_for_readers.users,
    )
    n_found = n_for_readers = 0
    while row < len(rows.norms) and max(n_found, n_for_readers) + n_readers <= room:
        added = _n_additions(rows, row, readers)
        if added > 0:
            norm, floor = rows.norms[row], floors[row]
            squared_norm = rows.squared_norms[row]
            dense = added > n_readers // _FEW
            width, n_spans = _SPAN, 0
            if dense:
                _add_products(rows, row, readers, dots)
            else:
                width, n_spans = 1, _add_few_products(rows, row, readers, dots, spans)
            if query.min_overlap > 1:
                _leave_out(rows, row, readers, query.min_overlap, dots)
            if dense:
                n_spans = _find_spans(dots, norm, norms, floor, reader_floors, shrinkage, spans)
            for i in range(n_spans):
                for v in range(spans[i], min(spans[i] + width, n_readers)):
                    dot, scale = dots[v], norm * norms[v] + shrinkage
                    dots[v] = 0.0
                    if dot > floor * scale:
                        own_rows[n_found], own_users[n_found] = row, first_reader + v
                        own_keys[n_found] = _key(dot, norm, norms[v], squared_norms[v], shrinkage)
                        n_found += 1
                    if dot > reader_floors[v] * scale:
                        their_rows[n_for_readers], their_users[n_for_readers] = v, first_user + row
                        their_keys[n_for_readers] = _key(dot, norms[v], norm, squared_norm, shrinkage)
                        n_for_readers += 1
            if dense:
                dots[:] = 0.0
        row += 1
    return row, n_found, n_for_readers


@compiled
def put_on_lists(found: Any, n_found: int, lists: Any, query: Any, scratch: Array) -> None:
    """Put candidates on their lists."""
    keys, users, sizes, room = lists.keys, lists.users, lists.sizes, lists.keys.shape[1]
    found_rows, found_keys, found_users = found.rows, found.keys, found.users
    for i in range(n_found):
        row = found_rows[i]
        size = sizes[row]
        keys[row, size], users[row, size] = found_keys[i], found_users[i]
        sizes[row] = size + 1
        if size + 1 == room:
            _thin_out(row, lists, query, scratch)


@compiled
def thin_out_all(lists: Any, query: Any, scratch: Array) -> None:
    """Leave at most k on every list."""
    for row in range(len(lists.sizes)):
        _thin_out(row, lists, query, scratch)


@compiled
def write_out(lists: Any, query: Any, out_users: Array, out_similarities: Array) -> None:
    """Sort the lists and write users and similarities, -1 and 0 after the last."""
    for row in range(len(lists.sizes)):
        size = lists.sizes[row]
        keys, users = lists.keys[row, :size], lists.users[row, :size]
        sort_best_first(keys, users)
        for rank in range(out_users.shape[1]):
            known = rank < size
            out_users[row, rank] = users[rank] if known else -1
            out_similarities[row, rank] = (
                _similarity(keys[rank], lists.squared_norms[row], query.shrinkage) if known else 0.0
            )
