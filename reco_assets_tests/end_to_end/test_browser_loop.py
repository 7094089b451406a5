"""The loop closed in a real browser: reading changes the feed, live and by the next run."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from uuid import UUID

from playwright.sync_api import BrowserContext, Page, Route

from reco_assets.settings import Settings
from reco_assets_tests.browser.conftest import SOON_S, Visit, browser, context, playwright
from reco_assets_tests.end_to_end.conftest import Pipeline
from reco_assets_tests.serving.conftest import RunningService, running_service

__all__ = ["browser", "context", "playwright"]  # fixtures

PUBLISHED, REALTIME = "ml_recommendations", "realtime_recommendations"
T = TypeVar("T")
Event = tuple[str, UUID]


def test_reading_changes_the_feed_live_and_the_next_run_publishes_it(
    pipeline: Pipeline, context: BrowserContext
) -> None:
    _in_a_thread(pipeline.extract_window)
    assert _in_a_thread(pipeline.materialize).success
    user: UUID = pipeline.value(
        "SELECT user_id FROM user_recommendations GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1"
    )
    # The default is 100 ms, which a machine that runs other tests may miss.
    with running_service(Settings.load(feed_recommendations_ms=5000)) as service:
        _until_ready(service)
        tab = _open(context, service, user)

        # The lists of the run, as they stand in the table.
        assert set(_sources(tab.page, 10)) <= {PUBLISHED, "exploration"}
        expected: Counter[Event] = Counter()

        # Reads two screens, clicks and likes.
        top = set(_posts(tab.page)[:2])
        tab.until(lambda: top <= _viewed(tab, pipeline, user))
        tab.page.mouse.wheel(0, 600)
        tab.until(lambda: len(_viewed(tab, pipeline, user)) > len(top))
        first, second, third, fourth, fifth = _posts(tab.page)[:5]
        for post, button in ((first, ".title"), (first, ".like"), (second, ".like"), (third, ".share")):
            tab.page.click(f'[data-post="{post}"] {button}')
            kind = {".title": "click", ".like": "like", ".share": "share"}[button]
            expected[kind, post] += 1

        # The feed changes under the open page: below what has been seen, without a reload.
        tab.page.wait_for_selector("#toast div", timeout=SOON_S * 1000)
        tab.page.wait_for_selector(f'.fold ~ .post [data-source="{REALTIME}"]')
        assert tab.page.text_content("#toast") != ""
        assert _posts(tab.page)[:3] == [first, second, third]

        # Offline, then a service that is too busy, then a tab that closes in the middle of a batch.
        context.set_offline(True)
        tab.page.click(f'[data-post="{fourth}"] .like')
        expected["like", fourth] += 1
        context.set_offline(False)
        refusals: list[str] = []
        context.route("**/api/track", lambda route: _busy(route, refusals))
        tab.page.click(f'[data-post="{fifth}"] .like')
        expected["like", fifth] += 1
        tab.until(lambda: len(refusals) >= 2)
        tab.page.click(f'[data-post="{fifth}"] .title')
        expected["click", fifth] += 1
        tab.page.close()

        # The next visit sends what is left. Every event is there once.
        tab = _open(context, service, user)
        tab.until(lambda: _queued(tab) == 0 and not _missing(pipeline, user, expected))
        stored = _stored(pipeline, user)
        done = Counter({event: n for event, n in stored.items() if event[0] != "view"})
        assert done == expected
        assert {first, second} <= {post for kind, post in stored if kind == "view"}
        # The next page may show and count a post again; no event is there twice.
        assert (
            pipeline.value(
                "SELECT max(n) FROM (SELECT count(*) n FROM user_interactions WHERE metadata ? 'client_time' "
                "GROUP BY interaction_type, post_id, metadata ->> 'client_time') times"
            )
            == 1
        )
        assert set(_sources(tab.page, 10)) <= {REALTIME, "exploration"}

        # The pipeline runs: an open page hears of it and shows the published list.
        assert _in_a_thread(pipeline.materialize).success
        tab.page.wait_for_selector(f'.post [data-source="{PUBLISHED}"]', timeout=SOON_S * 1000)
        live = {str(row[1]) for row in pipeline.live_rows() if row[0] == user}
        fresh = tab.page.eval_on_selector_all(
            f'.fold ~ .post:has([data-source="{PUBLISHED}"])', "posts => posts.map(post => post.dataset.post)"
        )
        assert fresh
        assert set(fresh) <= live
        assert tab.problems == []


def _open(context: BrowserContext, service: RunningService, user: UUID) -> Visit:
    tab = Visit(context.new_page())
    tab.page.goto(f"{service.url}/demo?user={user}")
    tab.page.wait_for_selector(".post")
    return tab


def _in_a_thread(work: Callable[[], T]) -> T:
    """Playwright's event loop runs in this one, and Dagster wants to run its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _until_ready(service: RunningService) -> None:
    deadline = time.monotonic() + SOON_S
    while service.service.realtime.state != "ready":
        assert time.monotonic() < deadline, service.service.realtime.reason
        time.sleep(0.05)


def _busy(route: Route, refusals: list[str]) -> None:
    """What a proxy answers for a service that is restarting, twice."""
    if len(refusals) < 2:
        refusals.append(route.request.post_data or "")
        route.fulfill(status=503, headers={"Retry-After": "1"}, body="busy")
    else:
        route.continue_()


def _posts(page: Page) -> list[UUID]:
    ids = page.eval_on_selector_all(".post", "posts => posts.map(post => post.dataset.post)")
    return [UUID(post_id) for post_id in ids]


def _sources(page: Page, n: int) -> list[str]:
    sources: list[str] = page.eval_on_selector_all(
        ".post .source", "(badges, n) => badges.slice(0, n).map(badge => badge.dataset.source)", n
    )
    return sources


def _queued(tab: Visit) -> int:
    keys: list[str] = tab.page.evaluate("() => Object.keys(localStorage)")
    return sum(key.startswith("reco:") for key in keys)


def _viewed(tab: Visit, pipeline: Pipeline, user: UUID) -> set[UUID]:
    """The posts whose views are queued or stored."""
    waiting: list[dict[str, str]] = tab.page.evaluate(
        "() => Object.keys(localStorage).filter(key => key.startsWith('reco:'))"
        ".map(key => JSON.parse(localStorage[key]))"
    )
    queued = {UUID(event["post_id"]) for event in waiting if event["interaction_type"] == "view"}
    return queued | {post for kind, post in _stored(pipeline, user) if kind == "view"}


def _stored(pipeline: Pipeline, user: UUID) -> Counter[Event]:
    """(type, post) of what the browser did, apart from the world's own events."""
    rows = pipeline.query(
        "SELECT interaction_type, post_id FROM user_interactions WHERE user_id = %s "
        "AND metadata ? 'client_time'",
        user,
    )
    return Counter((kind, post) for kind, post in rows)


def _missing(pipeline: Pipeline, user: UUID, expected: Counter[Event]) -> Counter[Event]:
    return expected - _stored(pipeline, user)
