import numpy as np
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_assets.recommender.list_scoring import PostFactors, recommend_to
from reco_assets.recommender.masks import Masks


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_lists_match_the_plain_formula(data: st.DataObject) -> None:
    n_users = data.draw(st.integers(1, 8))
    n_posts = data.draw(st.integers(1, 90) | st.just(2300))  # the latter for several values in each lane
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, k = data.draw(st.integers(1, 95)), data.draw(st.integers(0, 6))
    blend = data.draw(st.sampled_from([0.0, 0.25, 1.0]))
    # Few distinct values: many ties.
    votes = sp.csr_array(rng.choice([0.0, 0.0, 0.5, 1.0], (n_users, n_posts)))
    neighbors = rng.integers(-1, n_users, (n_users, k)).astype(np.int32)
    neighbors = np.take_along_axis(neighbors, np.argsort(neighbors < 0, axis=1, kind="stable"), axis=1)
    similarities = rng.choice([0.25, 0.5, 1.0], (n_users, k)).astype(np.float32)
    factors = PostFactors(rng.choice([0.0, 0.5, 1.0], n_posts), rng.choice([0.0, 0.5, 1.0], n_posts))
    masks = Masks.build(
        sp.csr_array((rng.random((n_users, n_posts)) < 0.2).astype(float)),
        eligible=rng.random(n_posts) < 0.9,
        post_author=rng.integers(-1, 3, n_posts),
        user_author=rng.integers(-1, 3, n_users),
        hidden_user=rng.integers(0, n_users, 3),
        hidden_author=rng.integers(0, 3, 3),
    )
    posts, scores = recommend_to(
        np.arange(n_users),
        n,
        neighbors=neighbors,
        similarities=similarities,
        votes=votes,
        factors=factors,
        blend=blend,
        masks=masks,
        n_threads=data.draw(st.integers(1, 3)),
    )
    dense = votes.toarray()
    for u in range(n_users):
        totals = np.zeros(n_posts)
        for v, similarity in zip(neighbors[u], similarities[u].astype(float), strict=True):
            totals += similarity * dense[v] if v >= 0 else 0.0
        totals = np.where(masks.allowed(u), totals * factors.freshness, 0.0)
        expected = (1.0 - blend) / totals.max() * totals if totals.max() > 0 else totals
        expected = np.where(masks.allowed(u), expected + blend * factors.popularity, 0.0)
        order = np.lexsort((np.arange(n_posts), -expected))[:n]
        order = order[expected[order] > 0]
        assert posts[u, : len(order)].tolist() == order.tolist()
        np.testing.assert_array_equal(scores[u, : len(order)], expected[order])
        assert (posts[u, len(order) :] == -1).all()
