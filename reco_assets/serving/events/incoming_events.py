"""What a tracking request says, checked: the body as a whole, then event by event.

What is wrong with the body as a whole is an answer of its own (`Problem`); what is wrong with one event
is reported beside it and costs the others nothing.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID, uuid4

from pydantic_core import from_json, to_json

from reco_assets.serving.http.problems import Problem
from reco_assets.settings import Settings
from reco_assets.store.event_writes import NewEvent

_SPELLINGS: Final = {
    "id": "id",
    "post_id": "post_id",
    "postId": "post_id",
    "interaction_type": "interaction_type",
    "interactionType": "interaction_type",
    "metadata": "metadata",
    "client_time": "client_time",
    "clientTime": "client_time",
}
_FIELDS: Final = tuple(dict.fromkeys(_SPELLINGS.values()))
_USER_SPELLINGS: Final = ("user_id", "userId")
_BATCH: Final = "interactions"
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LARGEST_INTEGER: Final = 2**63
_LONGEST_SHOWN: Final = 60
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class EventError:
    """What is wrong with one event of a request; `index` counts from 0."""

    index: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Body:
    """A body that can be read.

    Attributes:
        named: the user it names, if any.
        items: its events, unchecked.
        is_batch: whether they came as a list.
    """

    named: UUID | None
    items: list[Any]
    is_batch: bool


@dataclass(frozen=True, slots=True)
class CheckedEvents:
    """The good events with their indexes, and what is wrong with the others."""

    events: list[NewEvent]
    indexes: list[int]
    errors: list[EventError]


class _Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EventReader:
    """Reads tracking requests under the limits of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._types = frozenset(settings.tracked_types)
        self._most_events = settings.track_max_batch
        self._most_bytes = settings.track_max_metadata_bytes
        self._deepest = settings.track_max_metadata_depth
        self._skew = timedelta(seconds=settings.track_max_clock_skew_s)

    def read(self, text: bytes) -> Body:
        """Parse a body.

        Raises:
            Problem: 400 if it is no JSON object, 422 if its outline is wrong or it holds too many events.
        """
        content = _parse(text)
        if not isinstance(content, dict):
            raise Problem(
                400, "bad_body", 'The body must be a JSON object: one event, or {"interactions": [...]}.'
            )
        named = _named_user(content)
        if _BATCH not in content:
            return Body(named, [content], is_batch=False)
        items = content.pop(_BATCH)
        if content:
            raise Problem(
                422,
                "unknown_field",
                f"Beside {_BATCH} the body has {_shown(next(iter(content)))}; only user_id can be there.",
            )
        if not isinstance(items, list) or not items:
            raise Problem(422, "bad_interactions", f"{_BATCH} must be a list of at least one event.")
        if len(items) > self._most_events:
            raise Problem(
                422,
                "too_many_events",
                f"The batch has {len(items)} events; at most {self._most_events} are taken. Send several.",
            )
        return Body(named, items, is_batch=True)

    def check(self, items: Sequence[Any], user_id: UUID, now: datetime) -> CheckedEvents:
        """Check every event; `now` is what `client_time` is compared with."""
        checked = CheckedEvents([], [], [])
        for index, item in enumerate(items):
            try:
                checked.events.append(self._event(item, user_id, now))
                checked.indexes.append(index)
            except _Refused as reason:
                checked.errors.append(EventError(index, reason.code, str(reason)))
        return checked

    def _event(self, item: Any, user_id: UUID, now: datetime) -> NewEvent:
        if not isinstance(item, dict):
            raise _Refused("bad_event", f"An event is a JSON object, not {_shown(item)}.")
        event_id, post_id, interaction_type, metadata, client_time = map(item.get, _layout(tuple(item)))
        post_uuid = _uuid(post_id, "post_id")
        if not isinstance(interaction_type, str) or interaction_type not in self._types:
            raise _Refused(
                "unknown_type",
                f"interaction_type is {_shown(interaction_type)}; there are "
                f"{', '.join(sorted(self._types))}.",
            )
        return NewEvent(
            uuid4() if event_id is None else _uuid(event_id, "id"),
            user_id,
            post_uuid,
            interaction_type,
            self._metadata(metadata, client_time, now),
        )

    def _metadata(self, metadata: Any, client_time: Any, now: datetime) -> bytes | None:
        """The JSON text to store, the client's time within; None if there is nothing to store."""
        stamp = None if client_time is None else self._client_time(client_time, now)
        if metadata is None:
            return None if stamp is None else b'{"client_time":"%s"}' % stamp
        if not isinstance(metadata, dict):
            raise _Refused("bad_metadata", f"metadata must be a JSON object, not {_shown(metadata)}.")
        try:
            text = to_json(metadata)
        except ValueError:  # nested deeper than a serializer goes
            raise self._too_deep() from None
        if len(text) > self._most_bytes:
            raise _Refused(
                "metadata_too_large",
                f"metadata has {len(text)} bytes as JSON; RECO_TRACK_MAX_METADATA_BYTES allows "
                f"{self._most_bytes}.",
            )
        # Most metadata is flat and harmless, which its text shows faster than its values.
        if (
            text.count(b"{") + text.count(b"[") > 1
            or b"Infinity" in text
            or b"NaN" in text
            or b"\\u0000" in text
            or not all(map(_fits, metadata.values()))
        ):
            self._look_closer(metadata)
        if stamp is None:
            return text
        if "client_time" in metadata:
            text = to_json({key: value for key, value in metadata.items() if key != "client_time"})
        comma = b"" if text == b"{}" else b","
        return b'%s%s"client_time":"%s"}' % (text[:-1], comma, stamp)

    def _look_closer(self, metadata: dict[str, Any]) -> None:
        level: list[Any] = [metadata]
        depth = 1
        while level:
            below: list[Any] = []
            for value in level:
                if isinstance(value, str):
                    if "\0" in value:
                        raise _Refused(
                            "bad_metadata", "metadata has a null character, which cannot be stored."
                        )
                elif isinstance(value, int):
                    if not _fits(value):
                        raise _Refused("bad_metadata", "metadata has an integer of more than 64 bits.")
                elif isinstance(value, float):
                    if not math.isfinite(value):
                        raise _Refused("bad_metadata", "metadata has a number out of range.")
                elif isinstance(value, dict):
                    below += [*value.keys(), *value.values()]
                elif isinstance(value, list):
                    below += value
            depth += any(isinstance(value, dict | list) for value in below)
            if depth > self._deepest:
                raise self._too_deep()
            level = below

    def _too_deep(self) -> _Refused:
        return _Refused(
            "metadata_too_deep",
            f"metadata is nested deeper than RECO_TRACK_MAX_METADATA_DEPTH ({self._deepest}).",
        )

    def _client_time(self, value: Any, now: datetime) -> bytes:
        """The client's time as ISO 8601 in UTC."""
        when = _instant(value)
        if when is None:
            raise _Refused(
                "bad_client_time",
                f"client_time is {_shown(value)}; expected ISO 8601 with a zone, or milliseconds since 1970.",
            )
        if abs(when - now) > self._skew:
            raise _Refused(
                "client_time_out_of_range",
                f"client_time is {when:%Y-%m-%dT%H:%M:%SZ}; it may differ from the server's time by "
                f"RECO_TRACK_MAX_CLOCK_SKEW_S ({self._skew.total_seconds():g} s).",
            )
        return when.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()


