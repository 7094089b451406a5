from pathlib import Path

import pytest

from reco_assets.errors import SettingsError
from reco_assets.parameters import CHOICES, RANGES
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets.resources.run_config import UserKNNConfig
from reco_assets.settings import Settings, redact


def test_an_unknown_setting_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_N_NEIGHBOURS", "20")
    with pytest.raises(SettingsError, match=r"RECO_N_NEIGHBOURS.*RECO_N_NEIGHBORS"):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("RECO_N_NEIGHBORS", "0", "greater than or equal to 1"),
        ("RECO_POPULARITY_BLEND", "1.5", "less than or equal to 1"),
        ("RECO_SIMILARITY_WEIGHTING", "euclid", "'bm25_posts'"),
        ("RECO_DATABASE_SCHEMA", "Robert'); --", "match pattern"),
        ("RECO_INTERACTION_WEIGHTS", "view=-1", "must be above 0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_name_and_range(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, limit: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert name in str(caught.value)
    assert limit in str(caught.value)


def test_every_parameter_of_the_estimator_has_its_default_and_its_range_in_the_settings() -> None:
    parameters = UserKNNRecommender().get_params()
    assert set(parameters) == {*CHOICES, *RANGES}
    deployed = {name: value for name, value in parameters.items() if name != "n_threads"}
    assert {name: getattr(Settings.load(), name) for name in deployed} == deployed
    assert UserKNNConfig().parameters() == deployed
    for name in RANGES.keys() & deployed.keys():
        kept = {type(bound).__name__.lower(): bound for bound in Settings.model_fields[name].metadata}
        assert {key: getattr(kept[key], key) for key in RANGES[name].bounds()} == RANGES[name].bounds()


@pytest.mark.parametrize(
    "name", [name.upper() for name, allowed in RANGES.items() if allowed.optional and name != "n_threads"]
)
def test_what_the_estimator_can_do_without_is_switched_off_by_none(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"RECO_{name}", "none")
    assert getattr(Settings.load(), name.lower()) is None


def test_interaction_weights_read_from_a_shell_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_INTERACTION_WEIGHTS", "view=0.5, hide=2")
    assert Settings.load().interaction_weights == {"view": 0.5, "hide": 2.0}


def test_a_password_never_reaches_a_message() -> None:
    assert redact("postgresql://app:s3cret@db:5432/x") == "postgresql://app:***@db:5432/x"


def test_a_relative_home_means_the_same_place_for_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_HOME", "somewhere")
    settings = Settings.load()
    assert settings.home == Path.cwd() / "somewhere"
    assert str(Path.cwd() / "somewhere") in settings.tracking_uri


def test_a_misspelled_setting_is_refused_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("reco_window_dayz", "3")
    with pytest.raises(SettingsError, match="RECO_WINDOW_DAYS"):
        Settings.load()


def test_a_home_that_no_url_can_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_HOME", "/tmp/what?")
    with pytest.raises(SettingsError, match="SQLite URL"):
        Settings.load()


def test_a_refused_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_API_KEYS", "0123456789abcdef0123456789abcdef,short")
    with pytest.raises(SettingsError, match="RECO_API_KEYS: ") as refused:
        Settings.load()
    assert "0123456789abcdef" not in str(refused.value)
    assert "short" not in str(refused.value)
