"""The executor of the runs below the code server: all steps in one process, which is noted first."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from reco_assets.local.running_process import PROCESS_TAG, this_process


class _NotingExecutor(dg.Executor):
    """Notes on the run which process executes it, for the sensor `lost_run_watch`.

    Dagster's record of it has a pid but no host, and the pid of a container that is started again is soon
    another process.
    """

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    @property
    def retries(self) -> Any:
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        run_id = plan_context.run_id
        plan_context.instance.add_run_tags(run_id, {PROCESS_TAG: this_process(run_id)})
        yield from self._executor.execute(plan_context, execution_plan)


def _create(init_context: dg.InitExecutorContext) -> dg.Executor:
    create = dg.in_process_executor.executor_creation_fn
    assert create is not None
    return _NotingExecutor(create(init_context))


noting_executor = dg.ExecutorDefinition(
    name=dg.in_process_executor.name,
    config_schema=dg.in_process_executor.config_schema.as_field(),
    executor_creation_fn=_create,
)
"""Dagster's in-process executor, with its config; the process is noted on the run."""
