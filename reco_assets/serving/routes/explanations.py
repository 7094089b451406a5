"""`GET /api/recommendations/{user_id}`: the list from live votes, and why each post is in it."""

import asyncio
from collections.abc import Sequence, Set
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from reco_assets.serving.feeds.live_filter import LiveFilter, Wish, complain, degraded_by
from reco_assets.serving.http.identity import acting_user
from reco_assets.serving.http.problems import documented
from reco_assets.serving.realtime.recommendations import LiveExplanations, LiveList
from reco_assets.store.known_users import known_users

if TYPE_CHECKING:
    from reco_assets.recommender.explanation import Voter
    from reco_assets.recommender.live_lists import ExplainedPost
    from reco_assets.serving.realtime.recommendations import Realtime
    from reco_assets.serving.service import Service

router = APIRouter(tags=["recommendations"])

_SPARE: Final = 20
"""Posts asked for beyond the limit, in place of those that the database refuses."""
_NAMED_READERS: Final = 5


class SimilarReader(BaseModel):
    """A similar user who read the post."""

    user_id: UUID | None = Field(description="Told to trusted backends only (RECO_AUTH none or api_key).")
    similarity: float = Field(description="To the user the list is for, 0 … 1.")
    hours_ago: float = Field(description="Since they last did something with the post.")
    share: float = Field(description="Of the post's score, 0 … 1.")


class PostExplanation(BaseModel):
    """What a post's score is made of."""

    summary: str = Field(description="In words.")
    n_readers: int = Field(description="Similar users who read it.")
    readers: list[SimilarReader] = Field(description=f"The {_NAMED_READERS} who weigh most.")
    popularity_share: float = Field(description="Of the score: how much is due to everybody's readers.")
    freshness: float = Field(description="The factor by the post's age, 0 … 1.")


class ExplainedRecommendation(BaseModel):
    """One post of the list."""

    post_id: UUID
    rank: int
    score: float = Field(description="Comparable within the list only.")
    title: str | None
    author_id: str | None
    created_at: datetime | None
    explanation: PostExplanation | None


class RecommendationsMetadata(BaseModel):
    """About the list."""

    request_id: str
    state: str = Field(description="Of real-time recommendations: off, loading, ready or late.")
    reason: str | None = Field(description="Why the list is empty, or nothing in it explained.")
    degraded: str | None = Field(description="Why the posts were not filtered by the database.")
    model_version: str | None
    generation_id: UUID | None
    as_of: datetime | None = Field(description="The instant that votes and ages are counted to.")
    folded_in: bool = Field(description="Neighbours were found anew, from what the user did since the fit.")


class Recommendations(BaseModel):
    """A user's list from live votes."""

    user_id: UUID
    recommendations: list[ExplainedRecommendation]
    metadata: RecommendationsMetadata


