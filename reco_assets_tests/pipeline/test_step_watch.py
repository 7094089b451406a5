from collections.abc import Iterator

import pytest

from reco_assets.pipeline.step_watch import ASK_EVERY_S, PAUSE_S, StepWatch


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    return Clock()


def test_progress_is_said_by_tenths_and_not_more_often_than_every_few_seconds(clock: Clock) -> None:
    said: list[str] = []
    report = StepWatch(said.append, lambda: False, clock=clock).progress("Neighbours")
    for done in range(0, 10_001, 10):  # a second for every percent
        clock.now = 1000.0 + done / 100
        report(done, 10_000)
    assert said == [f"Neighbours: {tenth}0% of 10,000 users" for tenth in range(1, 11)]
    said.clear()
    clock.now = 2000.0
    report = StepWatch(said.append, lambda: False, clock=clock).progress("Hold-out", "days")
    for done in range(101):  # nine seconds in all
        clock.now = 2000.0 + done * 0.09
        report(done, 100)
    assert said == ["Hold-out: 50% of 100 days"]


def test_what_takes_no_time_says_nothing(clock: Clock) -> None:
    said: list[str] = []
    report = StepWatch(said.append, lambda: False, clock=clock).progress("Lists")
    for done in range(1001):
        report(done, 1000)
    report(0, 0)
    assert said == []
    clock.now += PAUSE_S
    report(0, 0)  # nobody to serve
    assert said == []


def test_whether_to_stop_is_asked_now_and_then_and_remembered(clock: Clock) -> None:
    answers = iter([False, True])
    watch = StepWatch(print, lambda: next(answers), clock=clock)
    assert not watch.should_stop()  # not asked yet
    clock.now += ASK_EVERY_S
    assert [watch.should_stop() for _ in range(3)] == [False] * 3
    clock.now += ASK_EVERY_S
    assert [watch.should_stop() for _ in range(3)] == [True] * 3
    clock.now += ASK_EVERY_S
    assert watch.should_stop()  # a third question would raise StopIteration
