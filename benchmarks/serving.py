"""How fast the service answers, beside the least that its server and its database can do; see README.md.

python -m benchmarks.serving --json figures.json

50,000 users with 50 recommendations each. Feeds at a fixed rate while events come in, then as many as are
answered; events as many as are stored.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks.contenders.registry import Entrant
from benchmarks.database import seeded_database
from benchmarks.machine import machine_table
from benchmarks.processes import (
    ContenderFailed,
    ContenderProcess,
    started,
    unwound_when_stopped,
    without_own_settings,
    working_directory,
)
from benchmarks.report import Report
from benchmarks.rounds import Say
from benchmarks.servers import hello_server, service, wait_for
from benchmarks.serving_tables import (
    BATCH,
    CONNECTIONS,
    EVENTS_PER_S,
    FEEDS,
    GROUP,
    RATE,
    TRACK_CONNECTIONS,
    Feed,
    Measured,
    add_tables,
)
from benchmarks.sizes import SIZES, Size
from reco_assets.store.database import native_url

_HERE: Final = "benchmarks.contenders"
_PIPELINE: Final = Entrant("ours", f"{_HERE}.pipelines:OursPipeline", compiles=True)
_LOAD: Final = Entrant("load generator", f"{_HERE}.load:LoadGenerator")
_BARE: Final = Entrant("bare SQL", f"{_HERE}.bare_service:BareService")
_PACKAGES: Final = (
    "fastapi",
    "uvicorn",
    "uvloop",
    "httptools",
    "psycopg",
    "psycopg-pool",
    "pydantic",
    "numpy",
)

_FEED: Final = "/api/feeds?user_id={user}"


def run(report: Report, size: Size, *, rounds: int, seconds: float, directory: Path, say: Say) -> None:
    """Measure and add the tables.

    Args:
        report: for the tables.
        size: of the feed.
        rounds: that count, after one that does not.
        seconds: of each measurement.
        directory: for the server, the files and the logs.
        say: told what is going on.
    """
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    with seeded_database(size, directory, say, yesterday) as settings, ExitStack() as stack:
        say("Fitting and publishing …")
        pipeline = started(_PIPELINE, directory, 2)
        try:
            details = pipeline.ask("run")
        finally:
            pipeline.stop()
        ids = _write_ids(native_url(settings), directory)
        options = json.loads((directory / "options.json").read_text())
        urls = {
            "hello": stack.enter_context(hello_server(directory)),
            "published": stack.enter_context(
                service("published", directory, options, realtime="false", precomputed_fresh_minutes=100_000)
            ),
            "live": stack.enter_context(service("live", directory, options, precomputed_fresh_minutes=0)),
        }
        for feed in FEEDS:
            say(f"Waiting for {feed.source} …")
            user = ids[feed.users][0]
            wait_for(urls[feed.service] + _FEED.replace("{user}", user), feed.source)
        load, bare = (ContenderProcess(entrant, directory, 1) for entrant in (_LOAD, _BARE))
        stack.callback(load.stop)
        stack.callback(bare.stop)
        second = ContenderProcess(_BARE, directory, 1)
        stack.callback(second.stop)
        measured = Measured()
        bench = _Bench(urls, load, bare, second, seconds, say)
        for number in range(rounds + 1):
            say("Warm-up" if number == 0 else f"Round {number} of {rounds}")
            into = measured if number else Measured()
            steps = bench.steps()
            first = number % len(steps)
            for step in (*steps[first:], *steps[:first]):
                step(into)
        add_tables(report, measured, details, ids, rounds, seconds, bench.refused)


class _Bench:
    def __init__(
        self,
        urls: Mapping[str, str],
        load: ContenderProcess,
        bare: ContenderProcess,
        second: ContenderProcess,
        seconds: float,
        say: Say,
    ) -> None:
        self._urls = urls
        self._load, self._bare, self._second = load, bare, second
        self._seconds, self._say = seconds, say
        self._threads = ThreadPoolExecutor(2)
        self.refused: Counter[str] = Counter()

    def steps(self) -> list[Callable[[Measured], None]]:
        """All measurements of a round."""
        feeds = [lambda into, feed=feed: self.feed(into, feed) for feed in FEEDS]
        return [*feeds, self.floor, self.tracking, self.inserts]

    def feed(self, into: Measured, feed: Feed) -> None:
        """At the rate, with events coming in; then as many as go."""
        url = self._urls[feed.service]
        answer = self._load.ask(
            "paced",
            url=url,
            path=_FEED,
            users=feed.users,
            rate=RATE,
            seconds=self._seconds,
            events_per_s=EVENTS_PER_S,
            batch=BATCH,
        )
        self._check(answer["get"])
        self._check(answer["track"])
        into.add(feed.name, answer["get"] | {"share": _share(answer["get"]["sources"], feed.source)})
        into.add(f"{feed.name}, events", answer["track"])
        answer = self._load.ask(
            "saturating",
            url=url,
            path=_FEED,
            users=feed.users,
            connections=CONNECTIONS,
            seconds=self._seconds,
        )
        self._check(answer)
        into.add(f"{feed.name}, most", answer | {"share": _share(answer["sources"], feed.source)})
        self._say(f"  {feed.name}: {answer['per_second']:.0f}/s at most")

    def floor(self, into: Measured) -> None:
        """Hello and the bare queries at the same rate, with the same events inserted barely."""
        for what in ("hello", *dict.fromkeys(feed.query for feed in FEEDS)):
            events = self._threads.submit(
                self._second.ask, "inserts", batch=BATCH, seconds=self._seconds, events_per_s=EVENTS_PER_S
            )
            if what == "hello":
                answer = self._load.ask(
                    "paced",
                    url=self._urls["hello"],
                    path="/hello",
                    users=None,
                    rate=RATE,
                    seconds=self._seconds,
                )["get"]
                self._check(answer)
            else:
                answer = self._bare.ask("queries", kind=what, rate=RATE, seconds=self._seconds)
            events.result()
            into.add(what, answer)
            if what == "hello":
                answer = self._load.ask(
                    "saturating",
                    url=self._urls["hello"],
                    path="/hello",
                    users=None,
                    connections=CONNECTIONS,
                    seconds=self._seconds,
                )
            else:
                answer = self._bare.ask("most_queries", kind=what, seconds=self._seconds)
            into.add(f"{what}, most", answer)
            self._say(f"  {what}: {answer['per_second']:.0f}/s at most")

    def tracking(self, into: Measured) -> None:
        """Batches as fast as they are acknowledged."""
        answer = self._load.ask(
            "saturating",
            url=self._urls["published"],
            path="",
            users=None,
            connections=TRACK_CONNECTIONS,
            seconds=self._seconds,
            batch=BATCH,
        )
        self._check(answer)
        into.add("tracking", answer | {"per_second": answer["per_second"] * BATCH})
        self._say(f"  tracking: {answer['per_second'] * BATCH:.0f} events/s")

    def inserts(self, into: Measured) -> None:
        """Bare inserts as fast as they go: as the requests come, and in groups as the service makes them."""
        for batch in (BATCH, GROUP):
            answer = self._bare.ask("inserts", batch=batch, seconds=self._seconds)
            into.add(f"inserts of {batch}", answer)
            self._say(f"  bare inserts of {batch}: {answer['per_second']:.0f} events/s")

    def _check(self, answer: Mapping[str, Any]) -> None:
        """Answers other than 200 do not count as answered, and are told."""
        for status, n in answer["statuses"].items():
            if status != "200" and n:
                self.refused[status] += n
                self._say(f"  {n} answers: {status}")


def _write_ids(url: str, directory: Path) -> dict[str, list[str]]:
    """Who is asked for: users with a list, users without one; and what they interact with."""
    queries = {
        "readers": "SELECT DISTINCT user_id::text FROM user_recommendations ORDER BY 1",
        "without_list": "SELECT id::text FROM users u WHERE NOT EXISTS "
        "(SELECT FROM user_recommendations r WHERE r.user_id = u.id) ORDER BY 1 LIMIT 20000",
        "posts": "SELECT id::text FROM posts ORDER BY 1",
    }
    with psycopg.connect(url, autocommit=True) as connection:
        ids = {name: [row[0] for row in connection.execute(query)] for name, query in queries.items()}
        connection.execute("VACUUM (ANALYZE)")
    (directory / "ids.json").write_text(json.dumps(ids))
    return ids


def _share(sources: Mapping[str, int], wanted: str) -> float:
    """Of the feeds whose first post was not an explored one, those that begin with the wanted source."""
    others = sum(n for name, n in sources.items() if name not in (wanted, "exploration"))
    found = sources.get(wanted, 0)
    return found / max(found + others, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the tables; progress goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="M", help="of the feed (default: M)")
    parser.add_argument("--rounds", type=int, default=3, help="that count, after a warm-up (default: 3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement (default: 8)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.seconds < 1:
        parser.error("--rounds and --seconds are at least 1.")
    report = Report(given.json)
    began = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.0f} s] {line}\n")

    for name in set(os.environ) - set(without_own_settings(dict(os.environ))):
        del os.environ[name]
    try:
        with unwound_when_stopped(), working_directory() as directory:
            report.add(machine_table((Entrant("service", "", packages=_PACKAGES),), 2))
            run(
                report,
                SIZES[given.size],
                rounds=given.rounds,
                seconds=given.seconds,
                directory=directory,
                say=say,
            )
    except KeyboardInterrupt:
        say("Interrupted; servers and temporary files are gone.")
        return 130
    except ContenderFailed as error:
        say(str(error))
        return 1
    say("Done.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
