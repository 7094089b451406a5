"""Finding the new pairs among the interactions."""

from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
import pytest

from reco_assets.store.arrow_scan import ids_as_arrow
from reco_assets.store.binary_copy import uuid_text
from reco_assets.store.schema import IdType
from reco_assets.store.screening import row_keys
from reco_assets.store.seen_posts import PairFinder
from reco_assets_tests.store.published import as_array, post, rows_of, user


def in_database(ids: list[UUID], id_type: IdType) -> Any:
    array = as_array(ids)
    return ids_as_arrow(uuid_text(array) if id_type == "text" else array, id_type)


@pytest.mark.parametrize("id_type", ["uuid", "text"])
def test_exactly_the_pairs_of_the_rows_are_found(id_type: IdType) -> None:
    """Users 1, 2 are numbers 0, 1; posts 7, 8 are numbers 0, 1. (2, 7) is no pair, though both are known."""
    finder = PairFinder(rows_of([(1, 7), (1, 8), (2, 8)]), id_type)
    users = in_database([user(1), user(2), user(2), uuid4(), user(1)], id_type)
    posts = in_database([post(8), post(7), post(8), post(7), uuid4()], id_type)
    assert finder.find(users, posts).tolist() == [0 << 32 | 1, 1 << 32 | 1]


@pytest.mark.parametrize("id_type", ["uuid", "text"])
def test_a_slice_of_a_batch_is_read_where_it_begins(id_type: IdType) -> None:
    finder = PairFinder(rows_of([(1, 7)]), id_type)
    users = in_database([user(9), user(1)], id_type)
    posts = in_database([post(9), post(7)], id_type)
    assert finder.find(users.slice(1), posts.slice(1)).tolist() == [0]
    assert finder.find(users.slice(0, 1), posts.slice(0, 1)).tolist() == []
    assert finder.find(users.slice(0, 0), posts.slice(0, 0)).tolist() == []


def test_text_that_is_no_uuid_is_no_pair() -> None:
    finder = PairFinder(rows_of([(1, 7)]), "text")
    users = pa.array(["", str(user(1)), str(user(1)), str(user(1)).upper(), "x" * 36])
    posts = pa.array([str(post(7)), "later", str(post(7)), str(post(7)), str(post(7))])
    assert finder.find(users, posts).tolist() == [0]


def test_a_random_set_is_found_like_a_set_of_pairs_would() -> None:
    rng = np.random.default_rng(3)
    pairs = sorted({(int(u), int(p)) for u, p in rng.integers(0, 60, (900, 2))})
    asked = rng.integers(0, 60, (3000, 2))
    rows = rows_of(pairs)
    users = in_database([user(int(u)) for u in asked[:, 0]], "uuid")
    posts = in_database([post(int(p)) for p in asked[:, 1]], "uuid")
    number_of_user = {bytes(each): n for n, each in enumerate(rows.users.ids)}
    number_of_post = {bytes(each): n for n, each in enumerate(rows.posts.ids)}
    expected = [
        (number_of_user[user(int(u)).bytes], number_of_post[post(int(p)).bytes])
        for u, p in asked
        if (int(u), int(p)) in set(pairs)
    ]
    keys = row_keys(*(np.array(column) for column in zip(*expected, strict=True)))
    assert PairFinder(rows, "uuid").find(users, posts).tolist() == keys.tolist()


def test_no_rows_have_no_pairs() -> None:
    finder = PairFinder(rows_of([]), "uuid")
    ids = in_database([user(1)], "uuid")
    assert finder.find(ids, ids).tolist() == []
