"""The seven tables and two views, each only where the app has none of that name."""

from alembic import context, op
from sqlalchemy import text

from reco_assets.store.adoption import Existing

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CREATED_OBJECTS = """
CREATE TABLE IF NOT EXISTS reco_created_objects (
    kind text NOT NULL,
    name text NOT NULL,
    revision text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, name)
)
"""

# APP_ID is uuid or text, as the app has it.
TABLES = {
    "users": """
CREATE TABLE users (
    id APP_ID PRIMARY KEY DEFAULT NEW_APP_ID,
    created_at timestamptz NOT NULL DEFAULT now()
)
""",
    "posts": """
CREATE TABLE posts (
    id APP_ID PRIMARY KEY DEFAULT NEW_APP_ID,
    author_id APP_ID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    title text NOT NULL,
    body text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX posts_author_id_idx ON posts (author_id);
CREATE INDEX posts_created_at_idx ON posts (created_at DESC)
""",
    "user_interactions": """
CREATE TABLE user_interactions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id APP_ID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    post_id APP_ID NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    interaction_type varchar(20) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    metadata jsonb
);
CREATE INDEX user_interactions_user_id_idx ON user_interactions (user_id, created_at);
CREATE INDEX user_interactions_post_id_idx ON user_interactions (post_id);
CREATE INDEX user_interactions_created_at_idx ON user_interactions (created_at)
""",
    "user_recommendations": """
CREATE TABLE user_recommendations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id APP_ID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    post_id APP_ID NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    score double precision NOT NULL,
    generated_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    model_version text NOT NULL,
    generation_id uuid NOT NULL,
    UNIQUE (user_id, post_id)
);
CREATE INDEX user_recommendations_user_id_score_idx ON user_recommendations (user_id, score DESC);
CREATE INDEX user_recommendations_post_id_idx ON user_recommendations (post_id);
CREATE INDEX user_recommendations_expires_at_idx ON user_recommendations (expires_at)
""",
    "recommendation_generations": """
CREATE TABLE recommendation_generations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    partition_date date NOT NULL,
    status text NOT NULL CONSTRAINT recommendation_generations_status_check
        CHECK (status IN ('building', 'live', 'superseded', 'archived', 'refused', 'failed')),
    model_version text,
    mlflow_run_id text,
    dagster_run_id text,
    n_users bigint NOT NULL DEFAULT 0,
    n_recommendations bigint NOT NULL DEFAULT 0,
    n_carried_over bigint NOT NULL DEFAULT 0,
    n_dropped bigint NOT NULL DEFAULT 0,
    dropped_reasons jsonb NOT NULL DEFAULT '{}'::jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    superseded_at timestamptz,
    message text
);
CREATE UNIQUE INDEX recommendation_generations_one_live
    ON recommendation_generations (status) WHERE status = 'live'
""",
    "quality_metrics": """
CREATE TABLE quality_metrics (
    metric_date date NOT NULL,
    metric text NOT NULL,
    segment text NOT NULL DEFAULT 'all',
    value double precision NOT NULL,
    lower double precision,
    upper double precision,
    n bigint,
    model_version text,
    generation_id uuid,
    measured_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (metric_date, metric, segment)
)
""",
    "alerts_sent": """
CREATE TABLE alerts_sent (
    dedupe_key text NOT NULL,
    channel text NOT NULL,
    kind text NOT NULL,
    title text NOT NULL,
    first_sent timestamptz NOT NULL DEFAULT now(),
    last_sent timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    resolution_sent_at timestamptz,
    PRIMARY KEY (dedupe_key, channel)
)
""",
}

VIEWS = {
    "recommendable_posts": """
CREATE VIEW recommendable_posts AS SELECT id AS post_id, author_id, POST_TIME AS created_at FROM posts
""",
    "hidden_authors": """
CREATE VIEW hidden_authors AS SELECT NULL::APP_ID AS user_id, NULL::APP_ID AS author_id WHERE false
""",
}


def upgrade() -> None:
    existing: Existing = context.config.attributes["existing"]
    words = {
        "NEW_APP_ID": "gen_random_uuid()" if existing.id_type == "uuid" else "gen_random_uuid()::text",
        "APP_ID": existing.id_type,
        # Without a zone it means UTC, and readers of the view should not have to know.
        "POST_TIME": "created_at AT TIME ZONE 'UTC'" if existing.naive_post_time else "created_at",
    }
    op.execute(CREATED_OBJECTS)
    for kind, definitions in (("table", TABLES), ("view", VIEWS)):
        for name, ddl in definitions.items():
            if name in existing:
                continue
            for word, meaning in words.items():
                ddl = ddl.replace(word, meaning)
            for statement in ddl.split(";\n"):
                op.execute(statement)
            op.get_bind().execute(
                text("INSERT INTO reco_created_objects (kind, name, revision) VALUES (:kind, :name, :rev)"),
                {"kind": kind, "name": name, "rev": revision},
            )


def downgrade() -> None:
    rows = op.get_bind().execute(
        text("SELECT kind, name FROM reco_created_objects WHERE revision = :rev"), {"rev": revision}
    )
    created = {(kind, name) for kind, name in rows}
    for kind, definitions in (("view", VIEWS), ("table", TABLES)):
        for name in reversed(definitions):
            if (kind, name) in created:
                op.execute(f"DROP {kind.upper()} IF EXISTS {name}")
    op.execute("DROP TABLE reco_created_objects")
