"""Run in a process of its own by the tests that terminate it during a fit: a run whose fit takes minutes."""

import sys

import dagster as dg
import numpy as np
import scipy.sparse as sp

from reco_assets.assets.partitions import daily_asset, explained
from reco_assets.pipeline.step_watch import StepWatch
from reco_assets.recommender.user_knn import UserKNNRecommender

N_USERS, N_POSTS, PER_USER = 100_000, 300, 60


@daily_asset()
def long_fit(context: dg.AssetExecutionContext) -> None:
    """Everybody has read a fifth of the posts, so that everybody is compared with everybody."""
    posts = np.random.default_rng(0).integers(0, N_POSTS, (N_USERS, PER_USER))
    rows = np.repeat(np.arange(N_USERS), PER_USER)
    reads = sp.csr_array((np.ones(posts.size), (rows, posts.ravel())), shape=(N_USERS, N_POSTS))
    watch = StepWatch.of(context)

    def progress(done: int, total: int) -> None:
        print(f"{context.run_id} {done} of {total}", flush=True)

    with explained(context):
        UserKNNRecommender().fit(reads, progress=progress, should_stop=watch.should_stop)


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        result = dg.materialize(
            [long_fit], partition_key=sys.argv[1], instance=instance, raise_on_error=False
        )
    sys.exit(not result.success)
