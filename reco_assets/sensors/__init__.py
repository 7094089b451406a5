"""Alerts: four sensors that watch the pipeline, one file each.

They are plain sensors with cursors of their own. Dagster's `@run_failure_sensor` moves its cursor
past a failure whether or not the body raised (1.13, `run_status_sensor_definition.py`: the update
follows the `except`), so that an alert whose delivery fails once is lost; it sees retried runs and
single runs of a backfill like any other; and it cannot remember what went out.

`failed_runs` reads why runs failed, `desk` delivers and remembers, `recovery` knows what counts as
repaired. See docs/alerts.md. `lost_run_watch` alerts nobody: it fails runs that nobody else would.
"""

from reco_assets.sensors.blocking_check_alert import blocking_check_alert
from reco_assets.sensors.recovery_notice import recovery_notice
from reco_assets.sensors.run_failure_alert import run_failure_alert
from reco_assets.sensors.stale_recommendations_alert import stale_recommendations_alert

alert_sensors = [run_failure_alert, blocking_check_alert, stale_recommendations_alert, recovery_notice]
