"""Who is in which arm: shares, reproducibility, and how few users move when shares change."""

import random
from math import sqrt
from uuid import UUID

import pytest

from reco_assets.errors import SettingsError
from reco_assets.serving.feeds.experiments import Experiment, parse_experiment, tiers_of

TIERS = ("precomputed", "realtime", "trending", "random")
_RNG = random.Random(5)
USERS = [UUID(int=_RNG.getrandbits(128)) for _ in range(100_000)]


def experiment(text: str, salt: str = "") -> Experiment:
    parsed = parse_experiment(text, salt)
    assert parsed is not None
    return parsed


def arms(text: str, salt: str = "") -> list[str]:
    chosen = experiment(text, salt)
    return [chosen.arm(user) for user in USERS]


@pytest.mark.parametrize(
    "shares", [{"ml": 90, "random": 10}, {"ml": 0.5, "trending": 0.25, "random": 0.25}, {"ml": 1}]
)
def test_each_arm_has_its_share_of_users(shares: dict[str, float]) -> None:
    chosen = arms("a:" + ",".join(f"{arm}={share}" for arm, share in shares.items()))
    for arm, share in shares.items():
        p = share / sum(shares.values())
        bound = 4.5 * sqrt(p * (1 - p) / len(USERS))  # exceeded once in 150,000 times
        assert abs(chosen.count(arm) / len(USERS) - p) <= bound


def test_assignments_are_the_same_in_every_process_and_release() -> None:
    """Known answers: whoever changes the hash moves everybody's users."""
    chosen = experiment("ml_vs_random:ml=50,random=50", "2026")
    assert (
        "".join(chosen.arm(UUID(int=number))[0] for number in range(32)) == "mmmmmmmrmmrmmrrrmrrmrrmmrmrrrrrr"
    )


def test_a_shifted_share_moves_only_so_many_users_and_nobody_the_other_way() -> None:
    before, after = arms("a:ml=90,random=10"), arms("a:ml=80,random=20")
    moves = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert set(moves) == {("ml", "random")}
    assert abs(len(moves) / len(USERS) - 0.10) < 0.005


def test_a_new_arm_takes_users_and_moves_nobody_between_the_others() -> None:
    before, after = arms("a:ml=60,random=40"), arms("a:ml=60,random=40,trending=25")
    moves = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert {new for _, new in moves} == {"trending"}
    assert abs(len(moves) / len(USERS) - 0.2) < 0.005


def test_when_all_shares_change_users_move_only_to_arms_that_grew_in_proportion() -> None:
    """How many stay is known: Σ 1 / Σ max(p_j / p_i, q_j / q_i), over the arms i of the arms j."""
    p = {"ml": 0.5, "trending": 0.3, "random": 0.2}
    q = {"ml": 0.6, "trending": 0.25, "random": 0.15}
    before, after = (
        arms("a:" + ",".join(f"{arm}={share}" for arm, share in shares.items())) for shares in (p, q)
    )
    moves = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert {(old, new) for old, new in moves if q[new] / p[new] <= q[old] / p[old]} == set()
    stay = sum(1 / sum(max(p[j] / p[i], q[j] / q[i]) for j in p) for i in p)
    assert abs(len(moves) / len(USERS) - (1 - stay)) < 0.005
    least = sum(abs(p[arm] - q[arm]) for arm in p) / 2
    assert least <= 1 - stay < 2 * least


def test_shares_are_relative_and_their_order_does_not_matter() -> None:
    assert arms("a:ml=9,random=1")[:2000] == arms("a:random=10,ml=90")[:2000]


def test_another_salt_or_name_draws_anew_independently() -> None:
    base = arms("a:ml=50,random=50")
    for other in (arms("a:ml=50,random=50", "x"), arms("b:ml=50,random=50")):
        agreement = sum(old == new for old, new in zip(base, other, strict=True)) / len(USERS)
        assert abs(agreement - 0.5) < 0.01


def test_an_arm_without_a_share_gets_nobody() -> None:
    assert set(arms("a:ml=1,random=0")) == {"ml"}


def test_no_experiment_is_none() -> None:
    assert parse_experiment("") is None
    assert parse_experiment("  ") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ml=90,random=10", "begins with a name"),
        ("a b:ml=1", "begins with a name"),
        (":ml=1", "begins with a name"),
        ("a:", "no arm=share"),
        ("a:ml", "no arm=share"),
        ("a:best=1", "arms are ml, precomputed"),
        ("a:ml=1,ml=2", "twice"),
        ("a:ml=many", "no number"),
        ("a:ml=-1", "from 0 to"),
        ("a:ml=nan", "from 0 to"),
        ("a:ml=inf", "from 0 to"),
        ("a:ml=0", "no arm has a share"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_experiment(text)


@pytest.mark.parametrize(
    ("arm", "order"),
    [
        (None, TIERS),
        ("ml", TIERS),
        ("precomputed", ("precomputed", "trending", "random")),
        ("realtime", ("realtime", "trending", "random")),
        ("trending", ("trending", "random")),
        ("random", ("random",)),
    ],
)
def test_an_arm_is_an_order_of_tiers(arm: str | None, order: tuple[str, ...]) -> None:
    assert tiers_of(arm, TIERS) == order
