"""What the replay counts, by hand."""

import numpy as np
import pytest

from benchmarks.deskdrop_replay import Asked, Judged, best_policy, new_reads


def test_a_new_read_is_the_first_of_a_pair_by_a_user_who_did_something_before() -> None:
    users = np.array([0, 0, 1, 0, 1, 1])
    posts = np.array([0, 1, 0, 1, 0, 2])
    times = np.array([1, 2, 2, 3, 4, 4])
    assert new_reads(users, posts, times).tolist() == [False, True, False, False, False, True]


def test_a_hit_counts_by_its_rank_and_a_miss_nothing() -> None:
    judged = Judged()
    judged.add(["a", "b", "c"], "b")
    judged.add(["a"], "z")
    judged.add([*"abcdefghijk"], "k")  # the eleventh
    figures = judged.figures()
    assert figures["hr"] == pytest.approx(1 / 3)
    assert figures["ndcg"] == pytest.approx(1 / np.log2(3) / 3)


def test_a_policy_takes_the_published_list_while_it_is_fresh_and_the_user_has_not_read_since() -> None:
    asked = [
        Asked(["p"], ["l"], age_minutes=30, outdated=False, read="p"),
        Asked(["p"], ["l"], age_minutes=30, outdated=True, read="l"),
        Asked(["p"], ["l"], age_minutes=90, outdated=False, read="l"),
        Asked([], ["l"], age_minutes=0, outdated=False, read="l"),
    ]
    found = {minutes: figures["hr"] for minutes, figures in best_policy(asked).items()}
    assert (found[0], found[60], found[180], found[-1]) == (0.75, 1.0, 0.75, 0.5)
