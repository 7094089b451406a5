"""The pipeline. One file per asset; the numbers say the order in which data flows.

1. `raw_interactions`: a day of the app's `user_interactions`, as Parquet.
2. `interaction_matrix`: the trailing window, in integer codes and as a weighted matrix.
3. `user_knn_model`: fitted, judged beside baselines, logged and registered.
4. `user_recommendations`: everybody's list, checked, archived, published.
5. `expired_recommendations_cleanup`: what nobody will read any more, deleted.
"""

import warnings

# Backfill policies are marked beta in Dagster 1.13; a warning per asset and process says nothing new.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`")
# The job's assets have two on purpose; backfills are of assets, not of the job.
warnings.filterwarnings("ignore", message=r"(?s).*multiple backfill policies")