@router.get(
    "/api/recommendations/{user_id}",
    response_model=None,
    summary="Real-time recommendations, explained",
    responses={200: {"model": Recommendations, "description": "The list."}, **documented(401, 403, 422)},
)
async def recommendations(
    request: Request, user_id: UUID, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> Response:
    """What the user's neighbours read lately, by whom, how similar they are, and how long ago.

    The same list as in a feed of the source `realtime_recommendations`, without fallbacks: empty, with the
    reason, where there is none.
    """
    service: Service = request.app.state.service
    acting_user(request, user_id)
    wish = Wish(
        user_id=user_id,
        user=str(user_id),
        limit=limit,
        exclude=frozenset(),
        now=service.clock(),
        deadline=asyncio.get_running_loop().time() + service.settings.feed_timeout_s,
    )
    live_filter = LiveFilter(service, wish)
    found = _Found()
    await found.look(service.realtime, live_filter, user_id, limit)
    live, posts, explained = found.live, found.posts, found.explained
    why = {} if explained is None else {str(UUID(bytes=each.post_id)): each for each in explained.posts}
    as_of = wish.now if explained is None else explained.as_of
    names_readers = service.identity.names_anybody
    answer = Recommendations(
        user_id=user_id,
        recommendations=[
            ExplainedRecommendation(
                post_id=UUID(post_id),
                rank=rank,
                score=score,
                **live_filter.facts(post_id)._asdict(),
                explanation=_explanation(why.get(post_id), as_of, names_readers, found.gone),
            )
            for rank, (post_id, score) in enumerate(posts, start=1)
        ],
        metadata=RecommendationsMetadata(
            request_id=request.scope["state"]["reco_request_id"],
            state=service.realtime.state,
            reason=found.reason,
            degraded=live_filter.degraded,
            model_version=None if live is None else live.model_version,
            generation_id=None if live is None else live.generation_id,
            as_of=None if live is None else live.as_of,
            folded_in=live is not None and live.folded_in,
        ),
    )
    return Response(answer.model_dump_json(), media_type="application/json")


class _Found:
    """What there is to answer.

    Attributes:
        live: the list as it was made; None without one.
        posts: those of it that the user may see.
        explained: why; None where that failed.
        reason: why there are no posts, or no explanations; None if there are.
        gone: readers whom the app no longer has. Live votes count them until the next publication.
    """

    def __init__(self) -> None:
        self.live: LiveList | None = None
        self.posts: list[tuple[str, float]] = []
        self.explained: LiveExplanations | None = None
        self.reason: str | None = None
        self.gone: Set[UUID] = frozenset()

    async def look(self, realtime: "Realtime", live_filter: LiveFilter, user_id: UUID, limit: int) -> None:
        """Find it; failures end as a reason."""
        try:
            self.live = await realtime.recommend(user_id, limit + _SPARE)
        except Exception as error:
            complain("A real-time list failed.", error)
            self.reason = "recommendations_failed"
            return
        if self.live is not None:
            await live_filter.ask(post_id for post_id, _ in self.live.posts)
            allowed = (post for post in self.live.posts if live_filter.admits(post[0]))
            self.posts = list(islice(allowed, limit))
        try:
            self.explained = await realtime.explain(user_id, [UUID(post_id) for post_id, _ in self.posts])
        except Exception as error:
            complain("Real-time recommendations could not be explained.", error)
            self.reason = "explanations_failed"
        await self._without_deleted_users(live_filter, user_id)
        if not self.posts and self.reason != "unknown_user":
            off = realtime.state in ("off", "loading")
            empty = "unknown_user" if self.live is None else "no_recommendations"
            self.reason = f"realtime_{realtime.state}" if off else empty

    async def _without_deleted_users(self, live_filter: LiveFilter, user_id: UUID) -> None:
        if self.live is None or live_filter.degraded is not None:
            return
        explained = () if self.explained is None else self.explained.posts
        readers = {UUID(bytes=reader) for each in explained for reader in each.voter_ids[:_NAMED_READERS]}
        try:
            known = await live_filter.query(
                live_filter.time_left(), lambda connection: known_users(connection, {user_id, *readers})
            )
        except Exception as error:
            live_filter.degraded = degraded_by(error)
            return
        self.gone = readers - known
        if user_id not in known:
            self.live, self.posts, self.explained, self.reason = None, [], None, "unknown_user"


def _explanation(
    explained: "ExplainedPost | None", as_of: datetime, names_readers: bool, gone: Set[UUID]
) -> PostExplanation | None:
    """A token's subject learns that there were readers, not who: no ids, coarse times and likeness."""
    if explained is None:
        return None
    why = explained.explanation
    readers = [
        SimilarReader(
            user_id=reader if names_readers else None,
            similarity=round(voter.similarity, 4 if names_readers else 1),
            hours_ago=round(_hours(voter, as_of), 3 if names_readers else 0),
            share=round(voter.share, 4 if names_readers else 2),
        )
        for voter, reader in zip(
            why.voters[:_NAMED_READERS], (UUID(bytes=each) for each in explained.voter_ids), strict=False
        )
        if reader not in gone
    ]
    return PostExplanation(
        summary=_in_words(why.voters, as_of),
        n_readers=len(why.voters),
        readers=readers,
        popularity_share=round(why.popularity_share, 4),
        freshness=round(why.freshness, 4),
    )


def _in_words(voters: "Sequence[Voter]", as_of: datetime) -> str:
    if not voters:
        return "Popular now."
    newest = min(_hours(voter, as_of) for voter in voters)
    ago = f"{newest:.0f} h ago" if newest < 48 else f"{newest / 24:.0f} days ago"
    ago = "within the hour" if newest < 1 else ago
    readers = "1 reader like you" if len(voters) == 1 else f"{len(voters)} readers like you"
    return f"Read by {readers}, most recently {ago}."


def _hours(voter: "Voter", as_of: datetime) -> float:
    if voter.last_interaction_at is None:
        return 0.0
    return max(0.0, as_of.timestamp() - voter.last_interaction_at / 1e6) / 3600
