"""Which model a generation was made from, to the byte: what the service computes with must be that one."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE recommendation_generations ADD COLUMN IF NOT EXISTS model_digest text")


def downgrade() -> None:
    op.execute("ALTER TABLE IF EXISTS recommendation_generations DROP COLUMN IF EXISTS model_digest")
