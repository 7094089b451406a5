"""The query string of a feed request: read strictly, so that a misspelt filter is an error and no filter."""

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

from reco_assets.serving.feeds.cursor import LONGEST
from reco_assets.serving.http.problems import Problem
from reco_assets.settings import Settings

_NAMES: Final = ("user_id", "limit", "exclude", "cursor")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class FeedParameters:
    """What the query string says.

    Attributes:
        named: the user it names; None: nobody.
        limit: posts of the page.
        exclude: canonical ids.
        cursor: as it came; None: from the beginning.
    """

    named: UUID | None
    limit: int
    exclude: frozenset[str]
    cursor: str | None


def read_parameters(query: bytes, settings: Settings) -> FeedParameters:
    """Check every parameter.

    Raises:
        Problem: 400 for what cannot be read, 422 for what is out of range.
    """
    values: dict[str, str] = {}
    exclude: list[str] = []
    for name, value in _pairs(query, settings.feed_max_exclude + len(_NAMES)):
        if name == "exclude":
            exclude += [part for part in value.split(",") if part]
        elif name not in _NAMES:
            raise Problem(
                400,
                "unknown_parameter",
                f"There is no parameter {_show(name)}; there are {', '.join(_NAMES)}.",
            )
        elif name in values:
            raise Problem(400, "repeated_parameter", f"{name} is there twice. Give it once.")
        else:
            values[name] = value
    if len(exclude) > settings.feed_max_exclude:
        raise Problem(
            422,
            "too_many_excluded",
            f"exclude holds {len(exclude)} ids; at most {settings.feed_max_exclude} are taken "
            "(RECO_FEED_MAX_EXCLUDE). Posts that the user has seen are left out anyway.",
        )
    cursor = values.get("cursor")
    if cursor is not None and not 0 < len(cursor) <= LONGEST:
        raise Problem(
            400, "bad_cursor", f"The cursor has {len(cursor)} characters; from 1 to {LONGEST} can be."
        )
    return FeedParameters(
        _uuid(values["user_id"], "user_id") if "user_id" in values else None,
        _limit(values["limit"], settings) if "limit" in values else settings.feed_default_limit,
        frozenset(str(_uuid(each, "exclude")) for each in exclude),
        cursor,
    )


def documentation() -> list[dict[str, Any]]:
    """The parameters for OpenAPI."""
    uuid = {"type": "string", "format": "uuid"}
    return [
        _parameter("user_id", uuid, "Whose feed; with `RECO_AUTH=jwt` it can be left out."),
        _parameter(
            "limit",
            {"type": "integer", "minimum": 1, "maximum": 200},
            "Posts of the page: at most RECO_FEED_MAX_LIMIT, which is "
            f"{Settings.model_fields['feed_max_limit'].default} unless set, and never more than the maximum "
            "here; without it RECO_FEED_DEFAULT_LIMIT.",
        ),
        {
            **_parameter(
                "exclude",
                {"type": "array", "items": uuid, "maxItems": 1000},
                "Ids of posts to leave out, separated by commas or repeated; at most RECO_FEED_MAX_EXCLUDE.",
            ),
            "style": "form",
            "explode": False,
        },
        _parameter(
            "cursor",
            {"type": "string", "minLength": 1, "maxLength": LONGEST, "pattern": "^[A-Za-z0-9_-]+$"},
            "`next_cursor` of the page before: continues its list, whatever was published since.",
        ),
    ]


def _pairs(query: bytes, most: int) -> list[tuple[str, str]]:
    try:
        text = query.decode("ascii")
        return parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=most
        )
    except ValueError:
        raise Problem(
            400,
            "bad_query",
            f"The query string cannot be read: at most {most} pairs name=value, joined by &, in UTF-8, "
            "percent-encoded.",
        ) from None


def _limit(text: str, settings: Settings) -> int:
    if not _NUMBER.fullmatch(text):
        raise Problem(400, "bad_limit", f"limit is {_show(text)}; it must be a whole number.")
    limit = int(text)
    if not 1 <= limit <= settings.feed_max_limit:
        raise Problem(
            422,
            "limit_out_of_range",
            f"limit is {limit}; it must be from 1 to {settings.feed_max_limit} (RECO_FEED_MAX_LIMIT).",
        )
    return limit


def _uuid(text: str, name: str) -> UUID:
    if not _UUID.fullmatch(text):
        raise Problem(400, f"bad_{name}", f"{name} holds {_show(text)}, which is no UUID.")
    return UUID(text)


def _show(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _parameter(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
