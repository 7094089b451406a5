"""A published list with the evidence for it, taken from the model version that made it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from reco_assets.errors import BadInput, MissingUpstream, NoInteractions
from reco_assets.settings import Settings


@dataclass(frozen=True)
class Voter:
    """A neighbour who carried a post: similarity, what they did last with it, and their share."""

    user_id: UUID
    similarity: float
    interactions: str
    last_interaction_at: datetime | None
    share: float


@dataclass(frozen=True)
class ExplainedPost:
    """A row of the list; shares of voters and popularity add up to 1."""

    rank: int
    post_id: UUID
    title: str
    created_at: datetime | None
    score: float
    voters: tuple[Voter, ...]
    n_voters: int
    popularity_share: float


@dataclass(frozen=True)
class ExplainedList:
    """A user's published list."""

    user_id: UUID
    model_version: str
    generation_id: UUID
    generated_at: datetime
    expires_at: datetime
    n_neighbors: int
    history: tuple[tuple[str, str], ...]
    posts: tuple[ExplainedPost, ...]


def explain_list(settings: Settings, user: str | None, n: int, n_voters: int) -> ExplainedList:
    """Read the list and take each score apart with the model that computed it.

    Raises:
        NoInteractions: Nothing was ever published.
        BadInput: The database does not know the user.
    """
    import numpy as np

    from reco_assets.store.database import create_engine_for, transaction
    from reco_assets.store.evidence import (
        creation_times,
        interactions_with,
        recent_interactions,
        user_with_longest_list,
    )
    from reco_assets.store.generations import generation, live_generation
    from reco_assets.store.lookups import recommendations_of, user_exists

    now = datetime.now(UTC)
    engine = create_engine_for(settings, application_name="reco recommend")
    try:
        with transaction(engine) as connection:
            live = live_generation(connection)
            if live is None:
                raise NoInteractions("Nothing was published yet. Run `reco run` (or `reco demo`) first.")
            user_id = _find_user(connection, user) if user else user_with_longest_list(connection, now=now)
            if user_id is None or not user_exists(connection, user_id):
                raise BadInput(f"No user {user_id} in table users.")
            rows = recommendations_of(connection, user_id, now=now, n=n)
            created = creation_times(connection, [row.post_id for row in rows])
            history = recent_interactions(connection, user_id, n=5)
            made_by = generation(connection, rows[0].generation_id) if rows else live
        # Between two transactions: a model may have to be fetched, and nothing should wait for that.
        model = _model_of(settings, made_by or live)
        row_of_user = int(model.rows_of_users(_as_bytes([user_id]))[0])
        explanations = {row.post_id: _explain(model, row_of_user, row.post_id) for row in rows}
        shown = {
            post_id: [] if explanation is None else explanation.voters[:n_voters]
            for post_id, explanation in explanations.items()
        }
        names = {
            voter.user_index: _as_uuid(model.user_ids_[voter.user_index])
            for voters in shown.values()
            for voter in voters
        }
        with transaction(engine) as connection:
            done = {
                row.post_id: interactions_with(
                    connection,
                    row.post_id,
                    [names[voter.user_index] for voter in shown[row.post_id]],
                    before=row.generated_at,
                )
                for row in rows
            }
    finally:
        engine.dispose()
    posts = [
        ExplainedPost(
            rank=row.rank,
            post_id=row.post_id,
            title=row.title or str(row.post_id),
            created_at=created.get(row.post_id),
            score=row.score,
            voters=tuple(
                _voter(voter, names[voter.user_index], done[row.post_id]) for voter in shown[row.post_id]
            ),
            n_voters=len(explanation.voters) if explanation else 0,
            popularity_share=explanation.popularity_share if explanation else 0.0,
        )
        for row in rows
        for explanation in (explanations[row.post_id],)
    ]
    neighbors = model.kneighbors(np.array([row_of_user]))[0][0] if row_of_user >= 0 else np.empty(0)
    first = rows[0] if rows else None
    return ExplainedList(
        user_id=user_id,
        model_version=(made_by or live).model_version or "unknown",
        generation_id=(made_by or live).id,
        generated_at=first.generated_at if first else live.created_at,
        expires_at=first.expires_at if first else live.created_at,
        n_neighbors=int((neighbors >= 0).sum()),
        history=tuple((item.interaction_type, item.title or "") for item in history),
        posts=tuple(posts),
    )


