"""`GET /api/feeds`: a page of posts for one user."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from reco_assets.errors import BadInput
from reco_assets.serving.feeds import cursor as cursors
from reco_assets.serving.feeds.answer import FeedAnswer, answer_body
from reco_assets.serving.feeds.lists import Entry
from reco_assets.serving.feeds.live_filter import LiveFilter, Wish
from reco_assets.serving.feeds.parameters import FeedParameters, documentation, read_parameters
from reco_assets.serving.feeds.search import new_list
from reco_assets.serving.http.identity import acting_user
from reco_assets.serving.http.problems import Problem, documented

if TYPE_CHECKING:
    from uuid import UUID

    from reco_assets.serving.service import Service


class _PlainRoute(APIRoute):
    """Calls its function with the request; FastAPI only describes it, for it reads its parameters itself."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


router = APIRouter(tags=["feeds"], route_class=_PlainRoute)

_chance = random.Random()
"""For exploration and random posts. Not seeded by the request id, which a client may repeat for ever."""


@router.get(
    "/api/feeds",
    response_model=None,
    summary="A page of posts for one user",
    responses={200: {"model": FeedAnswer, "description": "A page."}, **documented(400, 401, 403, 422)},
    openapi_extra={"parameters": documentation()},
)
async def feeds(request: Request) -> Response:
    """Posts for one user, best first, each with where it comes from and why.

    Answered whatever fails behind it: `metadata` says what was missing. `next_cursor` continues the list
    without repeats or gaps, also when new recommendations are published in between.
    """
    service: Service = request.app.state.service
    asked = read_parameters(request.scope["query_string"], service.settings)
    user_id = acting_user(request, asked.named)
    wish = Wish(
        user_id=user_id,
        user=str(user_id),
        limit=asked.limit,
        exclude=asked.exclude,
        now=service.clock(),
        deadline=asyncio.get_running_loop().time() + service.settings.feed_timeout_s,
    )
    live_filter = LiveFilter(service, wish)
    rest = await _list_of(service, asked, wish, live_filter)
    page = list(islice((entry for entry in rest.entries if live_filter.admits(entry[0])), wish.limit))
    body, sources = answer_body(
        page,
        rest.origin,
        live_filter,
        served=rest.served,
        request_id=request.scope["state"]["reco_request_id"],
        next_cursor=_next_cursor(rest, page, user_id),
    )
    _count(service, request, asked, rest, sources)
    return Response(body, media_type="application/json")


async def _list_of(
    service: "Service", asked: FeedParameters, wish: Wish, live_filter: LiveFilter
) -> cursors.Rest:
    """The list that the cursor continues, or a new one, with its first page judged."""
    if asked.cursor is not None:
        try:
            rest = cursors.decode(asked.cursor, wish.user_id)
        except BadInput as error:
            raise Problem(400, "bad_cursor", str(error)) from None
        return replace(rest, entries=await live_filter.settle(rest.entries))
    experiment = service.experiment
    arm = None if experiment is None else experiment.arm(wish.user_id)
    entries, origin = await new_list(service, wish, live_filter, arm, _chance)
    if experiment is not None:
        origin = replace(origin, experiment=experiment.name, arm=arm)
    return cursors.Rest(entries, 0, origin)


def _next_cursor(rest: cursors.Rest, page: list[Entry], user_id: "UUID") -> str | None:
    """What comes after the page: of the posts before its end, those not served were refused."""
    if not page:
        return None
    end = rest.entries.index(page[-1]) + 1
    if end == len(rest.entries):
        return None
    return cursors.encode(replace(rest, entries=rest.entries[end:], served=rest.served + len(page)), user_id)


def _count(
    service: "Service",
    request: Request,
    asked: FeedParameters,
    rest: cursors.Rest,
    sources: dict[str, int],
) -> None:
    request.scope["state"]["reco_source"] = next(iter(sources), "none")
    for source, n in sources.items():
        service.metrics.served.labels(source).inc(n)
    if asked.cursor is None and rest.origin.fallback_reason is not None:
        service.metrics.fallbacks.labels(rest.origin.fallback_reason).inc()