def _fits(value: Any) -> bool:
    return not isinstance(value, int) or -_LARGEST_INTEGER <= value < _LARGEST_INTEGER


@lru_cache(maxsize=128)
def _layout(names: tuple[str, ...]) -> tuple[str, ...]:
    """Which spelling each field has, in the order of `_FIELDS`: a client's events all look alike.

    Raises:
        _Refused: there is another field, or one in two spellings. (That is not cached, so the cache holds
            nothing but our own names.)
    """
    found: dict[str, str] = {}
    for given in names:
        name = _SPELLINGS.get(given)
        if name is None:
            raise _Refused(
                "unknown_field", f"There is no field {_shown(given)}; there are {', '.join(_SPELLINGS)}."
            )
        if name in found:
            raise _Refused("field_twice", f"{name} is there in two spellings.")
        found[name] = given
    return tuple(found.get(name, name) for name in _FIELDS)


def _instant(value: Any) -> datetime | None:
    try:
        if isinstance(value, str) and len(value) <= 40:
            when = datetime.fromisoformat(value)
            return None if when.tzinfo is None else when.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _EPOCH + timedelta(milliseconds=value)
    except (ValueError, OverflowError):
        pass
    return None


def _named_user(content: dict[str, Any]) -> UUID | None:
    given = [content.pop(name) for name in _USER_SPELLINGS if name in content]
    if len(given) > 1:
        raise Problem(422, "field_twice", "user_id is there in two spellings.")
    if not given or given[0] is None:
        return None
    try:
        return _uuid(given[0], "user_id")
    except _Refused as reason:
        raise Problem(422, reason.code, str(reason)) from None


def _uuid(value: Any, name: str) -> UUID:
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise _Refused(f"bad_{name}", f"{name} is {_shown(value)}; expected a UUID with its dashes.")
    return UUID(value)


def _shown(value: Any) -> str:
    """The value as JSON, shortened: an answer is no place for a megabyte."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        text = json.dumps(value[:_LONGEST_SHOWN])  # in ASCII, whatever half characters are in it
        return text if len(value) <= _LONGEST_SHOWN else f"{text} …"
    if isinstance(value, int) and abs(value) >= _LARGEST_INTEGER:
        return "an integer of more than 64 bits"
    return "missing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _parse(text: bytes) -> Any:
    try:
        content = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        if "escape" not in str(error) and "surrogate" not in str(error):
            raise _no_json(str(error)) from None
        return _parse_slowly(text)
    # A name that occurs twice is lost in a dict, and its colon with it. Which one counts would be a guess. An
    # escaped colon, which to_json writes as itself, would make up for the lost one.
    if rb"\u003" in text or to_json(content).count(b":") != text.count(b":"):
        return _parse_slowly(text)
    return content


def _parse_slowly(text: bytes) -> Any:
    """By the standard library, which can look for repeated names and takes half a character.

    Scripts cut strings in the middle of a character that takes two `\\u` escapes. That must not cost the
    batch: a half becomes a replacement character.
    """
    try:
        return json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _no_json(str(error)) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {_whole(name): _whole(value) if isinstance(value, str) else value for name, value in pairs}
    if len(found) < len(pairs):
        raise Problem(400, "duplicate_key", "An object of the body has a name twice. Send each once.")
    return found


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _no_json(reason: str) -> Problem:
    return Problem(400, "bad_json", f"The body is not valid JSON in UTF-8: {reason}.")
