"""The recommender itself: arrays in, arrays out.

numpy, scipy and numba only; no Dagster, SQL, HTTP or MLflow. In the order data flows:
`interaction_log` → `interaction_matrix` → `weighting` → `neighbor_search` → `list_scoring` →
`user_knn`, judged by `evaluation` beside `baselines`, with the verdicts of `quality`. `fold_in`
answers for one history of now, `stored_model` keeps a fitted model on disk. The loops that take the
time are in `neighbor_kernel`, `list_scoring` and `selection`. Importing this package loads none of
them.
"""
