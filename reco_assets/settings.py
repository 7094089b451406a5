"""Every setting, its default, its range and its meaning, in one place.

Settings come from the environment (`RECO_N_NEIGHBORS=100`). Those of `ModelSettings` can also be
set for one run in Dagster's Launchpad. An unknown `RECO_…` name or a value out of range is refused
at start. `docs/settings.md` lists them all, and a test keeps it complete.
"""

import difflib
import os
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from reco_assets.errors import SettingsError
from reco_assets.events import DEFAULT_INTERACTION_WEIGHTS
from reco_assets.parameters import RANGES, SimilarityWeighting, VoteWeighting
from reco_assets.service_settings import OptionalDays, ServiceSettings, pairs_such_as

ENV_PREFIX = "RECO_"


def _check_weights(weights: dict[str, float]) -> dict[str, float]:
    if not weights:
        raise ValueError("at least one interaction type needs a weight")
    for name, weight in weights.items():
        if not 0 < weight <= 100:
            raise ValueError(f"the weight of {name!r} is {weight:g}; it must be above 0 and at most 100")
        if not 1 <= len(name) <= 20:
            raise ValueError(f"{name!r} has {len(name)} characters; interaction_type is varchar(20)")
    return weights


InteractionWeights = Annotated[
    dict[str, float], NoDecode, pairs_such_as("view=0.1,click=0.3"), AfterValidator(_check_weights)
]


def _absolute(path: Path) -> Path:
    """Children with another working directory must mean the same place."""
    if wrong := set("?%") & set(str(path)):
        raise ValueError(f"a path with {' or '.join(sorted(wrong))} cannot be written as an SQLite URL")
    return path.expanduser().absolute()


Directory = Annotated[Path, AfterValidator(_absolute)]


def _parameter(name: str, default: float | None, description: str) -> Any:
    """A parameter of the estimator, in the estimator's range."""
    return Field(default, description=description, **RANGES[name].bounds())


