"""Databases of apps: with tables that we made, and with an ORM's (text ids, no time zone, no title)."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from reco_assets.local.embedded_postgres import ServerAddress
from reco_assets.store import migrate
from reco_assets.store.database import create_engine_for
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import AUTHOR, NOW, post, run_sql, user

_ORM_TABLES = (
    "CREATE TABLE users (id text PRIMARY KEY)",
    "CREATE TABLE posts (id text PRIMARY KEY, headline text, author_id text NOT NULL "
    "REFERENCES users (id) ON DELETE CASCADE, created_at timestamp NOT NULL DEFAULT now())",
)
_BLOCKS = (
    "CREATE TABLE blocks (user_id {0}, author_id {0}, PRIMARY KEY (user_id, author_id))",
    "CREATE OR REPLACE VIEW hidden_authors AS SELECT user_id, author_id FROM blocks",
)


@pytest.fixture(scope="session")
def app_templates(postgres_server: ServerAddress) -> Callable[[str], str]:
    """Name of a migrated database with ids of that type, to copy from."""
    made: dict[str, str] = {}

    def template(id_type: str) -> str:
        if id_type not in made:
            name = f"reco_app_template_{id_type}"
            made[id_type] = name
            with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
                # Each module that imports this fixture has one of its own; the server is one.
                if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
                    return name
                connection.execute(f"CREATE DATABASE {name}")
            settings = settings_for(postgres_server.url(name))
            engine = create_engine_for(settings)
            if id_type == "text":
                run_sql(engine, *_ORM_TABLES)
            migrate.upgrade(settings)
            run_sql(engine, *(statement.format(id_type) for statement in _BLOCKS))
            engine.dispose()
        return made[id_type]

    return template


both_id_types = pytest.mark.parametrize("app", ["uuid", "text"], indirect=True)


@pytest.fixture
def app(
    postgres_server: ServerAddress, app_templates: Callable[[str], str], request: pytest.FixtureRequest
) -> Iterator[sa.Engine]:
    """A migrated database with a table `blocks` behind `hidden_authors`; see `both_id_types`."""
    template = app_templates(getattr(request, "param", "uuid"))
    name = f"a_{abs(hash(request.node.nodeid)):x}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        engine = create_engine_for(settings_for(postgres_server.url(name)))
        yield engine
        engine.dispose()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def world(app: sa.Engine) -> sa.Engine:
    """Users 1 to 4, posts 1 to 6 by AUTHOR from an hour before NOW."""
    add_people(app, 4)
    add_posts(app, 6, at=NOW - timedelta(hours=1))
    return app


def add_people(engine: sa.Engine, n: int) -> None:
    """AUTHOR and users 1 to n."""
    run_sql(
        engine,
        *(f"INSERT INTO users (id) VALUES ('{each}')" for each in [AUTHOR, *map(user, range(1, n + 1))]),
    )


def add_posts(engine: sa.Engine, n: int, *, at: datetime) -> None:
    """Posts 1 to n by AUTHOR."""
    columns = {each["name"] for each in sa.inspect(engine).get_columns("posts")}
    title = "title" if "title" in columns else "headline"
    run_sql(
        engine,
        *(
            f"INSERT INTO posts (id, author_id, {title}, created_at) "
            f"VALUES ('{post(i)}', '{AUTHOR}', 'post {i}', '{at}')"
            for i in range(1, n + 1)
        ),
    )


def interact(engine: sa.Engine, user_number: int, post_number: int, at: datetime, kind: str = "view") -> None:
    """One event."""
    run_sql(
        engine,
        "INSERT INTO user_interactions (id, user_id, post_id, interaction_type, created_at) VALUES "
        f"('{uuid4()}', '{user(user_number)}', '{post(post_number)}', '{kind}', '{at}')",
    )


def bar_own(engine: sa.Engine) -> None:
    """User 1 wrote post 2."""
    run_sql(engine, f"UPDATE posts SET author_id = '{user(1)}' WHERE id = '{post(2)}'")


def bar_hidden(engine: sa.Engine) -> None:
    """User 1 hides the author of post 2."""
    run_sql(
        engine,
        f"UPDATE posts SET author_id = '{user(3)}' WHERE id = '{post(2)}'",
        f"INSERT INTO blocks VALUES ('{user(1)}', '{user(3)}'), ('{user(2)}', '{AUTHOR}')",
    )


def bar_one_of_several_authors(engine: sa.Engine) -> None:
    """User 1 is one of the authors of post 2."""
    run_sql(
        engine,
        "CREATE OR REPLACE VIEW recommendable_posts AS "
        "SELECT id AS post_id, author_id, created_at::timestamptz AS created_at FROM posts UNION ALL "
        f"SELECT id, (SELECT id FROM users WHERE id = '{user(1)}'), created_at::timestamptz FROM posts "
        f"WHERE id = '{post(2)}'",
    )


def bar_unlisted(engine: sa.Engine) -> None:
    """Post 2 is not recommendable."""
    run_sql(
        engine,
        "DROP VIEW recommendable_posts",
        "CREATE VIEW recommendable_posts AS SELECT id AS post_id, author_id, created_at FROM posts "
        f"WHERE id <> '{post(2)}'",
    )


def bar_deleted(engine: sa.Engine) -> None:
    """Post 2 is gone."""
    run_sql(engine, f"DELETE FROM posts WHERE id = '{post(2)}'")


def bar_seen(engine: sa.Engine) -> None:
    """User 1 has interacted with post 2 within 90 days before NOW, with post 3 earlier."""
    interact(engine, 1, 2, NOW - timedelta(days=89), "hide")
    interact(engine, 1, 3, NOW - timedelta(days=91))
    interact(engine, 2, 1, NOW)


BARS = [bar_own, bar_hidden, bar_one_of_several_authors, bar_unlisted, bar_deleted, bar_seen]
"""Reasons why user 1 must not be shown post 2; posts 1 and 3 remain allowed."""
