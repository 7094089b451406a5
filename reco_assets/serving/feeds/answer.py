"""The answer of a feed: as it is documented, and as it is made."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic_core import to_json

from reco_assets.serving.feeds.lists import (
    EXPLORED_NEW,
    EXPLORED_RANDOM,
    KINDS,
    Entry,
    Origin,
    count_sources,
)
from reco_assets.serving.feeds.live_filter import LiveFilter

Source = Literal[
    "ml_recommendations",
    "realtime_recommendations",
    "trending_fallback",
    "random_fallback",
    "exploration",
]
Reason = Literal[
    "similar_readers",
    "similar_readers_now",
    "popular_now",
    "random",
    "exploration_new",
    "exploration_random",
]


class FeedPost(BaseModel):
    """One post of a feed."""

    id: str = Field(description="The post's id; `post_id` is the same.", json_schema_extra={"format": "uuid"})
    post_id: str = Field(json_schema_extra={"format": "uuid"})
    title: str | None = Field(description="Null where the app's posts have none.")
    author_id: str | None = Field(description="Null where it is not known.")
    created_at: datetime | None
    source: Source = Field(description="Where it comes from.")
    score: float = Field(description="Higher is better; comparable within one source of one list only.")
    rank: int = Field(description="From 1, over all pages of the list.", ge=1)
    reason: Reason = Field(description="Why it is there, as a stable code.")
    propensity: float = Field(
        description="Probability that this post stood here, given the list.", ge=0, le=1
    )


class FeedExperiment(BaseModel):
    """The experiment that the user is in."""

    name: str
    arm: str


class FeedMetadata(BaseModel):
    """About the page and its list."""

    request_id: str
    sources: dict[Source, int] = Field(description="Posts of the page by source.")
    fallback_reason: str | None = Field(
        description="Why the list does not begin with recommendations, or not with those of live votes."
    )
    degraded: str | None = Field(
        description="Why the posts could not be filtered by the database, if they could not."
    )
    model_version: str | None
    generation_id: str | None
    generated_at: datetime | None = Field(description="When the recommendations were computed.")
    experiment: FeedExperiment | None
    next_cursor: str | None = Field(description="Continues this list; null where it ends.")


class FeedAnswer(BaseModel):
    """A page of a feed."""

    posts: list[FeedPost]
    metadata: FeedMetadata


def answer_body(
    page: Sequence[Entry],
    origin: Origin,
    live_filter: LiveFilter,
    *,
    served: int,
    request_id: str,
    next_cursor: str | None,
) -> tuple[bytes, dict[str, int]]:
    """A `FeedAnswer` as JSON, and its posts by source.

    Plain dictionaries, because validating what was just made would take longer than making it.

    Args:
        page: the posts.
        origin: of the list.
        live_filter: knows their facts.
        served: posts of the list before this page.
        request_id: of this request.
        next_cursor: None at the end of the list.
    """
    ordinary, explored = origin.propensities
    posts: list[dict[str, Any]] = []
    for rank, (post_id, kind, score) in enumerate(page, served + 1):
        author_id, created_at, title = live_filter.facts(post_id)
        source, reason = KINDS[kind]
        posts.append(
            {
                "id": post_id,
                "post_id": post_id,
                "title": title,
                "author_id": author_id,
                "created_at": created_at,
                "source": source,
                "score": float(f"{score:.6g}"),  # what survives a cursor: the same on every page
                "rank": rank,
                "reason": reason,
                "propensity": explored if kind in (EXPLORED_NEW, EXPLORED_RANDOM) else ordinary,
            }
        )
    sources = count_sources(page)
    metadata = {
        "request_id": request_id,
        "sources": sources,
        "fallback_reason": origin.fallback_reason,
        "degraded": live_filter.degraded,
        "model_version": origin.model_version,
        "generation_id": origin.generation_id,
        "generated_at": origin.generated_at,
        "experiment": None if origin.experiment is None else {"name": origin.experiment, "arm": origin.arm},
        "next_cursor": next_cursor,
    }
    return to_json({"posts": posts, "metadata": metadata}), sources
