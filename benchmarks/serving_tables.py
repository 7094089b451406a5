"""The tables of the serving benchmark, and what their figures are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from benchmarks.report import Report, Row, Table

RATE: Final = 200.0
EVENTS_PER_S: Final = 1000.0
BATCH: Final = 20
CONNECTIONS: Final = 16
TRACK_CONNECTIONS: Final = 64
GROUP: Final = 1000

Figures = dict[str, float]


@dataclass(frozen=True)
class Feed:
    """A kind of feed: which service answers it, for whom, and by which bare query it is measured."""

    name: str
    source: str
    service: str
    users: str
    query: str


FEEDS: Final = (
    Feed("precomputed", "ml_recommendations", "published", "readers", "list"),
    Feed("real-time", "realtime_recommendations", "live", "readers", "realtime"),
    Feed("fallback (trending)", "trending_fallback", "published", "without_list", "trending"),
)


@dataclass
class Measured:
    """Figures by what was measured, one entry a round."""

    rounds: dict[str, list[Figures]] = field(default_factory=dict)

    def add(self, what: str, figures: Mapping[str, Any]) -> None:
        """One round's."""
        kept = {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}
        self.rounds.setdefault(what, []).append(kept)

    def median(self, what: str, figure: str) -> float:
        """Over the rounds."""
        return median(each[figure] for each in self.rounds[what])

    def worst(self, what: str, figure: str) -> float:
        """Of the rounds."""
        return max(each[figure] for each in self.rounds[what])


def add_tables(
    report: Report,
    measured: Measured,
    details: Mapping[str, Any],
    ids: Mapping[str, Sequence[str]],
    rounds: int,
    seconds: float,
    refused: Mapping[str, int],
) -> None:
    """Feeds at a rate, feeds as many as go, events as many as go.

    Args:
        report: for the tables.
        measured: by the names that `benchmarks.serving` gives.
        details: of the pipeline's run: rows, interactions.
        ids: users and posts that were asked for.
        rounds: that count.
        seconds: of each measurement.
        refused: answers other than 200, by status.
    """
    rows: list[Row] = []
    for feed in FEEDS:
        floor = measured.median("hello", "p95") + measured.median(feed.query, "p95")
        p95 = measured.median(feed.name, "p95")
        rows.append(
            {
                "feed": f"ours: {feed.name}",
                **_latencies(measured, feed.name),
                "of this source %": 100 * measured.median(feed.name, "share"),
                "floor p95 ms": floor,
                "floor / ours": floor / p95,
            }
        )
    for what, name in (
        ("hello", "hello world, same server"),
        *((feed.query, f"bare SQL of {feed.name}") for feed in FEEDS),
    ):
        empty = dict.fromkeys(("of this source %", "floor p95 ms", "floor / ours"))
        rows.append({"feed": name, **_latencies(measured, what), **empty})
    report.add(
        Table.of(
            "feeds",
            f"Feeds at {RATE:.0f} requests/s while {EVENTS_PER_S:,.0f} events/s come in",
            rows,
            notes=[
                f"{len(ids['readers']):,} users with {details['rows']:,} recommendations, "
                f"{len(ids['posts']):,} posts, {details['interactions']:,} interactions. One service process "
                "on the machine that makes the load too; a request's time begins when it is due. Medians of "
                f"{rounds} rounds of {seconds:g} s, in turns; `worst p95` is the worst round's. The floor is "
                "the p95 of hello world plus that of the feed's query in a bare psycopg loop, each at the "
                "same rate while bare inserts store as many events. A feed whose source was not in time came "
                "from the next one. The feeds compute a page of 20 of a list of 100, log, count, check and "
                "filter.",
                *(f"{n:,} answers of the whole run were {status}." for status, n in refused.items()),
            ],
        )
    )
    rows = [
        {
            "what": f"ours: {feed.name}",
            "a second": measured.median(f"{feed.name}, most", "per_second"),
            "p95 ms": measured.median(f"{feed.name}, most", "p95"),
            "of this source %": 100 * measured.median(f"{feed.name}, most", "share"),
        }
        for feed in FEEDS
    ]
    others = {"hello": "hello world, same server"}
    others |= {feed.query: f"bare SQL of {feed.name}" for feed in FEEDS}
    for what, name in others.items():
        rows.append(
            {
                "what": name,
                "a second": measured.median(f"{what}, most", "per_second"),
                "p95 ms": measured.median("hello, most", "p95") if what == "hello" else None,
                "of this source %": None,
            }
        )
    report.add(
        Table.of(
            "feed-throughput",
            f"Feeds a second over {CONNECTIONS} connections, nothing else going on",
            rows,
            notes=[
                "Each connection asks again when it has its answer: here the time begins with the request. "
                "Bare SQL is one connection that waits for each answer."
            ],
        )
    )
    tracked = measured.median("tracking", "per_second")
    rows = [
        {
            "way": "ours: POST /api/track",
            "events a second": tracked,
            "share of it, ours": None,
            "p95 ms": measured.median("tracking", "p95"),
        }
    ]
    for batch in (BATCH, GROUP):
        bare = measured.median(f"inserts of {batch}", "per_second")
        rows.append(
            {
                "way": f"bare inserts, {batch:,} a commit",
                "events a second": bare,
                "share of it, ours": tracked / bare,
                "p95 ms": None,
            }
        )
    report.add(
        Table.of(
            "tracking",
            "Events stored a second",
            rows,
            notes=[
                f"Ours: batches of {BATCH} over {TRACK_CONNECTIONS} connections, each acknowledged after "
                "its commit, users and posts checked event by event. Bare: one connection, INSERT … SELECT "
                "FROM unnest into the same table with the same indexes and foreign keys, ids and metadata "
                "given; only the time in the statement counts. PostgreSQL with default durability."
            ],
        )
    )


def _latencies(measured: Measured, what: str) -> Row:
    return {
        **{f"{name} ms": measured.median(what, name) for name in ("p50", "p95", "p99")},
        "worst p95 ms": measured.worst(what, "p95"),
    }