class ModelSettings(BaseModel):
    """What shapes the lists. Defaults come from backtests: see docs/results.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_days: int = Field(
        90, ge=1, le=3650, description="Days of interactions the model sees, ending with the partition."
    )
    interaction_weights: InteractionWeights = Field(
        default_factory=lambda: dict(DEFAULT_INTERACTION_WEIGHTS),
        description="Weight per interaction type; a type without a weight is rejected.",
    )
    max_repeats: int = Field(
        3,
        ge=1,
        le=1000,
        description="At most this many interactions of one type by one user with one post count.",
    )
    n_neighbors: int = _parameter("n_neighbors", 200, "Similar users who vote for each user's list.")
    similarity_weighting: SimilarityWeighting = Field(
        "binary_tfidf", description="How interactions are weighted to find who is like whom."
    )
    similarity_window_days: OptionalDays = _parameter(
        "similarity_window_days", None, "Days that count for similarity; `none`: the whole window."
    )
    shrinkage: float = _parameter(
        "shrinkage", 0.0, "Added to the cosine's denominator: damps similarities that rest on little."
    )
    min_overlap: int = _parameter("min_overlap", 1, "Posts two users must share to be neighbours.")
    vote_weighting: VoteWeighting = Field(
        "binary", description="What a neighbour's interactions with a post are worth as a vote."
    )
    vote_half_life_days: OptionalDays = _parameter(
        "vote_half_life_days", 1.0, "Days after which a vote counts half; `none`: votes do not age."
    )
    freshness_half_life_days: OptionalDays = _parameter(
        "freshness_half_life_days",
        1.0,
        "Post age in days that halves its score; `none`: age does not matter.",
    )
    popularity_blend: float = _parameter(
        "popularity_blend", 0.2, "Share of decayed popularity mixed into every score."
    )
    popularity_half_life_days: OptionalDays = _parameter(
        "popularity_half_life_days",
        0.25,
        "Half-life of an interaction in the popularity that is blended in; `none`: it does not age.",
    )
    n_recommendations: int = _parameter("n_recommendations", 50, "Length of each user's list.")
    active_within_days: int = _parameter(
        "active_within_days",
        30,
        "Users without an interaction in so many days get no precomputed list.",
    )
    holdout_days: int = Field(
        3,
        ge=1,
        le=30,
        description="Last days of the window on which the model is judged beside the baselines.",
    )


def _positive(description: str, default: float, upper: float) -> Any:
    return Field(default, gt=0, le=upper, description=description)


class Settings(BaseSettings, ModelSettings, ServiceSettings):
    """All settings, read from the environment."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, env_ignore_empty=True
    )

    home: Directory = Field(
        default_factory=lambda: default_home(),
        description="Where local state lives: embedded PostgreSQL, MLflow, Dagster, logs.",
    )
    database_url: str | None = Field(
        None,
        repr=False,
        description="postgresql:// URL of the app's database; empty: an embedded PostgreSQL under RECO_HOME.",
    )
    database_schema: str = Field(
        "public", pattern=r"^[a-z_][a-z0-9_]{0,62}$", description="Schema that holds all tables."
    )
    dagster_database_url: str | None = Field(
        None,
        repr=False,
        description="PostgreSQL URL of Dagster's own storage; empty: a database of its own on the "
        "embedded server, never the app's.",
    )
    pool_size: int = Field(5, ge=1, le=200, description="Connections a process keeps at most.")
    connect_timeout_s: float = _positive("Seconds to wait for a connection before giving up.", 10.0, 300)
    statement_timeout_s: float = _positive("Seconds one SQL statement may run.", 600.0, 86_400)
    lock_timeout_s: float = _positive("Seconds to wait for a lock; bounds what the swap can block.", 2.0, 600)
    connection_retries: int = Field(
        3, ge=0, le=100, description="Times a lost or refused connection is tried again."
    )

    storage_dir: Directory | None = Field(
        None, description="Where Parquet files and model artifacts go; empty: RECO_HOME/storage."
    )
    mlflow_tracking_uri: str | None = Field(
        None, repr=False, description="MLflow server or store; empty: SQLite under RECO_HOME."
    )
    mlflow_experiment: str = Field(
        "reco", min_length=1, max_length=200, description="MLflow experiment the runs are logged to."
    )
    model_name: str = Field(
        "collaborative_filtering",
        pattern=r"^[A-Za-z0-9_-]{1,100}$",
        description="Name of the registered model.",
    )

    start_date: date = Field(date(2026, 1, 1), description="First daily partition (UTC).")
    ttl_hours: float = _positive("Hours until a published recommendation expires.", 72.0, 24 * 365)
    cleanup_batch_size: int = Field(
        10_000, ge=1, le=1_000_000, description="Expired rows deleted per transaction."
    )
    archive_days: int = Field(
        90, ge=1, le=3650, description="Days that matrices, models and archived lists are kept on disk."
    )

    min_interactions: int = Field(
        10, ge=1, le=10**9, description="Fewest interactions in the window that a model is fitted on."
    )
    min_user_coverage: float = Field(
        0.5, ge=0, le=1, description="Smallest share of active users who must get a list."
    )
    min_post_coverage: float = Field(
        0.001,
        ge=0,
        le=1,
        description="Smallest share of the window's eligible posts that must appear in some list.",
    )
    max_size_change: float = Field(
        0.5,
        gt=0,
        le=100,
        description="Largest relative change of the number of rows against the live generation.",
    )
    max_freshness_hours: float = _positive(
        "Hours without an interaction before the data counts as stale.", 24.0, 24 * 365
    )
    max_volume_change: float = Field(
        0.5,
        gt=0,
        le=100,
        description="Largest relative change of a day's interactions against the trailing week's mean.",
    )

    stale_after_hours: float = _positive("Hours without a publication before an alert.", 26.0, 24 * 365)
    alert_urls: str = Field(
        "", repr=False, description="Apprise URLs that alerts go to, separated by spaces or commas."
    )
    dagster_url: str = Field(
        "http://127.0.0.1:3000", description="Address of the Dagster UI, for links in alerts."
    )
    mlflow_url: str = Field(
        "http://127.0.0.1:5000", description="Address of the MLflow UI, for links in metadata."
    )

    @classmethod
    def load(cls, **overrides: Any) -> "Settings":
        """Read and check the environment.

        Raises:
            SettingsError: naming each wrong setting, the value seen and the range.
        """
        known = {ENV_PREFIX + name.upper() for name in cls.model_fields}
        for name in os.environ:
            if name.upper().startswith(ENV_PREFIX) and name.upper() not in known:
                near = difflib.get_close_matches(name.upper(), known, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise SettingsError(f"Unknown setting {name}.{hint} docs/settings.md lists them all.")
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise SettingsError("\n".join(describe_invalid(error, ENV_PREFIX))) from None

    @property
    def tracked_types(self) -> tuple[str, ...]:
        """Every interaction type that is no mistake: those with a weight, and those without one (`hide`)."""
        return tuple(sorted({*self.interaction_weights, *self.extra_interaction_types}))

    @property
    def storage(self) -> Path:
        """Where Parquet files and model artifacts go."""
        return self.storage_dir or self.home / "storage"

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps runs and the registry."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @property
    def artifact_root(self) -> str:
        """Where MLflow puts artifacts when it keeps its own store below RECO_HOME."""
        return (self.home / "mlflow" / "artifacts").absolute().as_uri()


def describe_invalid(error: ValidationError, prefix: str = "") -> list[str]:
    """One line per wrong setting: its name, the value seen, and what it must be."""
    lines = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else "?"
        field = Settings.model_fields.get(name)
        # What is not to be shown in a repr (keys, URLs with passwords) is not to be shown in a log either.
        value = f" = {problem.get('input')!r}" if field is None or field.repr else ""
        name = prefix + name.upper() if prefix else name
        lines.append(f"{name}{value}: {problem['msg']}. See docs/settings.md.")
    return lines


def default_home() -> Path:
    """`.reco` in the checkout this package runs from, else in the current directory."""
    checkout = Path(__file__).resolve().parent.parent
    base = (
        checkout
        if (checkout / "pyproject.toml").exists() and (checkout / "workspace.yaml").exists()
        else Path.cwd()
    )
    return base / ".reco"


def redact(url: str) -> str:
    """The URL without its password, for messages and logs."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}{port}"))
