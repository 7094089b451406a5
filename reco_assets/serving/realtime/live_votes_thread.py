"""The thread that keeps live votes up with the database, and hands out states that do not change.

It opens what is published, takes in the events since, and makes a new state about once a second. A model is
opened on a thread beside it, while the one before still answers; the numerical libraries are imported and
compiled there, so that the service answers meanwhile.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from reco_assets.errors import CorruptArtifact, MissingUpstream, RecoError
from reco_assets.serving.realtime.feed_changes import FeedChanges
from reco_assets.serving.realtime.generation_watch import GenerationWatch, translated
from reco_assets.serving.realtime.loaded_model import LoadedModel, load_model
from reco_assets.settings import Settings

if TYPE_CHECKING:
    from reco_assets.recommender.live_lists import LiveState
    from reco_assets.store.live_events import LiveModel

log = logging.getLogger(__name__)

RealtimeState = Literal["off", "loading", "ready", "late"]

_SHARE_OF_A_CORE: Final = 0.05
_LATE_AFTER_S: Final = 5.0
"""Behind the time that was planned for a look. The more a look costs, the further apart they are planned."""
_RETRY_S: Final = 10.0
_RECONNECT_S: Final = 0.5
_LONGEST_STOP_S: Final = 5.0
"""For a look at the database to end; a server that hangs must not hold up the end of the process."""


@dataclass(frozen=True)
class Current:
    """What requests are answered from."""

    live: "LiveModel"
    state: "LiveState"

    @property
    def as_of(self) -> datetime:
        """The instant of the state."""
        return _EPOCH + timedelta(microseconds=self.state.as_of_us)


class LiveVotesThread:
    """Keeps `current` up to date.

    Args:
        settings: of the service; events and notifications come from the primary, a replica may lag.
        clock: what time it is; a replay sets its own.

    Attributes:
        current: the newest state; None while nothing is loaded.
        reason: why it is off, loading or late; empty when ready. For the log: it may name servers and files.
        public_reason: the same for anybody's eyes.
        changes: tells open pages that their feed has changed.
    """

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock
        self.current: Current | None = None
        self._loaded: LoadedModel | None = None
        self._loading: threading.Thread | None = None
        self._arrived: LoadedModel | None = None
        self._failed: tuple[LiveModel, float] | None = None
        self._first_look = True
        self._caught_up = 0.0
        self._next_look = 0.0
        self._look_failed = False
        self.reason = self.public_reason = "not started"
        self.changes = FeedChanges()
        self._watch = GenerationWatch(settings)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._asked: list[threading.Event] = []
        self._lock = threading.Lock()

    @property
    def state(self) -> RealtimeState:
        """`ready`: lists are as of now. `late`: events cannot be read; lists are of what is known."""
        if self.current is not None:
            overdue = time.monotonic() - self._next_look > _LATE_AFTER_S
            return "late" if self._look_failed or overdue else "ready"
        if not self._settings.realtime or not self._running:
            return "off"
        return "loading" if self._first_look or self._loading is not None else "off"

    @property
    def model_version(self) -> str | None:
        """Whose neighbours vote; None while none are loaded."""
        current = self.current
        return None if current is None else current.live.model_version

    @property
    def day(self) -> date | None:
        """The last day of the fit."""
        current = self.current
        return None if current is None else current.live.day

    @property
    def as_of(self) -> datetime | None:
        """The instant of the newest state."""
        current = self.current
        return None if current is None else current.as_of

    @property
    def lag_s(self) -> float:
        """Seconds since the events were last read; NaN while nothing is loaded."""
        return math.nan if self.current is None else time.monotonic() - self._caught_up

    async def start(self) -> None:
        """Load in the background; returns at once."""
        self.changes.loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="reco-live-votes", daemon=True)
        self.reason = self.public_reason = (
            "the database has not been asked yet" if self._settings.realtime else "RECO_REALTIME is off"
        )
        self._thread.start()

    async def stop(self) -> None:
        """End the background work."""
        self._stopping.set()
        self._watch.wake()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _LONGEST_STOP_S)
        self.current = None
        self.changes.close()

    def catch_up(self, timeout_s: float = 60.0) -> bool:
        """Look at the database now, load what is new there, and wait for the state; whether that was in time.

        For other threads than the event loop's: tests and replays.
        """
        done = threading.Event()
        with self._lock:
            self._asked.append(done)
        self._watch.wake()
        return done.wait(timeout_s)

    @property
    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                asked, self._asked = self._asked, []
            cpu_before = time.thread_time()
            try:
                self._step(wait_for_load=bool(asked))
                used = time.thread_time() - cpu_before
                pause = max(self._settings.realtime_tick_s, used * (1 / _SHARE_OF_A_CORE - 1))
            except Exception as error:
                self._look_failed = True
                pause = self._after_failure(error)
            self._next_look = time.monotonic() + pause
            for done in asked:
                done.set()
            if not self._asked:
                self._watch.wait(pause)
        self._watch.disconnect()

    def _step(self, *, wait_for_load: bool) -> None:
        connection = self._watch.connection()
        live, is_new = self._watch.look(force=wait_for_load)
        if is_new and live is not None and not self._first_look:
            self.changes.tell_all(live.generation_id)
        if self._settings.realtime:
            self._follow(live)
            if wait_for_load and self._loading is not None:
                self._loading.join()
            self._take_over()
        if self._loading is None:
            self._first_look = False
        if self._loaded is not None:
            with translated(self._settings):
                self._loaded.follower.catch_up(connection)
            self._caught_up = self._next_look = time.monotonic()
            self._look_failed = False
            self._tick(self._loaded)
            self._say("")

    def _after_failure(self, error: Exception) -> float:
        """Say so, go on with what is known, and try again with a new connection; returns when."""
        self._watch.disconnect()
        if isinstance(error, RecoError):
            self._say(*_reasons(error))
            try:
                if self._loaded is not None:
                    self._tick(self._loaded)
                return _RECONNECT_S
            except Exception as another:  # nothing may end this thread
                error = another
        log.error("live votes: a step failed", exc_info=error)
        self._say(*_reasons(error))
        return _RETRY_S

    def _follow(self, live: "LiveModel | None") -> None:
        """Begin to load what is live, unless it is loaded, being loaded, or has just failed."""
        if live is None:
            self._loaded = self.current = None
            self._say("nothing was published yet: `reco run`")
            return
        if self._loading is not None:
            return
        loaded = self._loaded
        if loaded and loaded.live.model_digest == live.model_digest and not loaded.follower.lost_track:
            if loaded.live != live:  # published again, of the same files
                self._loaded = loaded.published_as(live)
            return
        if self._failed is not None:
            failed, at = self._failed
            if failed == live and time.monotonic() - at < _RETRY_S:
                return
        self._loading = threading.Thread(target=self._load, args=(live,), name="reco-load-model", daemon=True)
        self._loading.start()

    def _load(self, live: "LiveModel") -> None:
        began = time.monotonic()
        try:
            found: LoadedModel | None = load_model(self._settings, live, self._clock)
            self._failed = None
            log.info("loaded %s of %s in %.1f s", live.model_version, live.day, time.monotonic() - began)
        except Exception as error:
            if not isinstance(error, RecoError):
                log.exception("live votes: loading failed")
            self._say(*_reasons(error))
            self._failed, found = (live, time.monotonic()), None
        self._arrived = found
        self._watch.wake()

    def _take_over(self) -> None:
        """Make what was loaded the current model; if that failed, nothing is better than other neighbours."""
        if self._loading is None or self._loading.is_alive():
            return
        self._loading = None
        self._loaded, self._arrived = self._arrived, None
        if self._loaded is None:
            self.current = None

    def _tick(self, loaded: LoadedModel) -> None:
        votes, before = loaded.follower.votes, self.current
        state, affected = votes.tick(_us(self._clock()))
        self.current = Current(loaded.live, state)
        if before is not None and len(affected):
            users = [votes.user_ids.id_of(user) for user in affected.tolist()]
            self.changes.tell_some(before.state, state, users, loaded.live.generation_id)

    def _say(self, reason: str, public: str | None = None) -> None:
        if reason and reason != self.reason:
            log.warning("real-time recommendations: %s", reason)
        self.reason, self.public_reason = reason, reason if public is None else public


def _reasons(error: Exception) -> tuple[str, str]:
    """What the log says of an error, and what anybody may read."""
    if isinstance(error, MissingUpstream):
        public = "files of the published model are missing"
    elif isinstance(error, CorruptArtifact):
        public = "the files are not those of the published model, or cannot be read"
    elif isinstance(error, RecoError):
        public = "the database cannot be asked"
    else:
        return f"failed unexpectedly: {error!r}", "they failed unexpectedly; the service's log says how"
    return str(error), f"{public}; the service's log says more"


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
