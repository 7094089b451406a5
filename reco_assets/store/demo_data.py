"""An invented feed: users, posts and interactions that are hard and worthwhile to recommend from.

Popularity and activity are skewed, interests drift, a post's attention halves in little more than a
day, users and posts arrive daily, and who reads what depends on topics that nobody is told. Every
day follows from the world's parameters and its date alone, so that a database can be extended by the
days it lacks without touching the others.

Each attribute is a hash of (seed, name, index) rather than a draw from a shared stream: the world
has no state to carry from day to day.
"""

import hashlib
import math
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from reco_assets.errors import BadInput
from reco_assets.events import DEFAULT_INTERACTION_WEIGHTS
from reco_assets.store.demo_titles import TOPICS, compose

Array = npt.NDArray[Any]

INTERACTION_TYPES: Final = tuple(DEFAULT_INTERACTION_WEIGHTS)
"""What `DemoDay.event_type` codes: view, click, like, share, from common to rare."""

DAY_S: Final = 86_400
DAY_US: Final = DAY_S * 1_000_000
_EPOCH: Final = date(1970, 1, 1)

USER_LIFE_DAYS: Final = 60
"""Longest time from sign-up to the last visit; so far back a window's users reach."""
POST_LIFE_DAYS: Final = 10
"""Days a post is read; after them its attention has halved eight times."""
_POST_HALF_LIFE_DAYS: Final = 1.25

# Where a reader's next post comes from; the rest is the front page, the same for everybody.
_PRIMARY, _SECONDARY, _TERTIARY = 0.37, 0.18, 0.07
_ONE_TIMERS: Final = 0.12
_CLICK, _LIKE, _SHARE, _REPEAT = 0.30, 0.22, 0.15, 0.06
_EVENTS_PER_VIEW: Final = 1 + _REPEAT + _CLICK * (1 + _LIKE * (1 + _SHARE))

_HOURS: Final = np.array(
    [1, 0.6, 0.4, 0.3, 0.3, 0.6, 1.5, 3, 4, 4, 4, 4.5, 5, 4.5, 4, 4, 4, 4.5, 5, 5.5, 6, 5.5, 4, 2.5]
)
"""Visits by hour of the day (UTC)."""
_CLOCK: Final = np.concatenate([[0.0], np.cumsum(_HOURS) / _HOURS.sum()])
_WEEK: Final = np.array([1.08, 1.12, 1.10, 1.06, 1.0, 0.80, 0.84])
"""Visits by weekday, Monday first; the mean is 1."""


@dataclass(frozen=True, eq=False)
class DemoDay:
    """What one UTC day adds. Times are microseconds since the epoch, ids the 16 bytes of a UUID.

    Attributes:
        day: the date.
        user_ids: (n_users, 16) uint8, who signed up.
        user_created_at: (n_users,) int64.
        post_ids: (n_posts, 16) uint8, what was posted.
        post_created_at: (n_posts,) int64.
        post_author_ids: (n_posts, 16) uint8, users who had signed up the day before or earlier.
        titles, bodies: of the posts.
        event_ids: (n_events, 16) uint8.
        event_user_ids, event_post_ids: (n_events, 16) uint8, of this day or an earlier one.
        event_type: (n_events,) int8, position in `INTERACTION_TYPES`.
        event_created_at: (n_events,) int64, ascending; never before the user's sign-up or the post.
    """

    day: date
    user_ids: Array
    user_created_at: Array
    post_ids: Array
    post_created_at: Array
    post_author_ids: Array
    titles: list[str]
    bodies: list[str]
    event_ids: Array
    event_user_ids: Array
    event_post_ids: Array
    event_type: Array
    event_created_at: Array


