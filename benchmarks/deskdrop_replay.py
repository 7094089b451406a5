"""Two months of the public CI&T Deskdrop set in the order of its events, through the real service.

    python -m benchmarks.deskdrop_replay deskdrop.csv.gz [--months 10 11] [--json FILE]

A PostgreSQL of its own, the pipeline's own functions at each midnight, the service with a fast clock. Before
each new read (a user's first interaction with a post, of users who did something before) the service is
asked for the user's feed over HTTP, and ten posts are judged; then the read is inserted. All new reads
count, also of posts that did not exist at midnight, and of posts that nobody had read before, which no list
can hold.

Prints hit rate and NDCG at 10 of the published list, of live votes, of popularity × freshness kept live,
and of the whole feed with its tiers, and which RECO_PRECOMPUTED_FRESH_MINUTES would have been best.
"""

import argparse
import asyncio
import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
import numpy as np
import numpy.typing as npt
import psycopg
import uvicorn

from benchmarks.deskdrop import WINDOW_DAYS, YEAR, read_log
from benchmarks.machine import in_one_line
from reco_assets.local.embedded_postgres import embedded_postgres
from reco_assets.names import end_of_day_us
from reco_assets.pipeline.fitting import RegisteredVersion, fit_model, write_matrix
from reco_assets.pipeline.publication import compute_lists, publish_lists
from reco_assets.pipeline.window import read_window
from reco_assets.recommender.artifact import artifact_digest
from reco_assets.recommender.interaction_log import InteractionLog
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.resources.run_config import UserKNNConfig
from reco_assets.resources.storage import FileStorage
from reco_assets.serving.app import create_app
from reco_assets.serving.server import options
from reco_assets.serving.service import Service
from reco_assets.settings import Settings
from reco_assets.store import migrate
from reco_assets.store.database import create_engine_for, native_url, transaction
from reco_assets.store.extract import extract_interactions

Array = npt.NDArray[Any]

K: Final = 10
FRESH_MINUTES: Final = (0, 15, 60, 180, 720, 1440, 4320)
_AUTHOR: Final = UUID(int=1 << 100)
_TIERS: Final = {
    "published list": ("precomputed",),
    "live votes": ("realtime",),
    "popularity × freshness, live": ("trending",),
    "feed as shipped": ("precomputed", "realtime", "trending"),
}
_OWN_SOURCE: Final = {
    "published list": "ml_recommendations",
    "live votes": "realtime_recommendations",
    "popularity × freshness, live": "trending_fallback",
}


