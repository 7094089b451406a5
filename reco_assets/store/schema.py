"""The tables and views, as SQLAlchemy Core metadata. `docs/tables.md` says what each is for.

No name carries a schema: `search_path` (RECO_DATABASE_SCHEMA) decides where they live. The migrations
spell the same tables out a second time, because a migration must not change when this file does;
a test compares the two.
"""

from collections.abc import Callable
from typing import Any, Final, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

IdType = Literal["uuid", "text"]
"""How the app stores its ids. Text ids hold UUIDs in canonical lower-case form."""

GENERATION_STATUSES: Final = ("building", "live", "superseded", "archived", "refused", "failed")
VIEWS: Final = ("recommendable_posts", "hidden_authors")


class AppId(UserDefinedType[UUID]):
    """An id of the app, `uuid` or `text` in the database and always a `UUID` in Python.

    Parameters carry no type, so the server reads them as whatever the column is: one query serves
    both kinds of database.
    """

    cache_ok = True

    def __init__(self, column_type: IdType = "uuid") -> None:
        self.column_type = column_type

    def get_col_spec(self, **_: Any) -> str:
        """The type in DDL."""
        return self.column_type.upper()

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], str | None]:  # noqa: ARG002
        """Canonical text, which text ids are compared with byte by byte."""
        return lambda value: None if value is None else str(UUID(str(value)))

    def result_processor(
        self,
        dialect: sa.Dialect,  # noqa: ARG002
        coltype: object,  # noqa: ARG002
    ) -> Callable[[Any], UUID | None]:
        """A `UUID` from either type."""
        return lambda value: value if value is None or isinstance(value, UUID) else UUID(value)


def build_metadata(id_type: IdType = "uuid") -> sa.MetaData:
    """The tables for an app whose ids are of `id_type`."""
    metadata = sa.MetaData()
    app_id = AppId(id_type)
    new_app_id = sa.text("gen_random_uuid()" if id_type == "uuid" else "(gen_random_uuid())::text")
    timestamp = sa.DateTime(timezone=True)
    now = sa.text("now()")

    def new_id() -> sa.Column[UUID]:
        return sa.Column(
            "id", sa.Uuid, primary_key=True, nullable=False, server_default=sa.text("gen_random_uuid()")
        )

    def reference(name: str, table: str) -> sa.Column[UUID]:
        # Each of these columns leads an index, or deleting one user would scan the whole table.
        return sa.Column(name, app_id, sa.ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=False)

    sa.Table(
        "users",
        metadata,
        sa.Column("id", app_id, primary_key=True, server_default=new_app_id),
        sa.Column("created_at", timestamp, nullable=False, server_default=now),
    )
    sa.Table(
        "posts",
        metadata,
        sa.Column("id", app_id, primary_key=True, server_default=new_app_id),
        reference("author_id", "users"),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False, server_default=""),
        sa.Column("created_at", timestamp, nullable=False, server_default=now),
        sa.Index("posts_author_id_idx", "author_id"),
        sa.Index("posts_created_at_idx", sa.text("created_at DESC")),
    )
    sa.Table(
        "user_interactions",
        metadata,
        new_id(),
        reference("user_id", "users"),
        reference("post_id", "posts"),
        # No CHECK on the type: a deployer adds types by giving them a weight in the settings.
        sa.Column("interaction_type", sa.String(20), nullable=False),
        sa.Column("created_at", timestamp, nullable=False, server_default=now),
        sa.Column("metadata", JSONB),
        sa.Index("user_interactions_user_id_idx", "user_id", "created_at"),
        sa.Index("user_interactions_post_id_idx", "post_id"),
        sa.Index("user_interactions_created_at_idx", "created_at"),
    )
    sa.Table(
        "user_recommendations",
        metadata,
        new_id(),
        reference("user_id", "users"),
        reference("post_id", "posts"),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("generated_at", timestamp, nullable=False),
        sa.Column("expires_at", timestamp, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        # Not a foreign key: rows carried over may outlive the record of their generation.
        sa.Column("generation_id", sa.Uuid, nullable=False),
        sa.UniqueConstraint("user_id", "post_id", name="user_recommendations_user_id_post_id_key"),
        sa.Index("user_recommendations_user_id_score_idx", "user_id", sa.text("score DESC")),
        sa.Index("user_recommendations_post_id_idx", "post_id"),
        sa.Index("user_recommendations_expires_at_idx", "expires_at"),
    )
    sa.Table(
        "recommendation_generations",
        metadata,
        new_id(),
        sa.Column("partition_date", sa.Date, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text),
        sa.Column("mlflow_run_id", sa.Text),
        sa.Column("dagster_run_id", sa.Text),
        sa.Column("n_users", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("n_recommendations", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("n_carried_over", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("n_dropped", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("dropped_reasons", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("created_at", timestamp, nullable=False, server_default=now),
        sa.Column("published_at", timestamp),
        sa.Column("superseded_at", timestamp),
        sa.Column("message", sa.Text),
        sa.Column("model_digest", sa.Text),
        sa.Column("lists_digest", sa.Text),
        # Not a foreign key: a record may outlive the one it came from.
        sa.Column("restored_from", sa.Uuid),
        sa.CheckConstraint(
            "status IN ('building', 'live', 'superseded', 'archived', 'refused', 'failed')",
            name="recommendation_generations_status_check",
        ),
        sa.Index(
            "recommendation_generations_one_live", "status", unique=True, postgresql_where="status = 'live'"
        ),
    )
    sa.Table(
        "quality_metrics",
        metadata,
        sa.Column("metric_date", sa.Date, primary_key=True),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("segment", sa.Text, primary_key=True, server_default="all"),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("lower", sa.Double),
        sa.Column("upper", sa.Double),
        sa.Column("n", sa.BigInteger),
        sa.Column("model_version", sa.Text),
        sa.Column("generation_id", sa.Uuid),
        sa.Column("measured_at", timestamp, nullable=False, server_default=now),
    )
    sa.Table(
        "alerts_sent",
        metadata,
        sa.Column("dedupe_key", sa.Text, primary_key=True),
        # A redacted URL or a hash of it: an Apprise URL holds its channel's secret.
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("first_sent", timestamp, nullable=False, server_default=now),
        sa.Column("last_sent", timestamp, nullable=False, server_default=now),
        sa.Column("resolved_at", timestamp),
        sa.Column("resolution_sent_at", timestamp),
    )
    return metadata


METADATA: Final = build_metadata()
users: Final = METADATA.tables["users"]
posts: Final = METADATA.tables["posts"]
user_interactions: Final = METADATA.tables["user_interactions"]
user_recommendations: Final = METADATA.tables["user_recommendations"]
recommendation_generations: Final = METADATA.tables["recommendation_generations"]
quality_metrics: Final = METADATA.tables["quality_metrics"]
alerts_sent: Final = METADATA.tables["alerts_sent"]

recommendable_posts: Final = sa.table(
    "recommendable_posts",
    sa.column("post_id", AppId()),
    sa.column("author_id", AppId()),
    sa.column("created_at", sa.DateTime(timezone=True)),
)
hidden_authors: Final = sa.table(
    "hidden_authors", sa.column("user_id", AppId()), sa.column("author_id", AppId())
)