def print_list(explained: ExplainedList) -> None:
    """For people."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]User {explained.user_id}[/], lately:")
    for kind, title in explained.history:
        console.print(f"  {kind:<6} {title}", markup=False)
    if not explained.posts:
        console.print(
            "No recommendations: the user had no interaction within RECO_ACTIVE_WITHIN_DAYS, or nothing is "
            "left to recommend. The app's feed falls back to what is popular."
        )
        return
    console.print(
        f"\n[bold]Recommended[/] by {explained.model_version} at "
        f"{explained.generated_at:%Y-%m-%d %H:%M} UTC, valid until {explained.expires_at:%Y-%m-%d %H:%M} UTC"
    )
    for post in explained.posts:
        console.print(f"{post.rank:>3}  {post.score:.3f}  ", end="", style="cyan")
        console.print(f"{post.title}", markup=False, end="")
        age = f"{_hours(explained.generated_at, post.created_at)} old" if post.created_at else ""
        console.print(f"  [dim]{age}[/]")
        for voter in post.voters:
            when = ""
            if voter.last_interaction_at:
                when = f" {_hours(explained.generated_at, voter.last_interaction_at)} before"
            console.print(
                f"            [dim]{voter.share:4.0%}  neighbour {str(voter.user_id)[:8]} "
                f"(similarity {voter.similarity:.2f}): {voter.interactions}{when}[/]"
            )
        rest = post.n_voters - len(post.voters)
        others = f"{rest} more neighbour{'s' if rest > 1 else ''}, " if rest > 0 else ""
        console.print(f"            [dim]{others}popularity {post.popularity_share:.0%}[/]")


def as_dict(explained: ExplainedList) -> dict[str, Any]:
    """For programs: plain JSON types."""
    import json

    def plain(value: Any) -> Any:
        return value.isoformat() if isinstance(value, datetime) else str(value)

    content = json.loads(json.dumps(asdict(explained), default=plain))
    assert isinstance(content, dict)
    return content


def _find_user(connection: Any, text: str) -> UUID:
    from reco_assets.store.evidence import users_like

    try:
        return UUID(text)
    except ValueError:
        found = users_like(connection, text, n=2)
    if len(found) == 1:
        return found[0]
    problem = "fits several users" if found else "is not a UUID, nor the beginning of one that has a list"
    raise BadInput(f"{text!r} {problem}. Give more of it; imported ids have UUIDs, see `reco import --help`.")


def _model_of(settings: Settings, generation: Any) -> Any:
    """The version that made a generation: from local files if they are still that one, else from MLflow."""
    import dagster as dg

    from reco_assets.pipeline.provenance import registered_version
    from reco_assets.recommender.artifact import artifact_digest
    from reco_assets.recommender.user_knn import UserKNNRecommender
    from reco_assets.resources.mlflow_tracking import ModelRegistry
    from reco_assets.resources.storage import FileStorage

    directory = FileStorage(base_dir=str(settings.storage)).model(generation.partition_date)
    if directory.exists():
        try:
            with dg.DagsterInstance.get() as instance:
                registered = registered_version(instance, generation.partition_date)
        except MissingUpstream:
            registered = None
        if (
            registered is not None
            and registered.version_name == generation.model_version
            and registered.digest == artifact_digest(directory)
        ):
            return UserKNNRecommender.load(directory)
    registry = ModelRegistry(model_name=settings.model_name)
    return UserKNNRecommender.load(registry.download(registry.version_of(str(generation.model_version))))


def _hours(later: datetime, earlier: datetime) -> str:
    return f"{(later - earlier).total_seconds() / 3600:.0f} h"


def _explain(model: Any, user: int, post_id: UUID) -> Any:
    from reco_assets.recommender.interaction_log import rows_of

    post = int(rows_of(model.post_ids_, _as_bytes([post_id]))[0])
    return model.explain(user, post) if user >= 0 and post >= 0 else None


def _voter(voter: Any, user_id: UUID, done: Mapping[UUID, str]) -> Voter:
    last = voter.last_interaction_at
    return Voter(
        user_id=user_id,
        similarity=float(voter.similarity),
        interactions=done.get(user_id, "interaction since deleted"),
        last_interaction_at=datetime.fromtimestamp(last / 1e6, UTC) if last is not None else None,
        share=float(voter.share),
    )


def _as_bytes(ids: list[UUID]) -> Any:
    import numpy as np

    return np.array([list(each.bytes) for each in ids], dtype=np.uint8).reshape(-1, 16)


def _as_uuid(raw: Any) -> UUID:
    return UUID(bytes=raw.tobytes())