class Clock:
    """A clock that the replay sets."""

    def __init__(self) -> None:
        self.now = datetime(YEAR, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        """What time it is in the replay."""
        return self.now


@dataclass
class Judged:
    """The ranks, 0 for a miss, that the posts read had in the lists asked for just before."""

    ranks: list[int] = field(default_factory=list)

    def add(self, posts: list[str], read: str) -> None:
        """Judge a list."""
        top = posts[:K]
        self.ranks.append(top.index(read) + 1 if read in top else 0)

    def hits(self) -> Array:
        """(n,) 1 for a hit."""
        return (np.array(self.ranks) > 0).astype(float)

    def gains(self) -> Array:
        """(n,) NDCG with one relevant post."""
        ranks = np.array(self.ranks)
        return np.where(ranks > 0, 1 / np.log2(1 + np.maximum(ranks, 1)), 0.0)

    def figures(self) -> dict[str, float]:
        """Hit rate and NDCG with one relevant post a list, and half of a 95 % interval each."""
        hits, gains = self.hits(), self.gains()
        half = 1.96 / np.sqrt(max(1, len(hits)))
        return {
            "hr": float(hits.mean()),
            "hr_half": float(hits.std() * half),
            "ndcg": float(gains.mean()),
            "ndcg_half": float(gains.std() * half),
        }


@dataclass
class Asked:
    """What the tiers said before one read, and what decides between them."""

    published: list[str]
    live: list[str]
    age_minutes: float
    outdated: bool
    read: str
    known_at_midnight: bool = True


class Replay:
    """The feed's history, a database, services, and the pipeline.

    Args:
        log: the whole history.
        settings: of database and files.
        clock: set by the replay.
    """

    def __init__(self, log: InteractionLog, settings: Settings, clock: Clock) -> None:
        order = np.argsort(log.created_at, kind="stable")
        self._log, self._settings, self._clock = log, settings, clock
        self._users, self._posts = log.user_index[order], log.post_index[order]
        self._types, self._times = log.interaction_type[order], log.created_at[order]
        self._reads = new_reads(self._users, self._posts, self._times)
        self._connection = psycopg.connect(native_url(settings), autocommit=True)
        self._storage = FileStorage(base_dir=str(settings.storage))
        self._inserted = 0
        self._known_posts: set[int] = set()
        self._seconds: dict[str, list[float]] = {name: [] for name in _TIERS}
        self._at_midnight: frozenset[int] = frozenset()
        self.judged = {name: Judged() for name in _TIERS}
        self.asked: list[Asked] = []
        self.readers: set[int] = set()
        self._user_ids = [str(UUID(bytes=row.tobytes())) for row in log.user_ids]
        self._post_ids = [str(UUID(bytes=row.tobytes())) for row in log.post_ids]
        self._connection.execute("INSERT INTO users (id) VALUES (%s)", (str(_AUTHOR),))
        with self._connection.cursor() as cursor:
            cursor.executemany("INSERT INTO users (id) VALUES (%s)", [(user,) for user in self._user_ids])

    def run(self, first: date, last: date, running: "dict[str, Running]") -> None:
        """Replay the days, the pipeline at the midnight before each."""
        self._insert_before(_us(first))
        self._extract(first - timedelta(days=WINDOW_DAYS), first)
        day = first
        while day <= last:
            began = time.perf_counter()
            self._insert_before(_us(day))
            self._clock.now = datetime(day.year, day.month, day.day, tzinfo=UTC)
            self._at_midnight = frozenset(self._known_posts)
            self._run_pipeline(day - timedelta(days=1))
            self._connection.execute("ANALYZE user_interactions")
            start, stop = np.searchsorted(self._times, [_us(day), _us(day + timedelta(days=1))])
            reads = np.flatnonzero(self._reads[start:stop]) + start
            for read in reads.tolist():
                self._judge(read, running)
            self._insert_before(_us(day + timedelta(days=1)))
            print(f"{day}: {len(reads)} new reads, {time.perf_counter() - began:.0f} s", flush=True)
            day += timedelta(days=1)

    def milliseconds(self, name: str) -> float:
        """The median time of a request."""
        return float(np.median(self._seconds[name]) * 1000)

    def _judge(self, read: int, running: "dict[str, Running]") -> None:
        """Ask every service for the user's feed as of the instant of a read."""
        now_us = int(self._times[read])
        self._insert_before(now_us)
        self._clock.now = datetime.fromtimestamp(now_us / 1e6, tz=UTC)
        user = self._user_ids[self._users[read]]
        post = self._post_ids[self._posts[read]]
        self.readers.add(int(self._users[read]))
        lists: dict[str, list[str]] = {}
        generated_at = None
        for name, service in running.items():
            service.catch_up()
            began = time.perf_counter()
            answer = service.client.get("/api/feeds", params={"user_id": user, "limit": K}).json()
            self._seconds[name].append(time.perf_counter() - began)
            own = _OWN_SOURCE.get(name)
            lists[name] = [
                each["post_id"] for each in answer["posts"] if own is None or each["source"] == own
            ]
            if name == "published list":
                generated_at = answer["metadata"]["generated_at"]
        for name, judged in self.judged.items():
            # Who is unknown to live votes gets what everybody gets; the published list stands alone.
            posts = lists[name]
            if name == "live votes" and not posts:
                posts = lists["popularity × freshness, live"]
            judged.add(posts, post)
        made = datetime.fromisoformat(generated_at) if generated_at else self._clock.now
        live = lists["live votes"] or lists["popularity × freshness, live"]
        self.asked.append(
            Asked(
                lists["published list"],
                live,
                (self._clock.now - made).total_seconds() / 60,
                self._has_read_since(user, made),
                post,
                int(self._posts[read]) in self._at_midnight,
            )
        )

    def _has_read_since(self, user: str, made: datetime) -> bool:
        row = self._connection.execute(
            "SELECT EXISTS (SELECT FROM user_interactions WHERE user_id = %s AND created_at > %s)",
            (user, made),
        ).fetchone()
        return row is not None and bool(row[0])

    def _insert_before(self, until_us: int) -> None:
        """Insert the history strictly before an instant, posts when they are first seen."""
        stop = int(np.searchsorted(self._times, until_us))
        if stop <= self._inserted:
            return
        new = slice(self._inserted, stop)
        rows, posts = [], []
        for user, post, kind, at_us in zip(
            *(column[new].tolist() for column in (self._users, self._posts, self._types, self._times)),
            strict=True,
        ):
            at = datetime.fromtimestamp(at_us / 1e6, tz=UTC)
            if post not in self._known_posts:
                self._known_posts.add(post)
                posts.append((self._post_ids[post], str(_AUTHOR), at))
            rows.append((self._user_ids[user], self._post_ids[post], self._log.interaction_types[kind], at))
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO posts (id, author_id, title, created_at) VALUES (%s, %s, '', %s)", posts
            )
            cursor.executemany(
                "INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
                "VALUES (%s, %s, %s, %s)",
                rows,
            )
        self._inserted = stop

    def _extract(self, start: date, end: date) -> None:
        extract_interactions(
            self._settings,
            start,
            end,
            self._storage.raw_interactions,
            sorted(self._settings.interaction_weights),
        )

    def _run_pipeline(self, day: date) -> None:
        """What the assets of a day call, without the hold-out and MLflow."""
        self._extract(day, day + timedelta(days=1))
        engine = create_engine_for(self._settings)
        storage, settings = self._storage, self._settings
        paths = [storage.raw_day(day - timedelta(days=back)) for back in reversed(range(WINDOW_DAYS))]
        with transaction(engine) as connection:
            log = read_window(paths, connection, settings.interaction_weights)
        matrix = InteractionMatrix.from_log(
            log,
            end_of_day_us(day),
            interaction_weights=settings.interaction_weights,
            max_repeats=settings.max_repeats,
        )
        built = {
            "interaction_weights": dict(settings.interaction_weights),
            "max_repeats": settings.max_repeats,
        }
        write_matrix(storage, day, log, matrix, built)
        fit_model(storage, day, UserKNNConfig().parameters())
        digest = artifact_digest(storage.model(day))
        registered = RegisteredVersion(1, f"replay_v{day:%Y%m%d}", "none", "none", digest)
        computed = compute_lists(storage, day, registered)
        publish_lists(
            engine,
            computed,
            registered,
            dagster_run_id="none",
            ttl_hours=settings.ttl_hours,
            now=self._clock.now,
        )
        engine.dispose()


