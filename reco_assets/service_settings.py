"""The settings of the service: what `reco serve` reads beside the others in `settings.py`."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from reco_assets.events import DEFAULT_INTERACTION_WEIGHTS
from reco_assets.parameters import RANGES

AuthMode = Literal["none", "api_key", "jwt"]
JwtAlgorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]

TIERS: Final = ("precomputed", "realtime", "trending", "random")
"""Where a feed's posts come from, in the default order."""

_SHORTEST_SECRET: Final = 16


def _split(value: Any) -> Any:
    """`a,b` (a shell's spelling) beside a sequence."""
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


def _check_secrets(secrets: tuple[str, ...]) -> tuple[str, ...]:
    if len(secrets) > 2:
        raise ValueError(f"{len(secrets)} keys; at most two are valid at a time: the new one and the old one")
    for secret in secrets:
        if len(secret) < _SHORTEST_SECRET:
            raise ValueError(
                f"a key has {len(secret)} characters; at least {_SHORTEST_SECRET} are needed "
                '(`python -c "import secrets; print(secrets.token_urlsafe(32))"` makes one)'
            )
    return secrets


def _check_types(types: tuple[str, ...]) -> tuple[str, ...]:
    for name in types:
        if not (1 <= len(name) <= 20 and name.isascii() and name.replace("_", "").isalnum()):
            raise ValueError(f"{name!r} is no interaction type: 1 to 20 letters, digits and underscores")
        if name in DEFAULT_INTERACTION_WEIGHTS:
            raise ValueError(f"{name!r} is always tracked; list further types only")
    return types


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
            raise ValueError(f"{origin!r} is no origin; expected https://app.example, without a path")
    return origins


def _check_tiers(tiers: tuple[str, ...]) -> tuple[str, ...]:
    for name in tiers:
        if name not in TIERS:
            raise ValueError(f"{name!r} is no tier; there are {', '.join(TIERS)}")
    if len(set(tiers)) < len(tiers):
        raise ValueError("a tier is named twice")
    # Whatever else fails, there is always something to show.
    return (*(name for name in tiers if name != "random"), "random")


def _none_by_name(value: Any) -> Any:
    """`none` (a shell's spelling) switches off what has a default."""
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def pairs_such_as(example: str) -> BeforeValidator:
    """Accept `name=number,name=number` (a shell's spelling) beside a mapping."""

    def parse(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [pair.split("=", 1) for pair in value.split(",") if pair.strip()]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"expected name=number pairs such as {example}, got {value!r}")
        return {name.strip(): number.strip() for name, number in pairs}

    return BeforeValidator(parse)


def _check_slots(slots: dict[str, int]) -> dict[str, int]:
    for name, count in slots.items():
        if name not in TIERS:
            raise ValueError(f"{name!r} is no tier; there are {', '.join(TIERS)}")
        if not 0 <= count <= 10:
            raise ValueError(f"{name}={count}: of every ten positions 0 to 10 can be reserved")
    if sum(slots.values()) > 10:
        raise ValueError(f"{sum(slots.values())} of every ten positions are reserved; at most 10 can be")
    return slots


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Secrets = Annotated[Names, AfterValidator(_check_secrets)]
Slots = Annotated[dict[str, int], NoDecode, pairs_such_as("trending=1"), AfterValidator(_check_slots)]
OptionalDays = Annotated[float | None, BeforeValidator(_none_by_name)]


def _half_life(default: float, description: str) -> Any:
    return Field(default, description=description, **RANGES["vote_half_life_days"].bounds())


