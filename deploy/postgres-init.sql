-- The postgres image runs this once, when its volume is empty. POSTGRES_DB (reco) exists by then.
CREATE DATABASE dagster;
CREATE DATABASE mlflow;