@dataclass
class Running:
    """A service that answers over HTTP."""

    client: httpx.Client
    service: Service
    loop: asyncio.AbstractEventLoop
    needs: tuple[str, ...]

    def catch_up(self) -> None:
        """Bring what is in memory up to the clock, which runs faster than the background tasks do."""
        if "realtime" in self.needs and not self.service.realtime.catch_up():
            raise RuntimeError(f"Live votes did not catch up: {self.service.realtime.reason}")
        if "trending" in self.needs:
            asyncio.run_coroutine_threadsafe(self.service.trending.refresh(), self.loop).result(60)


@contextmanager
def serving(settings: Settings, clock: Clock) -> Iterator[Running]:
    """uvicorn in a thread, as `reco serve` runs it."""
    app = create_app(settings, clock)
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, **options()))
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[sock])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        if not thread.is_alive():
            raise RuntimeError("The service did not start.")
    try:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Running(client, app.state.service, loops[0], settings.feed_tiers)
    finally:
        server.should_exit = True
        thread.join(30)
        sock.close()


def best_policy(asked: list[Asked]) -> dict[int, dict[str, float]]:
    """What RECO_PRECOMPUTED_FRESH_MINUTES would have given, by the rule of the feed's tiers."""
    found = {}
    for minutes in FRESH_MINUTES:
        judged = Judged()
        for each in asked:
            outdated = each.outdated or each.age_minutes > minutes
            judged.add((each.published if not outdated and each.published else each.live), each.read)
        found[minutes] = judged.figures()
    judged = Judged()
    for each in asked:
        judged.add(each.published or each.live, each.read)
    found[-1] = judged.figures()
    return found


