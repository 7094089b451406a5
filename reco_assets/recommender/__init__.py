"""The recommender itself: arrays in, arrays out.

numpy, scipy and numba only; no Dagster, SQL, HTTP or MLflow. In the order data flows:
`interaction_log` → `interaction_matrix` → `weighting` → `kernel` → `user_knn`, judged by
`evaluation` beside `baselines`, with the verdicts of `quality`. Importing this package loads none
of them.
"""
