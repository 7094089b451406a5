"""What is already in the database, and whether our tables can stand beside it.

An app's own tables are never altered. Either they can be used as they are, or the error says what
the deployer has to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from reco_assets.errors import SchemaError
from reco_assets.store.schema import IdType

_ID_TYPES: Final[dict[str, IdType]] = {"uuid": "uuid", "text": "text", "character varying": "text"}

REQUIRED_COLUMNS: Final[dict[str, frozenset[str]]] = {
    "users": frozenset({"id"}),
    "posts": frozenset({"id"}),
    "user_interactions": frozenset({"id", "user_id", "post_id", "interaction_type", "created_at"}),
    "user_recommendations": frozenset(
        {"id", "user_id", "post_id", "score", "generated_at", "expires_at", "model_version", "generation_id"}
    ),
}
"""The columns an existing table must have. More do no harm."""

ID_COLUMNS: Final = (
    ("users", "id"),
    ("posts", "id"),
    ("user_interactions", "id"),
    ("user_interactions", "user_id"),
    ("user_interactions", "post_id"),
    ("user_recommendations", "user_id"),
    ("user_recommendations", "post_id"),
)


@dataclass(frozen=True)
class Existing:
    """The relations found, each with its columns and their types as PostgreSQL spells them."""

    columns: Mapping[str, Mapping[str, str]]
    id_type: IdType

    def __contains__(self, relation: object) -> bool:
        return relation in self.columns

    @property
    def naive_post_time(self) -> bool:
        """Whether `posts.created_at` is a `timestamp` without zone, to be read as UTC."""
        return self.columns.get("posts", {}).get("created_at") == "timestamp without time zone"


def look_around(connection: sa.Connection) -> Existing:
    """Read every relation of the current schema.

    Raises:
        SchemaError: An existing table lacks a column we need, or has ids that are not UUIDs.
    """
    columns = relation_columns(connection)
    for table, required in REQUIRED_COLUMNS.items():
        if table in columns and (missing := sorted(required - columns[table].keys())):
            raise SchemaError(
                f"The existing table {table} lacks {', '.join(missing)}. It is the app's, so it is not "
                f"altered: {_what_to_do(table)}"
            )
    needed_by_view = {"author_id", "created_at"}
    if "posts" in columns and "recommendable_posts" not in columns:
        missing = sorted(needed_by_view - columns["posts"].keys())
        if missing:
            raise SchemaError(
                f"The existing table posts lacks {', '.join(missing)}. Create the view "
                "recommendable_posts(post_id, author_id, created_at) over the columns it does have, then "
                "run `reco migrate` again; an existing view is left alone."
            )
    return Existing(columns, _common_id_type(columns))


def relation_columns(connection: sa.Connection) -> dict[str, dict[str, str]]:
    """Tables and views of the current schema: name → column → type."""
    rows = connection.execute(
        sa.text(
            "SELECT c.relname, a.attname, format_type(a.atttypid, NULL) "
            "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
            "WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) "
            "AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped "
            "ORDER BY c.relname, a.attnum"
        )
    )
    found: dict[str, dict[str, str]] = {}
    for relation, column, column_type in rows:
        found.setdefault(relation, {})[column] = column_type
    return found


def id_type_of(connection: sa.Connection) -> IdType:
    """The id type of a migrated database: that of `user_recommendations.user_id`."""
    spelled = connection.scalar(
        sa.text(
            "SELECT format_type(atttypid, NULL) FROM pg_attribute "
            "WHERE attrelid = to_regclass('user_recommendations') AND attname = 'user_id'"
        )
    )
    if spelled not in _ID_TYPES:
        raise SchemaError("The table user_recommendations is not there. Run `reco migrate`.")
    return _ID_TYPES[spelled]


def _common_id_type(columns: Mapping[str, Mapping[str, str]]) -> IdType:
    seen: dict[str, IdType] = {}
    for table, column in ID_COLUMNS:
        spelled = columns.get(table, {}).get(column)
        if spelled is None:
            continue
        if spelled not in _ID_TYPES:
            raise SchemaError(
                f"{table}.{column} is of type {spelled}; ids must be uuid, or text holding UUIDs. Give the "
                f"app's tables a uuid column (ALTER TABLE {table} ADD COLUMN … uuid UNIQUE DEFAULT "
                "gen_random_uuid()) and put views named users, posts and user_interactions over them into "
                "a schema of their own that RECO_DATABASE_SCHEMA names, or keep such tables there in step."
            )
        # An interaction's own id is referenced by nobody, so it may differ from the others.
        if (table, column) != ("user_interactions", "id"):
            seen[f"{table}.{column}"] = _ID_TYPES[spelled]
    if len(set(seen.values())) > 1:
        spelled_out = ", ".join(f"{name} {kind}" for name, kind in seen.items())
        raise SchemaError(f"Ids must all be uuid or all be text, but found: {spelled_out}.")
    return next(iter(seen.values()), "uuid")


def _what_to_do(table: str) -> str:
    if table == "user_recommendations":
        return "rename or drop it, then run `reco migrate`; the next publication fills ours."
    return "add the columns in the app's own migrations, or rename the table if it is not the one meant."
