"""Recommendations from live votes: the daily neighbours, kept in memory with what they read since."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from reco_assets.settings import Settings

if TYPE_CHECKING:
    from reco_assets.serving.database import Database

RealtimeState = Literal["off", "loading", "ready", "late"]


@dataclass(frozen=True, slots=True)
class LivePost:
    """One post of a list; `score` is comparable within the list only."""

    post_id: UUID
    score: float


@dataclass(frozen=True, slots=True)
class LiveList:
    """A user's list as of an instant, best first.

    Attributes:
        posts: best first.
        as_of: the instant that votes and ages are counted to.
        model_version: whose neighbours vote.
        generation_id: the publication that the model belongs to.
        folded_in: whether the neighbours were found anew, from what the user did since the fit.
    """

    posts: list[LivePost]
    as_of: datetime
    model_version: str
    generation_id: UUID | None
    folded_in: bool


class Realtime:
    """The real-time tier of one process."""

    def __init__(self, reads: "Database", settings: Settings, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock
        self.state: RealtimeState = "off"
        self.reason = "not started"
        self.model_version: str | None = None
        self.day: date | None = None
        self.as_of: datetime | None = None

    async def start(self) -> None:
        """Load in the background; returns at once."""

    async def stop(self) -> None:
        """End the background work."""

    async def recommend(
        self, user_id: UUID, n: int, *, closed: Collection[UUID] = ()
    ) -> LiveList | None:
        """The user's list; None while nothing is loaded, or where nothing is known of the user."""
        return None
