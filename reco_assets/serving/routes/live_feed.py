"""`GET /api/feeds/live`, a WebSocket: tells an open page that its feed has changed.

Messages say that there is something new, never what: the page asks for its feed again. Whichever process
stored the user's events, the one that holds the socket sees them with its next look at the database.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect
from pydantic_core import to_json

from reco_assets.serving.http.identity import SOCKET_PROTOCOL, acting_session
from reco_assets.serving.http.problems import Problem, error_response

if TYPE_CHECKING:
    from reco_assets.serving.realtime.feed_changes import Message
    from reco_assets.serving.service import Clock, Service

router = APIRouter(tags=["feeds"])

TOKEN_EXPIRED: Final = 4401
"""What a page is told whose token would be refused by now: to come back with another."""
_GOING_AWAY: Final = 1001
_LOOK_EVERY_S = 30.0
"""How often a page's token is looked at, at least: clocks are set, machines sleep."""
_TAKEN_WITHIN_S = 10.0
"""How long a message may wait for a page that does not read. Its place is another's then."""
_MOST_OF_ONE_USER: Final = 10
"""Pages; one user must not take everybody's."""
_MOST_INCOMING: Final = 1000
"""Messages a page may send, which it has no reason to."""


@router.websocket("/api/feeds/live")
async def live_feed(socket: WebSocket, user_id: Annotated[UUID | None, Query()] = None) -> None:
    """`{"type": "feed_changed", "reason": "your_events" | "new_generation", "generation_id": …}`."""
    service: Service = socket.app.state.service
    changes = service.realtime.changes
    try:
        service.identity.check_page(socket)  # CORS does not cover WebSockets
        user, ends_at = acting_session(socket, user_id)
        if changes.pages_of(user) >= _MOST_OF_ONE_USER:
            raise Problem(
                429,
                "too_many_sockets",
                f"This user has {_MOST_OF_ONE_USER} pages connected, as many as one user may. Close some.",
                {"Retry-After": "30"},
            )
        if len(changes) >= service.settings.live_feed_sockets:
            raise Problem(
                503,
                "too_many_sockets",
                f"{len(changes)} pages are connected, as many as RECO_LIVE_FEED_SOCKETS allows. Try later.",
                {"Retry-After": "30"},
            )
    except Problem as problem:
        await _refuse(socket, problem)
        return
    # Before the page is told that it is connected: what happens from then on reaches it.
    messages = changes.subscribe(user)
    try:
        offered = socket.headers.get("Sec-WebSocket-Protocol", "").partition(",")[0].strip()
        await socket.accept(subprotocol=SOCKET_PROTOCOL if offered == SOCKET_PROTOCOL else None)
        await _relay(socket, messages, ends_at, service.clock)
    finally:
        changes.unsubscribe(user, messages)


async def _relay(
    socket: WebSocket, messages: "asyncio.Queue[Message | None]", ends_at: float | None, clock: "Clock"
) -> None:
    """Pass messages on until the page leaves, its token expires or the service stops."""
    leaving = asyncio.create_task(_until_it_leaves(socket))
    waiting: asyncio.Task[Message | None] | None = None
    try:
        while True:
            waiting = waiting or asyncio.create_task(messages.get())
            left = _LOOK_EVERY_S if ends_at is None else ends_at - clock().timestamp()
            if left <= 0:
                async with asyncio.timeout(_TAKEN_WITHIN_S):
                    await socket.close(TOKEN_EXPIRED, "token expired")
                return
            await asyncio.wait(
                {waiting, leaving}, timeout=min(left, _LOOK_EVERY_S), return_when=asyncio.FIRST_COMPLETED
            )
            if leaving.done():
                return
            if not waiting.done():
                continue
            message, waiting = waiting.result(), None
            async with asyncio.timeout(_TAKEN_WITHIN_S):
                if message is None:
                    await socket.close(_GOING_AWAY)
                    return
                await socket.send_text(to_json(message).decode())
    # It left in the middle of a message, or does not read.
    except (WebSocketDisconnect, RuntimeError, TimeoutError):
        return
    finally:
        if waiting is not None:
            waiting.cancel()  # the service may end this while nothing is done
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving


async def _until_it_leaves(socket: WebSocket) -> None:
    """Nothing is expected from the page; the server's pings notice one that is gone without a word."""
    for _ in range(_MOST_INCOMING):
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return


async def _refuse(socket: WebSocket, problem: Problem) -> None:
    """Answer the handshake with the status and the usual error, where the server can."""
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        response = error_response(problem.status, problem.code, problem.message, problem.headers)
        await socket.send_denial_response(response)
    else:
        await socket.close(1008)
