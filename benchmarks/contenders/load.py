"""Load on an HTTP server: requests at a fixed rate, or as many as are answered."""

import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit
from uuid import UUID

import httptools
import numpy as np

from benchmarks.contenders.base import Contender, Seconds

_SOURCE: Final = b'"source":"'
_MOST_CONNECTIONS: Final = 256
_DRAIN_S: Final = 10.0
_TYPES: Final = ("view", "view", "view", "view", "click", "like", "share")


class LoadGenerator(Contender):
    """Sends feed requests and batches of events, and measures from the moment each was due.

    At a fixed rate a request that has to wait for the one before it shows that in its own time, which a
    loop of request and answer would hide.
    """

    def load(self, directory: Path, threads: int) -> None:  # noqa: ARG002  # one thread, as a browser
        """Users and posts to ask for."""
        self._ids: dict[str, list[str]] = json.loads((directory / "ids.json").read_text())
        self._rng = random.Random(1)

    def run(self) -> Seconds:
        """Nothing: each load is an operation of its own."""
        return {}

    def paced(
        self,
        url: str,
        path: str,
        users: str | None,
        rate: float,
        seconds: float,
        events_per_s: float = 0.0,
        batch: int = 20,
    ) -> dict[str, Any]:
        """GET requests at `rate` a second, and beside them events in batches.

        Args:
            url: of the server.
            path: to get; `{user}` is replaced.
            users: which of the lists in ids.json the users come from.
            rate: requests a second.
            seconds: how long.
            events_per_s: events a second; 0: none.
            batch: events in a request.
        """

        async def main() -> dict[str, Any]:
            gets, posts = _Client(url), _Client(url)
            requests = self._gets(gets.host, path, users)
            work = [_paced(gets, requests, rate, seconds)]
            if events_per_s:
                work.append(_paced(posts, self._batches(posts.host, batch), events_per_s / batch, seconds))
            await asyncio.gather(*work)
            return {"get": gets.measured(seconds), "track": posts.measured(seconds)}

        return _run(main())

    def saturating(
        self, url: str, path: str, users: str | None, connections: int, seconds: float, batch: int = 20
    ) -> dict[str, Any]:
        """As many requests as are answered over so many connections; of events if `path` is empty."""

        async def main() -> dict[str, Any]:
            client = _Client(url)
            requests = self._gets(client.host, path, users) if path else self._batches(client.host, batch)
            took = await _saturating(client, requests, connections, seconds)
            return client.measured(took)

        return _run(main())

    def _gets(self, host: str, path: str, users: str | None) -> Iterator[bytes]:
        chosen = self._ids[users] if users else ["-"]
        while True:
            target = path.replace("{user}", self._rng.choice(chosen))
            yield f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    def _batches(self, host: str, batch: int) -> Iterator[bytes]:
        """As the browser's client sends them: own ids, the place in the feed as metadata."""
        posts, rng = self._ids["posts"], self._rng
        while True:
            items = ",".join(
                f'{{"id":"{UUID(int=rng.getrandbits(128), version=4)}","postId":"{rng.choice(posts)}",'
                f'"interactionType":"{rng.choice(_TYPES)}","clientTime":{time.time() * 1000:.0f},'
                f'"metadata":{{"source":"ml_recommendations","rank":{rank},"request_id":"0123456789abcdef",'
                '"propensity":0.97}}'
                for rank in range(1, batch + 1)
            )
            body = f'{{"userId":"{rng.choice(self._ids["readers"])}","interactions":[{items}]}}'
            yield (
                f"POST /api/track HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode()


class _Client:
    """Keep-alive connections to one server, and what its answers took."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        self._address = (parts.hostname or "", parts.port or 80)
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._n_connections = 0
        self._unanswered: set[float] = set()
        self.milliseconds: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.on_answer: Callable[[_Connection], None] | None = None

    async def connect(self) -> "_Connection":
        self._n_connections += 1
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), *self._address)
        return connection

    async def send(self, request: bytes, due: float) -> None:
        self._unanswered.add(due)
        if self._idle:
            self._idle.popleft().send(request, due)
        elif self._n_connections < _MOST_CONNECTIONS:
            (await self.connect()).send(request, due)
        else:
            self._waiting.append((request, due))

    def answered(self, connection: "_Connection", status: int, body: bytes, due: float) -> None:
        self._unanswered.discard(due)
        self.milliseconds.append((time.perf_counter() - due) * 1000)
        self.statuses[str(status)] += 1
        if (at := body.find(_SOURCE)) >= 0:
            at += len(_SOURCE)
            self.sources[body[at : body.index(b'"', at)].decode()] += 1
        if self.on_answer is not None:
            self.on_answer(connection)
        elif self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def give_up(self) -> None:
        """Count requests without an answer with the time they have waited: they are the slowest."""
        now = time.perf_counter()
        self.statuses["none"] = len(self._unanswered)
        self.milliseconds += [(now - due) * 1000 for due in self._unanswered]

    def measured(self, seconds: float) -> dict[str, Any]:
        answers = np.array(self.milliseconds or [float("nan")])
        p50, p95, p99 = np.percentile(answers, [50, 95, 99])
        return {
            "p50": float(p50),
            "p95": float(p95),
            "p99": float(p99),
            "per_second": self.statuses["200"] / seconds,
            "statuses": dict(self.statuses),
            "sources": dict(self.sources),
        }


class _Connection(asyncio.Protocol):
    def __init__(self, client: _Client) -> None:
        self._client = client
        self._due = 0.0
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._parser = httptools.HttpResponseParser(self)

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        if len(self._body) < 4096:  # the first source stands near the beginning
            self._body += body

    def on_message_complete(self) -> None:
        self._client.answered(self, self._parser.get_status_code(), self._body, self._due)


async def _paced(client: _Client, requests: Iterator[bytes], rate: float, seconds: float) -> None:
    start = time.perf_counter()
    n_requests = round(rate * seconds)
    for number in range(n_requests):
        request = next(requests)
        due = start + number / rate
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        await client.send(request, due)
    deadline = time.perf_counter() + _DRAIN_S
    while len(client.milliseconds) < n_requests and time.perf_counter() < deadline:
        await asyncio.sleep(0.005)
    client.give_up()


async def _saturating(client: _Client, requests: Iterator[bytes], connections: int, seconds: float) -> float:
    start = time.perf_counter()
    running = connections
    finished = asyncio.Event()

    def again(connection: _Connection) -> None:
        nonlocal running
        now = time.perf_counter()
        if now - start < seconds:
            connection.send(next(requests), now)
        else:
            running -= 1
            if running == 0:
                finished.set()

    client.on_answer = again
    for _ in range(connections):
        again(await client.connect())
    await asyncio.wait_for(finished.wait(), seconds + _DRAIN_S)
    return time.perf_counter() - start


def _run(coroutine: Any) -> dict[str, Any]:
    import uvloop

    answer: dict[str, Any] = uvloop.run(coroutine)
    return answer
