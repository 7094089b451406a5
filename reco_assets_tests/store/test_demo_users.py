"""The users that the demo offers."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import psycopg

from reco_assets.settings import Settings
from reco_assets.store.demo_users import DemoUser, demo_users

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_it_offers_busy_quiet_and_new_users_busiest_first(settings: Settings) -> None:
    url = settings.database_url
    assert url
    busy, middle, quiet, new = users = [uuid.UUID(int=n) for n in range(1, 5)]
    post = uuid.UUID(int=100)
    with psycopg.connect(url, autocommit=True) as connection:
        for user in users:
            connection.execute("INSERT INTO users (id) VALUES (%s)", (user,))
        connection.execute("INSERT INTO posts (id, author_id, title) VALUES (%s, %s, 'A')", (post, new))
        for user, n in ((busy, 5), (middle, 3), (quiet, 1)):
            for minutes in range(n):
                connection.execute(
                    "INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
                    "VALUES (%s, %s, 'view', %s)",
                    (user, post, NOW - timedelta(minutes=minutes)),
                )
        for user, hours in ((busy, 1), (quiet, -1)):
            connection.execute(
                "INSERT INTO user_recommendations (user_id, post_id, score, generated_at, expires_at, "
                "model_version, generation_id) VALUES (%s, %s, 1, %s, %s, 'v1', gen_random_uuid())",
                (user, post, NOW - timedelta(days=1), NOW + timedelta(hours=hours)),
            )

    async def ask() -> list[DemoUser]:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            return await demo_users(connection, now=NOW, n_busy=1, n_quiet=1, n_new=1)

    assert asyncio.run(ask()) == [
        DemoUser(str(busy), 5, NOW, has_list=True),
        DemoUser(str(quiet), 1, NOW, has_list=False),
        DemoUser(str(new), 0, None, has_list=False),
    ]
