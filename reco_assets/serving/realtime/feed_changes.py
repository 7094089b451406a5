"""Who is told that a feed has changed: pages that are open, by user."""

import asyncio
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

if TYPE_CHECKING:
    from reco_assets.recommender.live_lists import LiveAnswer, LiveState

Reason = Literal["your_events", "new_generation"]

_TOP: Final = 10
"""Posts whose change is worth a message."""
_DEPTH: Final = 40
_WAITING: Final = 4
"""Messages kept for a page that does not read; they all say the same: look again."""

_TOLD_PER_S: Final = 100
"""Pages that hear of a new generation each second: all of them ask for their feed at once then."""

Message = dict[str, Any]


class FeedChanges:
    """Takes notice on the thread of live votes, and hands messages over to the event loop.

    Attributes:
        loop: where the pages are served.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._queues: dict[bytes, list[asyncio.Queue[Message | None]]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(queues) for queues in self._queues.values())

    def pages_of(self, user_id: UUID) -> int:
        """How many pages this user has open."""
        with self._lock:
            return len(self._queues.get(user_id.bytes, ()))

    def subscribe(self, user_id: UUID) -> "asyncio.Queue[Message | None]":
        """Messages for a page of this user; None ends them."""
        queue: asyncio.Queue[Message | None] = asyncio.Queue(_WAITING)
        with self._lock:
            self._queues.setdefault(user_id.bytes, []).append(queue)
        return queue

    def unsubscribe(self, user_id: UUID, queue: "asyncio.Queue[Message | None]") -> None:
        """No more messages for this page."""
        with self._lock:
            queues = self._queues.get(user_id.bytes, [])
            if queue in queues:
                queues.remove(queue)
            if not queues:
                self._queues.pop(user_id.bytes, None)

    def tell_all(self, generation_id: UUID) -> None:
        """A new generation is live: say so to one page after the other."""
        with self._lock:
            queues = [queue for each in self._queues.values() for queue in each]
        if self.loop is not None and not self.loop.is_closed():
            message = _message("new_generation", generation_id)
            self.loop.call_soon_threadsafe(_put_slowly, self.loop, queues, message)

    def tell_some(
        self, before: "LiveState", after: "LiveState", user_ids: Iterable[bytes], generation_id: UUID
    ) -> None:
        """These users did something: tell those whose top of the list is another one now."""
        with self._lock:
            pages = {user: list(self._queues[user]) for user in user_ids if user in self._queues}
        # One state after the other: a thread's workspace is made anew where other posts are eligible.
        old = [before.recommend(user, _DEPTH) for user in pages]
        new = [after.recommend(user, _TOP) for user in pages]
        for (user, queues), earlier, now in zip(pages.items(), old, new, strict=True):
            if now is not None and _is_news(earlier, now, after.seen(user)):
                self._send(queues, _message("your_events", generation_id))

    def close(self) -> None:
        """End all pages' messages."""
        with self._lock:
            queues = [queue for each in self._queues.values() for queue in each]
        self._send(queues, None)

    def _send(self, queues: "list[asyncio.Queue[Message | None]]", message: Message | None) -> None:
        if not queues or self.loop is None or self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(_put, queues, message)


def _put_slowly(
    loop: asyncio.AbstractEventLoop, queues: "list[asyncio.Queue[Message | None]]", message: Message
) -> None:
    for number, queue in enumerate(queues):
        loop.call_later(number / _TOLD_PER_S, _put, [queue], message)


def _put(queues: "list[asyncio.Queue[Message | None]]", message: Message | None) -> None:
    for queue in queues:
        if queue.full() and message is None:
            queue.get_nowait()
        if not queue.full():
            queue.put_nowait(message)


def _message(reason: Reason, generation_id: UUID) -> Message:
    return {"type": "feed_changed", "reason": reason, "generation_id": str(generation_id)}


def _is_news(old: "LiveAnswer | None", new: "LiveAnswer", seen: Sequence[bytes]) -> bool:
    """Whether the top is another one, apart from posts that left it because the user has seen them."""
    gone = set(seen)
    before = [] if old is None else [post for post in old.post_ids if post not in gone]
    return before[:_TOP] != new.post_ids
