"""Making a published model ready: files mapped, events caught up, loops compiled."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from reco_assets.errors import MissingUpstream
from reco_assets.names import end_of_day_us
from reco_assets.serving.realtime.event_follower import EventFollower
from reco_assets.serving.realtime.fitted_day import open_fitted_day
from reco_assets.serving.realtime.generation_watch import connect
from reco_assets.settings import Settings

if TYPE_CHECKING:
    from reco_assets.store.live_events import LiveModel


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A published model with the events since."""

    live: "LiveModel"
    follower: EventFollower

    def published_as(self, live: "LiveModel") -> "LoadedModel":
        """The same model under its new publication."""
        return replace(self, live=live)


def load_model(settings: Settings, live: "LiveModel", clock: Callable[[], datetime]) -> LoadedModel:
    """Takes seconds with large models or after long absences; other models may serve meanwhile.

    Raises:
        MissingUpstream, CorruptArtifact: about the files.
        DatabaseUnreachable, DatabaseBusy, SchemaError: about the events.
    """
    from reco_assets.recommender.live_votes import LiveVotes

    fit = open_fitted_day(settings.storage, live.day, live.model_digest)
    # What the published lists hold has to last a day; these are read at once. See docs/results.md.
    fit.model.set_params(
        vote_half_life_days=settings.realtime_vote_half_life_days,
        popularity_half_life_days=settings.realtime_popularity_half_life_days,
        popularity_blend=settings.realtime_popularity_blend,
    )
    votes = LiveVotes(fit)
    since = datetime.fromtimestamp(end_of_day_us(live.day) / 1e6, tz=UTC)
    follower = EventFollower(votes, since, settings.realtime_max_events, clock)
    with connect(settings) as connection:
        follower.catch_up(connection)
    # Compiles what requests will need, also for users whose neighbours have to be found.
    if not len(votes.user_ids):
        raise MissingUpstream(
            f"The model of {live.day} knows no user. Run `reco run --partition {live.day}`."
        )
    state, _ = votes.tick((clock() - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
    someone = votes.user_ids.id_of(0)
    state.recommend(someone, 1)
    posts, weights, times = state.rows.row(0)
    known = posts < state.model.n_posts_
    state.model.neighbors_of(posts[known], weights[known], times[known], user_index=0)
    return LoadedModel(live, follower)
