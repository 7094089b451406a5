"""A cursor is the rest of its list, and nothing else is one."""

import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco_assets.errors import BadInput
from reco_assets.serving.feeds import cursor
from reco_assets.serving.feeds.cursor import Rest, decode, encode
from reco_assets.serving.feeds.exploration import Propensities
from reco_assets.serving.feeds.lists import KINDS, Entry, Origin

USER = UUID(int=42)
FULL = Origin(
    generation_id=str(UUID(int=7)),
    model_version="collaborative_filtering_v7",
    generated_at=datetime(2026, 11, 20, 2, 0, 0, 123456, tzinfo=UTC),
    fallback_reason=None,
    experiment="ml_vs_random",
    arm="ml",
    propensities=Propensities(0.97, 0.0003),
)

entry = st.tuples(
    st.uuids().map(str),
    st.integers(0, len(KINDS) - 1),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@given(st.lists(entry, max_size=500, unique_by=lambda each: each[0]), st.integers(0, 500), st.uuids())
def test_what_goes_in_comes_out(entries: list[Entry], served: int, user_id: UUID) -> None:
    rest = Rest(entries, served, FULL)
    assert decode(encode(rest, user_id), user_id) == rest


def test_nothing_known_comes_back_as_nothing() -> None:
    rest = Rest([], 0, Origin())
    assert decode(encode(rest, USER), USER) == rest


def test_a_hundred_posts_fit_into_a_url_and_five_hundred_into_the_limit() -> None:
    assert len(encode(Rest(some(80), 20, FULL), USER)) < 2500
    long = Origin(model_version="ä" * 300, fallback_reason="x" * 300, experiment="y" * 50, arm="ml")
    assert len(encode(Rest(some(500), 1, long), USER)) <= cursor.LONGEST
    assert decode(encode(Rest(some(500), 1, long), USER), USER).origin.model_version == "ä" * 127


def test_a_score_out_of_range_is_cut_and_no_number_is_zero() -> None:
    scores = [1e300, -1e300, float("nan"), float("inf")]
    rest = Rest([(str(UUID(int=i)), 0, score) for i, score in enumerate(scores)], 0, FULL)
    found = [score for _, _, score in decode(encode(rest, USER), USER).entries]
    assert found == [pytest.approx(3.4e38, rel=0.01), pytest.approx(-3.4e38, rel=0.01), 0.0, 0.0]


def test_another_users_cursor_is_refused() -> None:
    with pytest.raises(BadInput, match="another user"):
        decode(encode(Rest(some(3), 0, FULL), USER), UUID(int=43))


def test_every_truncation_and_every_changed_character_is_refused() -> None:
    text = encode(Rest(some(3), 20, FULL), USER)
    for end in range(len(text)):
        with pytest.raises(BadInput):
            decode(text[:end], USER)
    for place in range(len(text) - 1):  # of the last character some bits may be padding
        with pytest.raises(BadInput):
            decode(text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :], USER)


def test_another_version_says_so() -> None:
    data = bytearray(urlsafe_b64decode(padded(encode(Rest(some(3), 0, FULL), USER))))
    data[0] = 9
    with pytest.raises(BadInput, match="version 9"):
        decode(urlsafe_b64encode(bytes(data)).decode().rstrip("="), USER)


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_refused_even_with_a_right_checksum(body: bytes, signed: bool) -> None:
    head = cursor._HEAD.pack(cursor.VERSION, cursor._checksum(body, USER)) if signed else b""
    with pytest.raises(BadInput):
        decode(urlsafe_b64encode(head + body).decode().rstrip("="), USER)


@given(st.text(max_size=100))
def test_random_text_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        decode(text, USER)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": len(KINDS)},
        {"score": float("nan")},
        {"score": float("inf")},
        {"ordinary": 1.5},
        {"explored": float("nan")},
        {"made": 2**62},
        {"twice": True},
        {"text": b"\xff"},
        {"extra": b"\0"},
    ],
)
def test_a_forged_cursor_with_impossible_content_is_refused(change: dict[str, object]) -> None:
    assert decode(forged(), USER).entries[0][1] == 0  # as such the forgery is readable
    with pytest.raises(BadInput, match="cannot be read"):
        decode(forged(**change), USER)


def forged(
    kind: int = 0,
    score: float = 1.0,
    ordinary: float = 1.0,
    explored: float = 0.0,
    made: int = 0,
    twice: bool = False,
    text: bytes = b"v",
    extra: bytes = b"",
) -> str:
    from struct import pack

    body = cursor._FIXED.pack(2, 0, ordinary, explored, made, bytes(16))
    body += bytes((len(text),)) + text + bytes(3)
    body += bytes(16) + (bytes(16) if twice else bytes(15) + b"\1")
    body += bytes((kind, 0)) + pack("<2f", score, 1.0) + extra
    head = cursor._HEAD.pack(cursor.VERSION, cursor._checksum(body, USER))
    return urlsafe_b64encode(head + body).decode().rstrip("=")


def padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)


def some(n: int) -> list[Entry]:
    rng = random.Random(n)
    return [(str(UUID(int=rng.getrandbits(128))), 0, float(i)) for i in range(n)]
