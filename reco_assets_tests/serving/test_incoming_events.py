"""What a tracking request may say: the body as a whole, and each event for itself."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as unhurried
from hypothesis import strategies as st

from reco_assets.serving.events.incoming_events import CheckedEvents, EventReader
from reco_assets.serving.http.problems import Problem
from reco_assets.settings import Settings

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
USER = UUID("0f9b8f5e-7f3c-4d55-9a1b-0a6f5f1d2c3b")
POST = "0B1C1C1E-5F0E-4B8A-9A50-5B2B1A2C3D4E"


def reader(**changes: Any) -> EventReader:
    return EventReader(Settings(home=Path("/nonexistent"), **changes))


def checked(*items: Any, **changes: Any) -> CheckedEvents:
    return reader(**changes).check(items, USER, NOW)


def an_event(**changes: Any) -> dict[str, Any]:
    return {"post_id": POST, "interaction_type": "view", **changes}


def kept(**changes: Any) -> Any:
    """The metadata that is stored for an event with these fields."""
    result = checked(an_event(**changes))
    assert result.errors == []
    text = result.events[0].metadata
    return None if text is None else json.loads(text)


def code(*, limits: dict[str, Any] | None = None, **changes: Any) -> str:
    result = checked(an_event(**changes), **(limits or {}))
    assert result.events == []
    return result.errors[0].code


def problem(text: bytes, **changes: Any) -> Problem:
    with pytest.raises(Problem) as raised:
        reader(**changes).read(text)
    return raised.value


def test_one_event_and_a_batch_name_their_user_or_not() -> None:
    read = reader().read(json.dumps({**an_event(), "userId": str(USER)}).encode())
    assert (read.named, read.items, read.is_batch) == (USER, [an_event()], False)
    read = reader().read(json.dumps({"interactions": [an_event(), 3], "user_id": str(USER)}).encode())
    assert (read.named, read.items, read.is_batch) == (USER, [an_event(), 3], True)
    assert reader().read(b'{"interactions": [{}]}').named is None


def test_both_spellings_mean_the_same() -> None:
    camel = {"postId": POST, "interactionType": "like", "clientTime": 1795435200000, "id": str(USER)}
    snake = {"post_id": POST, "interaction_type": "like", "client_time": 1795435200000, "id": str(USER)}
    one, other = checked(camel, snake).events
    assert one == other
    assert (one.id, one.user_id, one.post_id, one.interaction_type) == (USER, USER, UUID(POST), "like")


def test_events_without_an_id_get_different_ones() -> None:
    one, other = checked(an_event(), an_event(id=None)).events
    assert one.id != other.id


def test_further_types_are_a_setting() -> None:
    assert code(interaction_type="hide") == "unknown_type"
    assert checked(an_event(interaction_type="hide"), extra_interaction_types="hide").errors == []
    assert code(interaction_type="view", limits={"interaction_weights": {"read": 1.0}}) == "unknown_type"


def test_metadata_is_kept_as_it_is() -> None:
    metadata = {"rank": 3, "text": 'né"\\u0000', "deep": {"a": [1, {"b": None}]}, "x": 1.5, "big": 2**63 - 1}
    assert kept(metadata=metadata) == metadata
    assert kept(metadata={}) == {}
    assert kept(metadata=None) is None
    assert kept() is None


@pytest.mark.parametrize(
    "given_as", ["2026-11-23T11:59:58.250Z", "2026-11-23T12:59:58.250+01:00", 1795435198250]
)
def test_the_client_s_time_goes_into_the_metadata_in_utc(given_as: Any) -> None:
    stamp = "2026-11-23T11:59:58.250Z"
    assert kept(client_time=given_as) == {"client_time": stamp}
    assert kept(client_time=given_as, metadata={}) == {"client_time": stamp}
    assert kept(client_time=given_as, metadata={"a": 1, "client_time": "mine"}) == {
        "a": 1,
        "client_time": stamp,
    }


def test_clocks_may_differ_as_far_as_the_setting_says() -> None:
    limits = {"track_max_clock_skew_s": 60.0}
    for seconds in (-60, 60):
        when = (NOW + timedelta(seconds=seconds)).isoformat()
        assert checked(an_event(client_time=when), **limits).errors == []
    for seconds in (-61, 61):
        when = (NOW + timedelta(seconds=seconds)).isoformat()
        assert code(client_time=when, limits=limits) == "client_time_out_of_range"


@pytest.mark.parametrize(
    "value",
    ["yesterday", "2026-11-23T12:00:00", "2026-11-23", "", True, [], {}, 1e300, 10**30, -(10**15), "9" * 50],
)
def test_times_that_are_none_are_refused(value: Any) -> None:
    assert code(client_time=value) == "bad_client_time"


@pytest.mark.parametrize(
    "value",
    [
        *(None, 5, "", "x", [POST], "' OR 1=1 --", "../../etc/passwd", "٠" * 36),
        *(POST.replace("-", ""), f"{{{POST}}}", f"urn:uuid:{POST}", f"{POST}\n", f"{POST[:-1]}g"),
        "0b1c1c1e-5f0e-4b8a-9a50-5b2b1a2c3d_e",
    ],
)
def test_a_post_id_is_a_uuid_with_its_dashes(value: Any) -> None:
    assert code(post_id=value) == "bad_post_id"


def test_other_fields_are_checked_one_by_one() -> None:
    assert code(id=7) == "bad_id"
    assert code(interaction_type=None) == "unknown_type"
    assert code(interaction_type=["view"]) == "unknown_type"
    assert code(metadata=[1]) == "bad_metadata"
    assert code(metadata="text") == "bad_metadata"
    assert code(postId=POST) == "field_twice"
    assert code(post="x") == "unknown_field"
    assert [error.code for error in checked(None, 3, "x", []).errors] == ["bad_event"] * 4


def test_metadata_has_a_largest_size_and_depth() -> None:
    limits = {"track_max_metadata_bytes": 100, "track_max_metadata_depth": 3}
    assert checked(an_event(metadata={"a": "x" * 92}), **limits).errors == []
    assert code(metadata={"a": "x" * 93}, limits=limits) == "metadata_too_large"
    assert code(metadata={"a": "é" * 47}, limits=limits) == "metadata_too_large"  # bytes, not characters
    assert checked(an_event(metadata={"a": [{"b": 1}]}), **limits).errors == []
    assert checked(an_event(metadata={"a": [1], "b": [2], "c": {}, "d": []}), **limits).errors == []
    assert code(metadata={"a": [{"b": []}]}, limits=limits) == "metadata_too_deep"


def test_metadata_that_postgresql_cannot_keep_is_refused() -> None:
    for value in ("a\0b", {"a\0": 1}, ["\0"], 2**63, -(2**63) - 1, 10**400, float("inf"), float("nan")):
        assert code(metadata={"a": value}) == "bad_metadata"


def test_errors_carry_the_index_and_cost_the_others_nothing() -> None:
    result = checked(an_event(), an_event(post_id="x"), an_event(), 5)
    assert result.indexes == [0, 2]
    assert [(error.index, error.code) for error in result.errors] == [(1, "bad_post_id"), (3, "bad_event")]


def test_what_is_shown_of_a_wrong_value_is_short() -> None:
    [error] = checked(an_event(post_id="x" * 10_000)).errors
    assert len(error.message) < 200


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        (b"", 400, "bad_json"),
        (b"{", 400, "bad_json"),
        (b"[]", 400, "bad_body"),
        (b"null", 400, "bad_body"),
        (b'"text"', 400, "bad_body"),
        (b'{"a": 1, "a": 1}', 400, "duplicate_key"),
        (b'{"metadata": {"a": {"b": 1, "b": 2}}}', 400, "duplicate_key"),
        (b'{"a": 1, "a": "\\u003a"}', 400, "duplicate_key"),
        (b'{"a": 1, "a": "\\u003A"}', 400, "duplicate_key"),
        (b'{"user_id": "x"}', 422, "bad_user_id"),
        (b'{"user_id": 5}', 422, "bad_user_id"),
        (b'{"user_id": null, "userId": null}', 422, "field_twice"),
        (b'{"interactions": []}', 422, "bad_interactions"),
        (b'{"interactions": {}}', 422, "bad_interactions"),
        (b'{"interactions": null}', 422, "bad_interactions"),
        (b'{"interactions": [{}], "post_id": "x"}', 422, "unknown_field"),
        (b'{"interactions": [1, 2, 3]}', 422, "too_many_events"),
    ],
)
def test_a_body_that_is_wrong_as_a_whole_is_refused_as_a_whole(
    text: bytes, status: int, expected: str
) -> None:
    raised = problem(text, track_max_batch=2)
    assert (raised.status, raised.code) == (status, expected)


def test_half_a_character_becomes_the_replacement_character() -> None:
    read = reader().read(b'{"metadata": {"\\ud83d": "cut \\ud83d", "whole": "\\ud83d\\ude00"}}')
    assert read.items == [{"metadata": {"\ufffd": "cut \ufffd", "whole": "😀"}}]


def test_colons_in_strings_are_no_repeated_names() -> None:
    text = rb'{"metadata": {"a:b": "c:\u003a:d", "e": ":"}}'
    assert reader().read(text).items == [{"metadata": {"a:b": "c:::d", "e": ":"}}]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        body = reader().read(text)
    except Problem:
        return
    reader().check(body.items, USER, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
_FIELDS = st.sampled_from(["id", "post_id", "postId", "interaction_type", "metadata", "client_time", "other"])


@unhurried(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(_FIELDS, _JSON | st.just(POST) | st.just("view"), max_size=6))
def test_any_event_is_taken_or_refused_with_a_code(item: dict[str, Any]) -> None:
    result = checked(item)
    assert len(result.events) + len(result.errors) == 1
    for each in result.events:
        if each.metadata is not None:
            json.loads(each.metadata)