class ServiceSettings(BaseModel):
    """How events come in and feeds go out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service_host: str = Field("127.0.0.1", description="Address the service listens on.")
    service_port: int = Field(8000, ge=0, le=65_535, description="Its port; 0: any free one.")
    service_workers: int = Field(1, ge=1, le=64, description="Processes that serve.")
    service_pool_size: int = Field(
        8, ge=2, le=200, description="Database connections a service process keeps at most."
    )
    service_max_requests: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Requests that one process answers at a time; beyond it 503 at once.",
    )
    replica_url: str | None = Field(
        None, repr=False, description="PostgreSQL URL of a read replica; empty: feeds read from the primary."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level the service logs; user ids and metadata appear at debug only."
    )
    log_format: Literal["json", "console"] = Field("json", description="How the service logs.")

    auth: AuthMode = Field(
        "none",
        description="Who names the user: anybody on loopback (`none`), a trusted backend (`api_key`), "
        "or the token's subject (`jwt`).",
    )
    api_keys: Secrets = Field(
        (), repr=False, description="One or two keys, separated by a comma; both are valid."
    )
    jwt_keys: Names = Field(
        (),
        repr=False,
        description="One or two secrets (HS256) or paths of PEM public keys (other algorithms), separated by "
        "a comma; both are valid.",
    )
    jwt_algorithm: JwtAlgorithm = Field("HS256", description="The one algorithm tokens may be signed with.")
    jwt_audience: str | None = Field(None, description="Required audience of a token; empty: not checked.")
    jwt_issuer: str | None = Field(None, description="Required issuer of a token; empty: not checked.")
    cors_origins: Annotated[Names, AfterValidator(_check_origins)] = Field(
        (), description="Origins whose pages may call the service, separated by commas; empty: none."
    )
    demo_page: bool = Field(True, description="Whether /demo is served; only ever with RECO_AUTH=none.")

    extra_interaction_types: Annotated[Names, AfterValidator(_check_types)] = Field(
        (), description="Types that are tracked without a weight, such as `hide`, separated by commas."
    )
    track_max_batch: int = Field(100, ge=1, le=10_000, description="Events one request may carry.")
    track_max_body_bytes: int = Field(
        262_144, ge=1024, le=16 * 1024 * 1024, description="Largest body of a tracking request."
    )
    track_max_metadata_bytes: int = Field(
        2048, ge=0, le=65_536, description="Largest metadata of one event, as JSON text."
    )
    track_max_metadata_depth: int = Field(5, ge=1, le=50, description="Deepest nesting of metadata.")
    track_max_clock_skew_s: float = Field(
        7 * 86_400.0,
        gt=0,
        le=366 * 86_400,
        description="Seconds that client_time may lie before or after the server's clock.",
    )
    track_commit_ms: float = Field(
        3.0, ge=0, le=100, description="Milliseconds that events wait to share a commit."
    )
    track_queue_events: int = Field(
        5000, ge=1, le=1_000_000, description="Events that may wait for a commit in one process."
    )
    track_timeout_s: float = Field(
        5.0, gt=0, le=60, description="Seconds a tracking request waits for its commit."
    )

    feed_tiers: Annotated[Names, AfterValidator(_check_tiers)] = Field(
        TIERS, description="Where posts come from, best first; `random` is always last."
    )
    feed_slots: Slots = Field(
        default_factory=dict,
        description="Positions of every ten that are kept for a tier, such as `trending=1`.",
    )
    feed_length: int = Field(100, ge=1, le=500, description="Posts of a feed, over all its pages.")
    feed_default_limit: int = Field(20, ge=1, le=200, description="Posts of a page when none is asked for.")
    feed_max_limit: int = Field(100, ge=1, le=200, description="Most posts of a page.")
    feed_max_exclude: int = Field(200, ge=0, le=1000, description="Most ids in `exclude`.")
    feed_timeout_s: float = Field(
        5.0, gt=0, le=60, description="Seconds after which a feed is answered from memory."
    )
    feed_recommendations_ms: float = Field(
        100.0,
        gt=0,
        le=10_000,
        description="Milliseconds that recommendations may take before trending posts answer.",
    )
    seen_days: float = Field(
        90.0, ge=0, le=3650, description="Days for which a post that the user interacted with is not shown."
    )
    precomputed_fresh_minutes: float = Field(
        60.0,
        ge=0,
        le=100_000,
        description="Minutes for which a published list goes before real-time recommendations.",
    )
    exploration_share: float = Field(
        0.03, ge=0, le=0.5, description="Share of positions given to fresh or random posts."
    )
    trending_window_hours: float = Field(
        48.0, gt=0, le=24 * 30, description="Hours of interactions that trending posts are counted from."
    )
    trending_max_events: int = Field(
        200_000, ge=100, le=10_000_000, description="Newest interactions that trending reads at most."
    )
    trending_posts: int = Field(500, ge=1, le=10_000, description="Trending posts kept in memory.")
    trending_refresh_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds between two looks at what is trending."
    )

    experiment: str = Field(
        "",
        description="An experiment as `name:arm=share,arm=share`, such as `ml_vs_random:ml=90,random=10`.",
    )
    experiment_salt: str = Field(
        "", max_length=200, description="Mixed into the assignment, to draw the arms anew."
    )

    realtime: bool = Field(True, description="Whether recommendations are computed from live votes.")
    realtime_vote_half_life_days: OptionalDays = _half_life(
        0.25, "Days after which a vote counts half in real-time lists; `none`: votes do not age."
    )
    realtime_popularity_half_life_days: OptionalDays = _half_life(
        0.02, "Half-life of a reader in the popularity that is blended into them; `none`: it does not age."
    )
    realtime_popularity_blend: float = Field(
        0.4,
        description="Share of that popularity in their scores.",
        **RANGES["popularity_blend"].bounds(),
    )
    realtime_tick_s: float = Field(
        1.0, ge=0.1, le=60, description="Seconds between two looks at new events, at least."
    )
    realtime_max_events: int = Field(
        1_000_000,
        ge=1000,
        le=100_000_000,
        description="Events since the published day that are kept in memory; beyond it the oldest go.",
    )
    realtime_threads: int = Field(
        2, ge=1, le=64, description="Threads for real-time lists that take longer, and for explanations."
    )
    live_feed_sockets: int = Field(
        1000, ge=0, le=100_000, description="Pages that one process tells of changes to their feed at most."
    )
