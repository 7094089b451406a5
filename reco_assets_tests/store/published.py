"""Small worlds and generations for the tests of publishing."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from reco_assets.store.copy_buffer import RecommendationRows
from reco_assets.store.database import transaction
from reco_assets.store.publish import Publication, publish

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
DAY = date(2026, 11, 19)


def user(number: int) -> UUID:
    return UUID(int=0xA0000000_0000_4000_8000_000000000000 + number)


def post(number: int) -> UUID:
    return UUID(int=0xB0000000_0000_4000_8000_000000000000 + number)


AUTHOR = user(999)


def make_world(engine: sa.Engine, *, n_users: int = 4, n_posts: int = 6) -> None:
    """Users 1…, posts 1… by AUTHOR, no interactions."""
    with transaction(engine) as connection:
        for each in [AUTHOR, *(user(i) for i in range(1, n_users + 1))]:
            connection.execute(sa.text("INSERT INTO users (id) VALUES (:id)"), {"id": str(each)})
        for i in range(1, n_posts + 1):
            connection.execute(
                sa.text("INSERT INTO posts (id, author_id, title) VALUES (:id, :author, :title)"),
                {"id": str(post(i)), "author": str(AUTHOR), "title": f"post {i}"},
            )


def rows_of(pairs: Iterable[tuple[int, int]]) -> RecommendationRows:
    """Pairs of user and post number; scores fall in the order given."""
    pairs = list(pairs)
    return RecommendationRows(
        as_array(user(u) for u, _ in pairs),
        as_array(post(p) for _, p in pairs),
        np.linspace(1.0, 0.5, len(pairs), dtype=np.float64),
    )


def as_array(ids: Iterable[UUID]) -> Any:
    return np.array([list(each.bytes) for each in ids], dtype=np.uint8).reshape(-1, 16)


def publish_pairs(
    engine: sa.Engine,
    pairs: Iterable[tuple[int, int]],
    *,
    day: date = DAY,
    generated_at: datetime = NOW,
    ttl: timedelta = timedelta(hours=72),
    version: str = "collaborative_filtering_v1",
    model_digest: str | None = None,
    dagster_run_id: str | None = None,
    wait_s: float = 20.0,
    say: Callable[[str], None] = lambda _text: None,
    on_stage: Callable[[str], None] = lambda _stage: None,
) -> Publication:
    return publish(
        engine,
        rows_of(pairs),
        partition_date=day,
        generated_at=generated_at,
        expires_at=generated_at + ttl,
        model_version=version,
        model_digest=model_digest,
        dagster_run_id=dagster_run_id,
        wait_s=wait_s,
        say=say,
        on_stage=on_stage,
    )


def live_pairs(engine: sa.Engine) -> set[tuple[int, int]]:
    """What readers find, as numbers."""
    with transaction(engine) as connection:
        rows = connection.execute(sa.text("SELECT user_id, post_id FROM user_recommendations")).all()
    return {(_number(u), _number(p)) for u, p in rows}


def statuses(engine: sa.Engine) -> list[str]:
    with transaction(engine) as connection:
        query = sa.text("SELECT status FROM recommendation_generations ORDER BY created_at, id")
        return list(connection.scalars(query))


def debris(engine: sa.Engine) -> list[str]:
    """Whatever a publication made and did not clear."""
    with transaction(engine) as connection:
        return list(
            connection.scalars(
                sa.text(
                    "SELECT relname FROM pg_class WHERE relname LIKE 'user\\_recommendations\\_next%' "
                    "OR relname LIKE 'user\\_recommendations\\_replaced%'"
                )
            )
        )


def run_sql(engine: sa.Engine, *statements: str) -> None:
    with transaction(engine) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def _number(value: UUID | str) -> int:
    return UUID(str(value)).int & 0xFFFF