def main() -> None:
    """Replay and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--months", type=int, nargs=2, default=[10, 11], help="first and last, of 2016")
    parser.add_argument("--days", type=int, help="only so many days from the first month on")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    first = date(YEAR, arguments.months[0], 1)
    last = date(YEAR, arguments.months[1] + 1, 1) - timedelta(days=1)
    if arguments.days:
        last = min(last, first + timedelta(days=arguments.days - 1))

    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="reco-replay-") as name, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        server = stack.enter_context(
            embedded_postgres(directory / "postgres", databases=("reco",), options={"fsync": "off"})
        )
        # Ages of half a year must not count as a late pipeline or an expired list.
        settings = Settings(
            database_url=server.url("reco"),
            home=directory / "home",
            start_date=date(YEAR, 1, 1),
            exploration_share=0.0,
            log_level="error",
        )
        migrate.upgrade(settings)
        clock = Clock()
        replay = Replay(read_log(arguments.file), settings, clock)
        running = {
            tiers_name: stack.enter_context(serving(settings.model_copy(update={"feed_tiers": tiers}), clock))
            for tiers_name, tiers in _TIERS.items()
        }
        replay.run(first, last, running)
    _print(replay, first, last, time.perf_counter() - began)
    if arguments.json:
        figures = {name: judged.figures() for name, judged in replay.judged.items()}
        arguments.json.write_text(
            json.dumps({"lists": figures, "policy": best_policy(replay.asked)}, indent=1)
        )


def _print(replay: Replay, first: date, last: date, seconds: float) -> None:
    print(in_one_line())
    print(
        f"CI&T Deskdrop, {first} to {last}: {len(replay.asked):,} new reads by "
        f"{len(replay.readers):,} users; {seconds:.0f} s\n"
    )
    print("| @10, before each new read | HR | NDCG | request, median ms |")
    print("|---|---|---|---|")
    for name, judged in replay.judged.items():
        f = judged.figures()
        print(
            f"| {name} | {f['hr']:.3f} ± {f['hr_half']:.3f} | {f['ndcg']:.3f} ± {f['ndcg_half']:.3f} "
            f"| {replay.milliseconds(name):.1f} |"
        )
    print("\n| live votes against | HR | NDCG |\n|---|---|---|")
    ours = replay.judged["live votes"]
    for name in ("published list", "popularity × freshness, live"):
        theirs = replay.judged[name]
        print(
            f"| {name} | {_difference(ours.hits(), theirs.hits())} "
            f"| {_difference(ours.gains(), theirs.gains())} |"
        )
    known = np.array([each.known_at_midnight for each in replay.asked])
    print("\n| HR@10 of reads of | share | " + " | ".join(replay.judged) + " |")
    print("|---|---|" + "---|" * len(replay.judged))
    for what, chosen in (("posts known at midnight", known), ("posts of the day", ~known)):
        rates = " | ".join(f"{judged.hits()[chosen].mean():.3f}" for judged in replay.judged.values())
        print(f"| {what} | {chosen.mean():.0%} | {rates} |")
    print("\n| RECO_PRECOMPUTED_FRESH_MINUTES | HR | NDCG |\n|---|---|---|")
    for minutes, f in best_policy(replay.asked).items():
        when = str(minutes) if minutes >= 0 else "published whenever there is one"
        print(f"| {when} | {f['hr']:.3f} | {f['ndcg']:.3f} |")


def _difference(ours: Array, theirs: Array) -> str:
    """The mean of the paired differences with its 95 % interval."""
    difference = ours - theirs
    half = 1.96 * difference.std() / np.sqrt(len(difference))
    return f"{difference.mean():+.3f} [{difference.mean() - half:+.3f}, {difference.mean() + half:+.3f}]"


def new_reads(users: Array, posts: Array, times: Array) -> Array:
    """(n,) bool: the first interaction of a user with a post, by users who did something earlier."""
    pairs = users.astype(np.int64) * (int(posts.max()) + 1) + posts
    _, first = np.unique(pairs, return_index=True)
    is_first = np.zeros(len(pairs), dtype=bool)
    is_first[first] = True
    began = np.full(int(users.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(began, users, times)
    return np.asarray(is_first & (began[users] < times))


def _us(day: date) -> int:
    return end_of_day_us(day - timedelta(days=1))


if __name__ == "__main__":
    main()
