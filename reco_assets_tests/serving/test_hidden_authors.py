"""Whom users hide, in few bytes."""

import sys

from reco_assets.serving.feeds.hidden_authors import HiddenAuthors
from reco_assets_tests.store.published import user

ALL = {str(user(number)) for number in range(200)}


def test_it_knows_whom_a_user_hides_until_the_database_says_otherwise() -> None:
    hidden = HiddenAuthors()
    hidden.note("a", ALL | {"no uuid"})
    assert all(author in hidden.of("a") for author in (*ALL, "no uuid"))
    assert not any(author in hidden.of("a") for author in (str(user(200)), "another", "", None))
    assert str(user(1)) not in hidden.of("b")
    hidden.note("a", set())
    assert str(user(1)) not in hidden.of("a")


def test_an_id_that_stands_across_two_others_is_not_hidden() -> None:
    hidden = HiddenAuthors()
    one, other = "00112233-4455-6677-8899-aabbccddeeff", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
    hidden.note("a", {one, other})
    digits = one.replace("-", "") + other.replace("-", "")
    backwards = other.replace("-", "") + one.replace("-", "")
    for pair in (digits, backwards):
        assert pair[16:48] not in hidden.of("a")
    assert one in hidden.of("a")
    assert other in hidden.of("a")


def test_two_hundred_authors_take_about_three_kilobytes_and_the_oldest_user_goes() -> None:
    hidden = HiddenAuthors(size=2)
    for name in ("a", "b", "c"):
        hidden.note(name, ALL)
    assert str(user(1)) not in hidden.of("a")
    assert str(user(1)) in hidden.of("c")
    assert sys.getsizeof(hidden._of_user["c"]) < 3300
