"""`POST /api/track`: events come in, and are acknowledged once they are committed."""

import asyncio
from collections import Counter
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from reco_assets.errors import RecoError
from reco_assets.serving.events.incoming_events import CheckedEvents, EventError, EventReader
from reco_assets.serving.http.identity import acting_user
from reco_assets.serving.http.problems import Problem, documented
from reco_assets.serving.service import Service
from reco_assets.settings import Settings

router = APIRouter()

_MEDIA_TYPES: Final = ("application/json", "text/plain")
"""A page that closes can send text/plain only without asking for permission first (`sendBeacon`)."""
_NOT_STORED: Final = {
    "unknown_post": "There is no such post (any more). Drop the event.",
    "unknown_user": "There is no such user. Drop the event.",
    "refused": "A rule of the database (a constraint, a trigger) refuses the event. Drop it.",
}


class Event(BaseModel):
    """One interaction. Fields may be spelled in camelCase (`postId`)."""

    model_config = ConfigDict(extra="forbid")

    post_id: UUID
    interaction_type: str = Field(
        max_length=20,
        description="`view`, `click`, `like`, `share`, or a further type of RECO_INTERACTION_WEIGHTS or "
        "RECO_EXTRA_INTERACTION_TYPES.",
        examples=["like"],
    )
    metadata: dict[str, Any] | None = Field(
        None, description="Kept as it is, within the limits of RECO_TRACK_MAX_METADATA_BYTES and …_DEPTH."
    )
    id: UUID | None = Field(
        None, description="Made by the client; an event sent twice with the same id is stored once."
    )
    client_time: AwareDatetime | int | None = Field(
        None, description="When it happened by the client's clock: ISO 8601, or milliseconds since 1970."
    )


class SingleEvent(Event):
    """One interaction of one user."""

    user_id: UUID | None = Field(None, description="Needed unless a token names the user.")


class Batch(BaseModel):
    """Interactions of one user."""

    model_config = ConfigDict(extra="forbid")

    interactions: list[Event] = Field(min_length=1, description="At most RECO_TRACK_MAX_BATCH.")
    user_id: UUID | None = Field(None, description="Needed unless a token names the user.")


class TrackError(BaseModel):
    """Why one event of a batch was not stored; sending it again will not help."""

    index: int = Field(description="Its place in `interactions`, from 0.")
    code: str = Field(description="For programs; stable.", examples=["unknown_post"])
    message: str = Field(description="For people.")


class Tracked(BaseModel):
    """What became of the events. Each of them was stored, was a duplicate, or has an error."""

    success: bool = Field(description="Whether there are no errors.")
    tracked: int = Field(description="Events stored by this request.")
    duplicates: int = Field(description="Events whose id was there before, or twice in this request.")
    errors: list[TrackError]


def _request_body() -> dict[str, Any]:
    schema = TypeAdapter(SingleEvent | Batch).json_schema()
    definitions = schema.pop("$defs")

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolved(definitions[node["$ref"].rpartition("/")[2]])
            return {key: resolved(value) for key, value in node.items()}
        return [resolved(value) for value in node] if isinstance(node, list) else node

    content = {media_type: {"schema": resolved(schema)} for media_type in _MEDIA_TYPES}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/api/track",
    response_model=Tracked,
    responses=documented(400, 401, 403, 408, 413, 415, 422, 503),
    openapi_extra=_request_body(),
    tags=["tracking"],
)
async def track(request: Request) -> Response:
    """Store one event or a batch of one user's events.

    An event is acknowledged only after it is committed. Good events of a batch are stored, bad ones are
    reported by index (status 200, also if all are bad); a single bad event is 422. After 503, send the
    same events with the same ids again.
    """
    service: Service = request.app.state.service
    reader = _reader(request, service)
    _check_type(request)
    # Before the body is read: who has no credentials must not keep us busy.
    subject = None
    if service.identity.names_anybody:
        service.identity.admit(request)
    else:
        subject = acting_user(request, None)
    body = reader.read(await _body(request, service.settings))
    if subject is None or body.named not in (None, subject):
        subject = acting_user(request, body.named)
    checked = reader.check(body.items, subject, service.clock())
    if not body.is_batch:
        for error in checked.errors:
            _count(service, Counter([error.code]))
            raise Problem(422, error.code, error.message)
    tracked, duplicates, errors, counts = await _write(service, checked)
    _count(service, counts)
    if errors and not body.is_batch:
        raise Problem(422, errors[0].code, errors[0].message)
    answer = {
        "success": not errors,
        "tracked": tracked,
        "duplicates": duplicates,
        "errors": [{"index": e.index, "code": e.code, "message": e.message} for e in errors],
    }
    return Response(to_json(answer), media_type="application/json")


async def _write(
    service: Service, checked: CheckedEvents
) -> tuple[int, int, list[EventError], "Counter[str]"]:
    try:
        outcomes = await service.writer.write(checked.events)
    except RecoError:
        _count(service, Counter(unavailable=len(checked.events)))
        raise
    errors = list(checked.errors)
    counts: Counter[str] = Counter(error.code for error in errors)
    for index, outcome in zip(checked.indexes, outcomes, strict=True):
        counts[outcome] += 1
        if outcome in _NOT_STORED:
            errors.append(EventError(index, outcome, _NOT_STORED[outcome]))
    errors.sort(key=lambda error: error.index)
    return counts["stored"], counts["duplicate"], errors, counts


def _reader(request: Request, service: Service) -> EventReader:
    """One per application; it only holds limits."""
    state = request.app.state
    if not hasattr(state, "event_reader"):
        state.event_reader = EventReader(service.settings)
    reader: EventReader = state.event_reader
    return reader


def _check_type(request: Request) -> None:
    given = request.headers.get("content-type", "")
    media_type, _, parameters = given.partition(";")
    if media_type.strip().lower() not in _MEDIA_TYPES:
        raise Problem(
            415, "unsupported_type", f"Content-Type is {given[:60]!r}; send application/json or text/plain."
        )
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if charset not in ("", "utf-8", "utf8"):
        raise Problem(415, "unsupported_type", f"Content-Type has {parameters.strip()[:60]!r}; send UTF-8.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_encoding", "Compressed bodies are not read. Send it plain.")


async def _body(request: Request, settings: Settings) -> bytes:
    """The body, if it comes in time: a caller who sends a byte now and then must not hold a request open."""
    try:
        async with asyncio.timeout(settings.track_timeout_s):
            return await _read(request, settings.track_max_body_bytes)
    except TimeoutError:
        raise Problem(
            408,
            "body_too_slow",
            f"The body did not arrive within RECO_TRACK_TIMEOUT_S ({settings.track_timeout_s:g} s). Send it "
            "again, in smaller batches.",
            {"Connection": "close"},
        ) from None


async def _read(request: Request, most_bytes: int) -> bytes:
    """The body, without ever holding more than the limit and one chunk."""
    # The rest of a body that is too large is not read: the connection ends with the answer.
    too_large = Problem(
        413,
        "body_too_large",
        f"The body is larger than RECO_TRACK_MAX_BODY_BYTES ({most_bytes}). Send smaller batches.",
        {"Connection": "close"},
    )
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > most_bytes:
        raise too_large
    chunks = bytearray()
    try:
        async for chunk in request.stream():
            chunks += chunk
            if len(chunks) > most_bytes:
                raise too_large
    except ClientDisconnect:
        raise Problem(400, "incomplete_body", "The connection ended before the body did.") from None
    return bytes(chunks)


def _count(service: Service, outcomes: "Counter[str]") -> None:
    for outcome, count in outcomes.items():
        service.metrics.events.labels(outcome).inc(count)
