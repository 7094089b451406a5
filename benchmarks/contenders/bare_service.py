"""What serving costs at least: the same SQL in a bare loop of psycopg, and bare batched inserts."""

import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import numpy as np
import psycopg

from benchmarks.contenders.base import Contender, Seconds, read_options
from benchmarks.database import settings_of
from reco_assets.store.database import native_url
from reco_assets.store.feed_queries import _ELIGIBLE, _LIST

_INSERT: Final = """
INSERT INTO user_interactions (id, user_id, post_id, interaction_type, metadata)
SELECT * FROM unnest(%b::uuid[], %b::uuid[], %b::uuid[], %b::text[], %b::text[]::jsonb[])
"""
_METADATA: Final = (
    '{"source":"ml_recommendations","rank":3,"request_id":"0123456789abcdef","propensity":0.97,'
    '"client_time":"2026-01-01T00:00:00.000Z"}'
)
_LIMIT: Final = 20
_SPARE: Final = 30
_DRAWN: Final = 3


class BareService(Contender):
    """One connection, one statement after the other, rows fetched and thrown away."""

    def load(self, directory: Path, threads: int) -> None:  # noqa: ARG002  # one session is one thread
        """Connect, and prepare after the first use as psycopg does."""
        options = settings_of(read_options(directory))
        self._connection = psycopg.connect(native_url(options), autocommit=True, prepare_threshold=1)
        self._ids: dict[str, list[str]] = json.loads((directory / "ids.json").read_text())
        self._uuids = {name: [UUID(each) for each in ids] for name, ids in self._ids.items()}
        self._rng = random.Random()  # ids of two of these must not be the same

    def run(self) -> Seconds:
        """Nothing: each measurement is an operation of its own."""
        return {}

    def queries(self, kind: str, rate: float, seconds: float) -> dict[str, Any]:
        """The query of a kind of feed at `rate` a second; milliseconds from when it was due."""
        ask = self._question(kind)
        milliseconds = []
        start = time.perf_counter()
        for number in range(round(rate * seconds)):
            due = start + number / rate
            if (pause := due - time.perf_counter()) > 0:
                time.sleep(pause)
            ask()
            milliseconds.append((time.perf_counter() - due) * 1000)
        p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
        return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}

    def most_queries(self, kind: str, seconds: float) -> dict[str, Any]:
        """As many as one connection answers."""
        ask = self._question(kind)
        start, count = time.perf_counter(), 0
        while (took := time.perf_counter() - start) < seconds:
            ask()
            count += 1
        return {"per_second": count / took}

    def inserts(self, batch: int, seconds: float, events_per_s: float = 0.0) -> dict[str, Any]:
        """Batches, each committed before the next; at a rate, or as fast as they go.

        What counts is the time in `execute`: the events are there already, as a request would bring them.
        """
        start, count, inserting = time.perf_counter(), 0, 0.0
        while (now := time.perf_counter() - start) < seconds:
            if events_per_s and (pause := count / events_per_s - now) > 0:
                time.sleep(pause)
            events = self._events(batch)
            before = time.perf_counter()
            self._connection.execute(_INSERT, events, binary=True)
            inserting += time.perf_counter() - before
            count += batch
        return {"per_second": count / inserting}

    def _question(self, kind: str) -> Callable[[], None]:
        rng, posts = self._rng, self._ids["posts"]
        users = self._ids["without_list" if kind == "trending" else "readers"]
        query = _ELIGIBLE if kind == "realtime" else _LIST

        def ask() -> None:
            now = datetime.now(UTC)
            user = rng.choice(users)
            parameters: dict[str, Any] = {
                "user": user,
                "author": user,
                "seen_since": now - timedelta(days=90),
            }
            if kind == "realtime":
                parameters["ids"] = _array(rng.sample(posts, _SPARE))
            else:
                parameters |= {"now": now, "needed": _LIMIT}
                parameters["drawn"] = _array(rng.sample(posts, _DRAWN))
                parameters["spare"] = _array(rng.sample(posts, _SPARE))
            cursor = self._connection.cursor(binary=True)
            cursor.execute(query.encode(), parameters)
            cursor.fetchall()

        return ask

    def _events(self, batch: int) -> tuple[list[Any], ...]:
        rng = self._rng
        return (
            [UUID(int=rng.getrandbits(128), version=4) for _ in range(batch)],
            rng.choices(self._uuids["readers"], k=batch),
            rng.choices(self._uuids["posts"], k=batch),
            rng.choices(("view", "click", "like", "share"), k=batch),
            [_METADATA] * batch,
        )


def _array(ids: list[str]) -> str:
    return "{" + ",".join(ids) + "}"
