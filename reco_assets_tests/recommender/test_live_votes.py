"""Live votes give what a batch as of the same instant gives, with the neighbours of the day."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_assets.errors import CorruptArtifact
from reco_assets.parameters import CHOICES
from reco_assets.recommender import live_lists
from reco_assets.recommender.fit_inputs import fit_log, fit_matrix
from reco_assets.recommender.interaction_log import UNKNOWN_TIME, InteractionLog
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.live_lists import LiveState
from reco_assets.recommender.live_votes import DailyFit, EventBatch, LiveVotes, PostFacts
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets_tests.recommender.examples import DAY, TYPES, WEIGHTS, ids, make_log, random_log

MAX_REPEATS = 2


def daily_fit(log: InteractionLog, end_us: int, **parameters: Any) -> DailyFit:
    """What a run at `end_us` leaves: only users and posts with an event by then."""
    past = _without_the_unknown(log, log.created_at < end_us)
    matrix = InteractionMatrix.from_log(past, end_us, interaction_weights=WEIGHTS, max_repeats=MAX_REPEATS)
    model = fit_matrix(UserKNNRecommender(**parameters), matrix, past)
    return DailyFit(model, matrix, past, WEIGHTS, MAX_REPEATS)


def _without_the_unknown(log: InteractionLog, kept: np.ndarray) -> InteractionLog:
    users, user_index = np.unique(log.user_index[kept], return_inverse=True)
    posts, post_index = np.unique(log.post_index[kept], return_inverse=True)
    row = np.full(log.n_users, -1)
    row[users] = np.arange(len(users))
    hides = row[log.hidden_user] >= 0
    return replace(
        log,
        user_ids=log.user_ids[users],
        post_ids=log.post_ids[posts],
        user_index=user_index.astype(np.int32),
        post_index=post_index.astype(np.int32),
        interaction_type=log.interaction_type[kept],
        created_at=log.created_at[kept],
        post_created_at=log.post_created_at[posts],
        post_author=log.post_author[posts],
        post_eligible=log.post_eligible[posts],
        user_author=log.user_author[users],
        hidden_user=row[log.hidden_user[hides]].astype(np.int32),
        hidden_author=log.hidden_author[hides],
    )


def batch_of(log: InteractionLog, events: np.ndarray) -> EventBatch:
    return EventBatch(
        log.user_ids[log.user_index[events]],
        log.post_ids[log.post_index[events]],
        log.interaction_type[events],
        log.created_at[events],
    )


def note_everything(live: LiveVotes, log: InteractionLog) -> None:
    """What the catalogue says of all posts, and what later users hide."""
    authors = np.where(
        (log.post_author >= 0)[:, None], log.author_ids[log.post_author], np.zeros(16, np.uint8)
    )
    live.note_posts(PostFacts(log.post_ids, authors, log.post_created_at, log.post_eligible))
    for user in range(log.n_users):
        code = live.user_ids.code(log.user_ids[user].tobytes())
        if code >= live.user_ids.n_fitted:
            hidden = [log.user_author[user]] if log.user_author[user] >= 0 else []
            hidden += log.hidden_author[log.hidden_user == user].tolist()
            live.note_hidden(log.user_ids[user].tobytes(), tuple(log.author_ids[a].tobytes() for a in hidden))


def in_the_order_of(live: LiveVotes, log: InteractionLog) -> InteractionLog:
    """The log with users and posts numbered as `live` has them; those that it never met come last."""
    user_codes = _codes([live.user_ids.code(row.tobytes()) for row in log.user_ids])
    post_codes = _codes([live.post_ids.code(row.tobytes()) for row in log.post_ids])
    users, posts = np.argsort(user_codes), np.argsort(post_codes)
    return replace(
        log,
        user_index=user_codes[log.user_index],
        post_index=post_codes[log.post_index],
        post_created_at=log.post_created_at[posts],
        post_author=log.post_author[posts],
        post_eligible=log.post_eligible[posts],
        user_author=log.user_author[users],
        hidden_user=user_codes[log.hidden_user],
    )


def _codes(known: Sequence[int]) -> np.ndarray:
    codes = np.array(known, dtype=np.int32)
    codes[codes < 0] = np.arange((codes >= 0).sum(), len(codes))
    return codes


def assert_like_the_batch(live: LiveVotes, state: LiveState, log: InteractionLog, n: int = 12) -> None:
    """The batch is fitted on everything as of the state's instant; only its neighbours are the day's."""
    ordered = in_the_order_of(live, log)
    batch = fit_log(
        UserKNNRecommender(**live.fit.model.get_params()),
        ordered,
        as_of_us=state.as_of_us,
        interaction_weights=WEIGHTS,
        max_repeats=MAX_REPEATS,
    )
    width = live.fit.model.neighbors_.shape[1]
    batch.neighbors_ = np.full((log.n_users, width), -1, dtype=np.int32)
    batch.similarities_ = np.zeros((log.n_users, width), dtype=np.float32)
    history = InteractionMatrix.from_log(
        ordered.before(state.as_of_us), state.as_of_us, interaction_weights=WEIGHTS, max_repeats=MAX_REPEATS
    )
    fitted = live.fit.model
    for user in range(state.n_users):
        row = slice(history.weights.indptr[user], history.weights.indptr[user + 1])
        posts = history.weights.indices[row]
        known = posts < fitted.n_posts_
        neighbors, similarities = fitted.neighbors_of(
            posts[known],
            history.weights.data[row][known],
            history.last_interaction_at.data[row][known],
            user_index=user if user < fitted.n_users_ else -1,
        )
        batch.neighbors_[user], batch.similarities_[user] = neighbors, similarities
    lists = batch.recommend(np.arange(state.n_users), n)
    for position, user_id in enumerate(log.user_ids):
        code = live.user_ids.code(user_id.tobytes())
        answer = state.recommend(user_id.tobytes(), n)
        if code < 0 or history.weights.indptr[code] == history.weights.indptr[code + 1]:
            assert answer is None, position
            continue
        assert answer is not None
        assert [live.post_ids.code(post) for post in answer.post_ids] == lists.of(code).tolist()
        mine = lists.user_index == code
        assert np.array(answer.scores).tobytes() == lists.score[mine].tobytes()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([(30, 40, 500), (7, 5, 60), (60, 12, 300), (4, 50, 80)]),
    parameters=st.fixed_dictionaries(
        {
            "n_neighbors": st.sampled_from([1, 3, 200]),
            "similarity_weighting": st.sampled_from(CHOICES["similarity_weighting"]),
            "similarity_window_days": st.sampled_from([None, 4.0]),
            "vote_weighting": st.sampled_from(CHOICES["vote_weighting"]),
            "vote_half_life_days": st.sampled_from([None, 0.5]),
            "freshness_half_life_days": st.sampled_from([None, 1.0]),
            "popularity_blend": st.sampled_from([0.0, 0.2, 1.0]),
            "popularity_half_life_days": st.sampled_from([None, 0.25]),
        }
    ),
    ends=st.sampled_from([(3.0, 3.5, 9.0), (6.0, 6.0, 6.1), (8.0, 9.9, 20.0)]),
)
def test_lists_are_those_of_a_batch_as_of_the_same_instant_to_the_bit(
    seed: int, shape: tuple[int, int, int], parameters: dict[str, Any], ends: tuple[float, float, float]
) -> None:
    """With later users and posts, own and hidden ones, unknown times, repeats, and events out of order."""
    rng = np.random.default_rng(seed)
    log = random_log(rng, n_users=shape[0], n_posts=shape[1], n=shape[2])
    fit_end, first, second = (round(end * DAY) for end in ends)
    live = LiveVotes(daily_fit(log, fit_end, **parameters))
    later = rng.permutation(np.flatnonzero(log.created_at >= fit_end))
    half = len(later) // 2
    live.add(batch_of(log, later[:half]))
    note_everything(live, log)
    live.tick(fit_end + (first - fit_end) // 2)
    live.add(batch_of(log, later[half:]))
    note_everything(live, log)
    for as_of in (first, second):
        state, _ = live.tick(as_of)
        assert_like_the_batch(live, state, log)


def test_without_events_only_time_passes_and_a_refit_gives_the_same() -> None:
    log = random_log(np.random.default_rng(4))
    fit = daily_fit(log, 11 * DAY)
    state, affected = LiveVotes(fit).tick(12 * DAY + 7)
    refit = fit_log(
        UserKNNRecommender(),
        fit.log,
        as_of_us=12 * DAY + 7,
        interaction_weights=WEIGHTS,
        max_repeats=MAX_REPEATS,
    )
    lists = refit.recommend(np.arange(fit.log.n_users), 20)
    assert affected.tolist() == []
    for user, user_id in enumerate(fit.log.user_ids):
        answer = state.recommend(user_id.tobytes(), 20)
        assert answer is not None
        assert not answer.folded_in
        assert answer.post_ids == [fit.log.post_ids[post].tobytes() for post in lists.of(user)]
        assert answer.scores == lists.score[lists.user_index == user].tolist()


# Users 0 and 1 read posts 0 and 1 on the first day, user 2 read post 2.
TWO_ALIKE = make_log(
    [(0, 0, "view", 0.1), (0, 1, "view", 0.2), (1, 0, "view", 0.3), (1, 1, "view", 0.4), (2, 2, "view", 0.5)],
    n_users=3,
    n_posts=3,
    post_created_at=np.zeros(3, dtype=np.int64),
)
PLAIN: dict[str, Any] = {"similarity_weighting": "none", "popularity_blend": 0.0}
NEW_POST, NEW_USER = ids(5, 2)[4:], ids(5, 1)[4:]


def small(**parameters: Any) -> LiveVotes:
    return LiveVotes(daily_fit(TWO_ALIKE, DAY, **(PLAIN | parameters)))


def event(user: int | np.ndarray, post: int | np.ndarray, day: float, kind: str = "view") -> EventBatch:
    users = ids(3, 1)[user : user + 1] if isinstance(user, int) else user
    posts = ids(3, 2)[post : post + 1] if isinstance(post, int) else post
    return EventBatch(
        users, posts, np.array([TYPES.index(kind)], np.int8), np.array([round(day * DAY)], np.int64)
    )


def listed(state: LiveState, user: int, **options: Any) -> list[bytes]:
    answer = state.recommend(ids(3, 1)[user].tobytes(), 10, **options)
    assert answer is not None
    return answer.post_ids


def post_is_there(live: LiveVotes, day: float, author: int = 0, *, eligible: bool = True) -> None:
    authors = ids(author + 1, 1)[author:] if author else np.zeros((1, 16), np.uint8)
    live.note_posts(PostFacts(NEW_POST, authors, np.array([round(day * DAY)]), np.array([eligible])))


def test_a_post_that_a_neighbour_has_just_read_is_recommended_before_any_refit() -> None:
    live = small()
    assert listed(live.tick(round(1.4 * DAY))[0], 0) == []
    live.add(event(1, NEW_POST, 1.5))
    post_is_there(live, 1.45)
    state, affected = live.tick(round(1.6 * DAY))
    assert affected.tolist() == [1]
    assert listed(state, 0) == [NEW_POST[0].tobytes()]
    assert listed(state, 1) == []


def test_a_post_that_the_catalogue_does_not_list_is_not_recommended() -> None:
    live = small()
    live.add(event(1, NEW_POST, 1.5))
    state, _ = live.tick(round(1.6 * DAY))
    assert listed(state, 0) == []
    post_is_there(live, 1.45)
    post_is_there(live, 1.45, eligible=False)
    assert listed(live.tick(round(1.7 * DAY))[0], 0) == []


def test_nobody_is_shown_their_own_new_post_nor_what_the_caller_closes() -> None:
    live = small()
    live.add(event(1, NEW_POST, 1.5))
    post_is_there(live, 1.45, author=2)
    state, _ = live.tick(round(1.6 * DAY))
    assert listed(state, 0) == [NEW_POST[0].tobytes()]
    assert listed(state, 0, closed=[NEW_POST[0].tobytes()]) == []
    live.add(event(2, 0, 1.65))
    state, _ = live.tick(round(1.7 * DAY))
    assert NEW_POST[0].tobytes() not in listed(state, 2)


def test_the_own_history_of_now_decides_who_is_alike() -> None:
    """User 2 now reads what users 0 and 1 read, and is told of what they read besides."""
    live = small()
    assert listed(live.tick(round(1.4 * DAY))[0], 2) == []
    live.add(event(2, 0, 1.5))
    state, _ = live.tick(round(1.6 * DAY))
    answer = state.recommend(ids(3, 1)[2].tobytes(), 10)
    assert answer is not None
    assert (answer.folded_in, answer.post_ids) == (True, [ids(3, 2)[1].tobytes()])


def test_a_new_user_has_a_list_from_the_first_event_on() -> None:
    live = small()
    assert live.tick(DAY)[0].recommend(NEW_USER[0].tobytes(), 5) is None
    live.add(event(NEW_USER, 1, 1.5))
    answer = live.tick(2 * DAY)[0].recommend(NEW_USER[0].tobytes(), 5)
    assert answer is not None
    assert answer.post_ids == [ids(3, 2)[0].tobytes()]


def test_a_list_is_quick_unless_neighbours_have_to_be_found_or_their_rows_are_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = small()
    live.add(event(2, 0, 1.5))
    live.add(event(NEW_USER, 1, 1.5))
    state, _ = live.tick(2 * DAY)
    reader, others = ids(3, 1)[2].tobytes(), [ids(3, 1)[0].tobytes(), ids(7, 1)[6].tobytes()]
    assert [state.is_quick(each) for each in (*others, reader, NEW_USER[0].tobytes())] == [1, 1, 0, 0]
    state.recommend(reader, 1)
    assert state.is_quick(reader)
    live.add(event(2, 1, 2.5))
    assert not live.tick(3 * DAY)[0].is_quick(reader)
    monkeypatch.setattr(live_lists, "_QUICK_ENTRIES", 1)
    assert not state.is_quick(others[0])


def test_how_long_the_rows_of_this_users_neighbours_are_decides_not_those_of_most_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Users 0 and 1 read the same hundred posts, fifty others one post each, in pairs."""
    heavy = [(user, post, "view", 0.1) for user in (0, 1) for post in range(100)]
    light = [(user, 100 + user // 2, "view", 0.1) for user in range(2, 52)]
    log = make_log(heavy + light, n_users=52, n_posts=130, post_created_at=np.zeros(130, dtype=np.int64))
    monkeypatch.setattr(live_lists, "_QUICK_ENTRIES", 99)
    live = LiveVotes(daily_fit(log, DAY, **PLAIN, n_neighbors=1))
    users = [log.user_ids[user].tobytes() for user in (0, 2)]
    assert [live.tick(2 * DAY)[0].is_quick(user) for user in users] == [False, True]
    # The neighbour of user 2 reads as much.
    reads = np.full(100, TYPES.index("view"), np.int8), np.full(100, round(2.5 * DAY))
    live.add(EventBatch(np.repeat(log.user_ids[3:4], 100, axis=0), log.post_ids[:100], *reads))
    state, _ = live.tick(3 * DAY)
    assert [state.is_quick(user) for user in users] == [False, False]


def test_an_event_counts_from_the_first_tick_after_its_time() -> None:
    live = small()
    live.add(event(1, 2, 1.5))
    state, affected = live.tick(round(1.5 * DAY))
    assert (listed(state, 0), affected.tolist()) == ([], [])
    state, affected = live.tick(round(1.5 * DAY) + 1)
    assert (listed(state, 0), affected.tolist()) == ([ids(3, 2)[2].tobytes()], [1])


def test_a_state_stays_as_it_was_while_later_ones_are_made() -> None:
    live = small()
    live.add(event(1, 2, 1.5))
    before, _ = live.tick(round(1.6 * DAY))
    as_it_was = before.recommend(ids(3, 1)[0].tobytes(), 10)
    for number in range(300):
        live.add(event(np.vstack([ids(500, 9)[number]]), np.vstack([ids(500, 8)[number]]), 1.5))
        live.add(event(1, ids(500, 8)[number : number + 1], 1.6))
        live.tick(round(1.7 * DAY) + number)
    after = before.recommend(ids(3, 1)[0].tobytes(), 10)
    assert as_it_was is not None
    assert after is not None
    assert (after.post_ids, after.scores) == (as_it_was.post_ids, as_it_was.scores)
    assert before.recommend(ids(500, 9)[5].tobytes(), 10) is None


def test_a_view_keeps_its_rows_when_they_change_again_and_when_others_change() -> None:
    live = small()
    live.add(event(1, 2, 1.5))
    state, _ = live.tick(round(1.6 * DAY))
    before = [state.rows.row(number).posts.tolist() for number in range(3)]
    assert before == [[0, 1], [0, 1, 2], [2]]
    live.add(event(1, NEW_POST, 1.65))
    live.add(event(0, 2, 1.65))
    after, _ = live.tick(round(1.7 * DAY))
    assert [state.rows.row(number).posts.tolist() for number in range(3)] == before
    assert [after.rows.row(number).posts.tolist() for number in range(3)] == [[0, 1, 2], [0, 1, 2, 3], [2]]


def test_events_that_the_matrix_left_out_of_the_log_stay_out() -> None:
    """User 2's event with post 1 is in the log, but at the matrix's instant."""
    log = make_log(
        [(0, 0, "view", 0.1), (1, 1, "view", 0.4), (2, 2, "view", 0.5), (2, 1, "view", 1.0)],
        n_users=3,
        n_posts=3,
        post_created_at=np.zeros(3, dtype=np.int64),
    )
    matrix = InteractionMatrix.from_log(log, DAY, interaction_weights=WEIGHTS, max_repeats=MAX_REPEATS)
    model = fit_matrix(UserKNNRecommender(**PLAIN), matrix, log)
    live = LiveVotes(DailyFit(model, matrix, log, WEIGHTS, MAX_REPEATS))
    live.add(event(2, 0, 1.5))
    state, _ = live.tick(2 * DAY)
    assert sorted(state.seen(ids(3, 1)[2].tobytes())) == sorted(ids(3, 2)[post].tobytes() for post in (0, 2))


def test_forgetting_the_oldest_events_is_as_if_they_had_never_come() -> None:
    log = random_log(np.random.default_rng(8))
    fit = daily_fit(log, 6 * DAY)
    later = np.flatnonzero(log.created_at >= 6 * DAY)
    newest = later[np.argsort(log.created_at[later])][-40:]
    one, other = LiveVotes(fit), LiveVotes(fit)
    one.add(batch_of(log, later))
    one.tick(11 * DAY)
    one.forget_oldest(40)
    other.add(batch_of(log, newest))
    states = [live.tick(11 * DAY)[0] for live in (one, other)]
    assert one.n_events == other.n_events == 40
    for user_id in fit.log.user_ids:
        first, second = (state.recommend(user_id.tobytes(), 10) for state in states)
        assert first is not None
        assert (first.post_ids, first.scores, first.folded_in) == (
            second.post_ids,
            second.scores,
            second.folded_in,
        )


def test_an_explanation_names_the_neighbours_and_adds_up() -> None:
    live = small(popularity_blend=0.3)
    live.add(event(1, 2, 1.5, "like"))
    state, _ = live.tick(2 * DAY)
    answer = state.recommend(ids(3, 1)[0].tobytes(), 10)
    assert answer is not None
    (explained,) = state.explain(ids(3, 1)[0].tobytes(), answer.post_ids)
    assert explained.voter_ids == [ids(3, 1)[1].tobytes()]
    assert explained.explanation.score == pytest.approx(answer.scores[0], rel=1e-12)
    (voter,) = explained.explanation.voters
    assert (voter.last_interaction_at, voter.vote) == (round(1.5 * DAY), 0.5**0.5)
    assert voter.share + explained.explanation.popularity_share == pytest.approx(1)


def test_files_of_different_runs_are_refused() -> None:
    fit = daily_fit(TWO_ALIKE, DAY)
    other = daily_fit(random_log(np.random.default_rng(1)), 6 * DAY)
    with pytest.raises(CorruptArtifact, match="different runs"):
        DailyFit(fit.model, fit.matrix, other.log, WEIGHTS, MAX_REPEATS)


def test_a_time_that_the_catalogue_does_not_know_is_when_the_post_was_first_seen() -> None:
    live = small()
    live.add(event(1, NEW_POST, 1.5))
    live.note_posts(
        PostFacts(NEW_POST, np.zeros((1, 16), np.uint8), np.array([UNKNOWN_TIME]), np.array([True]))
    )
    state, _ = live.tick(round(2.5 * DAY))
    assert state.factors.freshness[-1] == 0.5