@dataclass(frozen=True)
class DemoWorld:
    """An invented feed of a given size.

    A window of `days` days, with the users and posts its events refer to, has exactly `users` users
    and `posts` posts and about `events` interactions. Extending it by a day adds a day's share of
    each. Other parameters are another world, whose ids are all different.

    Example:
        >>> world = DemoWorld(users=200, posts=100, days=5, events=1000)
        >>> day = world.day(date(2026, 10, 1))
        >>> day.titles[0]
        'What nobody tells you about mutation tests: what went wrong'
    """

    users: int = 2_000
    posts: int = 3_000
    days: int = 45
    events: int = 120_000
    seed: int = 1

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if not 1 <= value <= limit:
                raise BadInput(f"{name} is {value:,}; the demo data take 1 to {limit:,}.")
        if self.seed < 0:
            raise BadInput(f"seed is {self.seed}; it must not be negative.")

    def window(self, until: date) -> list[date]:
        """The `days` dates that end with `until`, oldest first."""
        return [until - timedelta(days=back) for back in reversed(range(self.days))]

    def history(self, first: date) -> list[date]:
        """The dates before `first` whose users and posts the window from `first` on refers to."""
        reach = USER_LIFE_DAYS + POST_LIFE_DAYS
        return [first - timedelta(days=back) for back in range(reach, 0, -1)]

    def day(self, day: date) -> DemoDay:
        """Everything a day adds, the same whenever and wherever it is asked for."""
        return self._day(day, with_posts=True, with_events=True)

    def history_day(self, day: date, first: date) -> DemoDay:
        """A day before the window's `first`: sign-ups, posts that are still read in it, no events."""
        return self._day(day, with_posts=(first - day).days <= POST_LIFE_DAYS, with_events=False)

    def day_marks(self, day: date, n: int = 8) -> Array:
        """(n, 16) uint8: ids of the day's first events, by which a database shows that it has the day."""
        return self._ids("event", _ordinals(_number(day), n))

    def _day(self, day: date, *, with_posts: bool, with_events: bool) -> DemoDay:
        number = _number(day)
        users = self._users.created_on(number)
        posts = self._posts.created_on(number) if with_posts else users[:0]
        topics = self._topics("post topic", posts)
        titles, bodies = compose(topics.tolist(), self._uniform("wording", posts).tolist())
        event_users, event_posts, event_type, event_created_at = (
            self._day_events(number) if with_events else (users[:0],) * 4
        )
        return DemoDay(
            day=day,
            user_ids=self._ids("user", users),
            user_created_at=self._user_created_at(users),
            post_ids=self._ids("post", posts),
            post_created_at=self._post_created_at(posts),
            post_author_ids=self._ids("user", self._authors(number, posts)),
            titles=titles,
            bodies=bodies,
            event_ids=self._ids("event", _ordinals(number, len(event_users))),
            event_user_ids=self._ids("user", event_users),
            event_post_ids=self._ids("post", event_posts),
            event_type=event_type.astype(np.int8),
            event_created_at=event_created_at,
        )

    def _day_events(self, number: int) -> tuple[Array, Array, Array, Array]:
        """(user index, post index, type, created_at) of a day's events in order of time."""
        # Only `random()` is drawn: its stream is the part of numpy's generators that has never changed.
        rng = np.random.default_rng([self._key("events"), number])
        users, created_at = self._views(number, rng)
        users, posts, affinity, created_at = self._choose_posts(number, users, created_at, rng)
        views = (users, posts, created_at)

        def follow(chosen: Array, events: tuple[Array, ...], within_s: float) -> tuple[Array, ...]:
            """Later events of the same user and post; those after midnight do not happen."""
            user, post, at = (column[chosen] for column in events)
            at = at + (1 + rng.random(len(at)) ** 2 * within_s * 1e6).astype(np.int64)
            kept = at < (number + 1) * DAY_US
            return user[kept], post[kept], at[kept]

        visitor = self._is_one_timer(users)
        keen = np.where(visitor, 0.0, 0.7 + 0.45 * affinity)
        repeats = follow(rng.random(len(users)) < _REPEAT * ~visitor, views, 6 * 3600)
        clicks = follow(rng.random(len(users)) < _CLICK * keen, views, 40)
        likes = follow(rng.random(len(clicks[0])) < _LIKE, clicks, 400)
        shares = follow(rng.random(len(likes[0])) < _SHARE, likes, 200)
        kinds = [(0, views), (0, repeats), (1, clicks), (2, likes), (3, shares)]
        users, posts, created_at = (np.concatenate([events[i] for _, events in kinds]) for i in range(3))
        types = np.concatenate([np.full(len(events[0]), code) for code, events in kinds])
        order = np.lexsort((types, posts, users, created_at))
        return users[order], posts[order], types[order], created_at[order]

    def _views(self, number: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """(user index, instant) of the day's visits in order of time."""
        users = self._users.created_between(number - USER_LIFE_DAYS, number + 1)
        signed_up = self._user_created_at(users)
        age = number - signed_up // DAY_US
        life = 10 + (USER_LIFE_DAYS - 10) * self._uniform("life", users) ** 0.4
        # A Pareto tail: the busiest hundredth of the users makes a good tenth of the visits.
        activity = np.minimum((1 - self._uniform("activity", users)) ** (-1 / 1.4), 60.0)
        one_timer = self._is_one_timer(users)
        activity = np.where((age < life) & ~one_timer, activity, 0.0) * np.where(age < 3, 1.5, 1.0)
        chances = np.cumsum(activity)
        total = float(chances[-1]) if len(chances) else 0.0
        busy = 0.9 + 0.2 * float(self._uniform("busy", np.array([number]))[0])
        n = round(self.events / self.days / _EVENTS_PER_VIEW * float(_WEEK[(number + 3) % 7]) * busy)
        rows = np.searchsorted(chances, rng.random(n if total else 0) * total, side="right")
        rows = np.concatenate([rows, np.flatnonzero(one_timer & (age == 0))])
        hour = np.interp(rng.random(len(rows)), _CLOCK, np.arange(25.0))
        hour = (hour + 4 * self._uniform("time zone", users[rows]) - 2) % 24
        midnight = number * DAY_US
        at = midnight + np.minimum(hour * 3600e6, DAY_US - 1).astype(np.int64)
        # Who signed up today comes between then and midnight.
        rest = (midnight + DAY_US - signed_up[rows]) * rng.random(len(rows))
        at = np.where(age[rows] == 0, signed_up[rows] + rest.astype(np.int64), at)
        order = np.argsort(at, kind="stable")
        return users[rows][order], at[order]

    def _choose_posts(
        self, number: int, users: Array, created_at: Array, rng: np.random.Generator
    ) -> tuple[Array, Array, Array, Array]:
        """(user index, post index, 1 if of the reader's topics, instant) of each visit that finds a post.

        Within a topic a post is chosen by its appeal × 0.5^(age / half-life), reckoned by the hour.
        """
        posts = self._posts.created_between(number - POST_LIFE_DAYS, number + 1)
        topics = self._topics("post topic", posts)
        posts = posts[np.argsort(topics, kind="stable")]
        ends = np.cumsum(np.bincount(topics, minlength=len(TOPICS)))
        born = self._post_created_at(posts)
        appeal = np.minimum((1 - self._uniform("appeal", posts)) ** (-1 / 1.5), 25.0)
        wanted = self._wanted_topics(number, users, rng.random(len(users)))
        draw = rng.random(len(users))
        chosen = np.full(len(users), -1)
        hours = np.searchsorted(created_at, number * DAY_US + np.arange(25) * (DAY_US // 24))
        for hour in range(24):
            now = number * DAY_US + hour * (DAY_US // 24)
            part = slice(hours[hour], hours[hour + 1])
            age = (now - born) / DAY_US
            mass = np.where(age > 0, appeal * 0.5 ** (age / _POST_HALF_LIFE_DAYS), 0.0)
            edges = np.concatenate([[0.0], np.cumsum(mass)])
            high = edges[ends]
            low = edges[np.concatenate([[0], ends[:-1]])]
            topic = np.where(high[wanted[part]] > low[wanted[part]], wanted[part], -1)
            start = np.where(topic < 0, 0.0, low[topic])
            stop = np.where(topic < 0, edges[-1], high[topic])
            row = np.searchsorted(edges, start + draw[part] * (stop - start), side="right") - 1
            chosen[part] = np.where(stop > start, np.minimum(row, len(posts) - 1), -1)
        # By rounding, a draw of almost 1 can land on a post beside its topic's, one that is not born yet.
        found = (chosen >= 0) & (born[chosen] < created_at if len(posts) else chosen >= 0)
        return users[found], posts[chosen[found]], (wanted >= 0)[found], created_at[found]

    def _wanted_topics(self, number: int, users: Array, draw: Array) -> Array:
        """The topic each visitor looks for today, or -1 for the front page.

        The first interest stays; the second and third change every 20 to 60 days. Topics are on a
        ring, and related interests are near: people who share one often share another.
        """
        primary = self._topics("interest", users)
        length = 20 + 40 * self._uniform("phase length", users)
        phase = ((number + 60 * self._uniform("phase", users)) // length).astype(np.int64)
        second = primary + 1 + (3 * self._uniform("second", users * 4096 + phase)).astype(np.int64)
        third = self._topics("third", users * 4096 + phase)
        topic = np.select(
            [draw < _PRIMARY, draw < _PRIMARY + _SECONDARY, draw < _PRIMARY + _SECONDARY + _TERTIARY],
            [primary, second % len(TOPICS), third],
            -1,
        )
        return topic.astype(np.int64)

    def _authors(self, number: int, posts: Array) -> Array:
        """User index of each post's author: a few write most, and all had signed up before the day."""
        users = self._users.created_between(number - USER_LIFE_DAYS, number)
        eagerness = np.minimum((1 - self._uniform("eagerness", users)) ** (-1 / 1.1), 200.0)
        writes = (self._uniform("writes", users) < 0.1) & ~self._is_one_timer(users)
        chances = np.cumsum(np.where(writes, eagerness, 1e-9))
        if not len(users):  # a world smaller than one sign-up in two months
            return self._users.created_between(number - 10 * self._users.period_days, number)[-1:].repeat(
                len(posts)
            )
        rows = np.searchsorted(chances, self._uniform("author", posts) * chances[-1], side="right")
        return np.asarray(users[rows])

    def _is_one_timer(self, users: Array) -> Array:
        """Who comes once, on the day of the sign-up, sees one post and never returns."""
        comes_once: Array = self._uniform("one-timer", users) < _ONE_TIMERS
        return comes_once

    def _topics(self, name: str, index: Array) -> Array:
        """A skewed choice: the first topic is about four times as common as the last."""
        weights = 1.0 / (np.arange(len(TOPICS)) + 6.0)
        edges = np.cumsum(weights / weights.sum())
        topic = np.searchsorted(edges, self._uniform(name, index), side="right")
        return np.minimum(topic, len(TOPICS) - 1)

    def _user_created_at(self, users: Array) -> Array:
        return self._created_at(self._users.created_at_s(users), "sign-up", users)

    def _post_created_at(self, posts: Array) -> Array:
        return self._created_at(self._posts.created_at_s(posts), "posted", posts)

    def _created_at(self, seconds: Array, name: str, index: Array) -> Array:
        """Evenly spaced instants, moved within their day to the hours when people are awake."""
        part = (seconds % DAY_S) / DAY_S + 0.04 * (self._uniform(name, index) - 0.5)
        hours = np.interp(np.clip(part, 0, 0.99999), _CLOCK, np.arange(25.0))
        return np.asarray(seconds // DAY_S * DAY_US + (hours * 3600e6).astype(np.int64))

    @property
    def _users(self) -> "_Arrivals":
        return _Arrivals(self.users, self.days + USER_LIFE_DAYS + POST_LIFE_DAYS)

    @property
    def _posts(self) -> "_Arrivals":
        return _Arrivals(self.posts, self.days + POST_LIFE_DAYS)

    def _key(self, name: str) -> int:
        text = "/".join([name, *(f"{key}={value}" for key, value in sorted(asdict(self).items()))])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def _uniform(self, name: str, index: Array) -> Array:
        """(n,) float64 in [0, 1), a function of world, name and index."""
        uniform: Array = (_mix(self._key(name), index) >> np.uint64(11)) * 2.0**-53
        return uniform

    def _ids(self, kind: str, index: Array) -> Array:
        """(n, 16) uint8: UUIDs of version 8 (RFC 9562: of the maker's own recipe)."""
        halves = np.empty((len(index), 2), dtype=">u8")
        halves[:, 0] = _mix(self._key(kind), index)
        halves[:, 1] = _mix(self._key(kind + " low"), index)
        ids = halves.view(np.uint8).reshape(-1, 16)
        ids[:, 6] = ids[:, 6] & 0x0F | 0x80
        ids[:, 8] = ids[:, 8] & 0x3F | 0x80
        return ids


_LIMITS: Final = {"users": 10_000_000, "posts": 10_000_000, "days": 3_650, "events": 1_000_000_000}


@dataclass(frozen=True)
class _Arrivals:
    """Evenly spread arrivals, numbered from the epoch: any `period_days` days see exactly `n`."""

    n: int
    period_days: int

    def created_at_s(self, index: Array) -> Array:
        """(m,) int64 seconds since the epoch, ascending with the index."""
        periods, place = np.divmod(index, self.n)
        period_s = self.period_days * DAY_S
        return np.asarray(periods * period_s + ((2 * place + 1) * period_s) // (2 * self.n))

    def created_on(self, number: int) -> Array:
        return self.created_between(number, number + 1)

    def created_between(self, start: int, stop: int) -> Array:
        """Indices of what arrives from day `start` to before day `stop`: (m,) int64, ascending."""
        return np.arange(self._first_from(start), self._first_from(stop), dtype=np.int64)

    def _first_from(self, number: int) -> int:
        periods, rest = divmod(number * DAY_S, self.period_days * DAY_S)
        twice = math.ceil(2 * self.n * rest / (self.period_days * DAY_S))
        return periods * self.n + max(0, -((1 - twice) // 2))


def _number(day: date) -> int:
    return (day - _EPOCH).days


def _ordinals(number: int, n: int) -> Array:
    return (np.int64(number) << 32) + np.arange(n, dtype=np.int64)


def _mix(key: int, index: Array) -> Array:
    """splitmix64's finaliser (Steele, Lea and Flood 2014) over key and index; one to one in the index."""
    x = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return x ^ (x >> np.uint64(27))
