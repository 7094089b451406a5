"""When events are sent, and that what cannot be sent is kept, within bounds, and sent later."""

from pathlib import Path

from playwright.sync_api import BrowserContext

from reco_assets_tests.browser.conftest import App, Open, add_pages, make_app, open_posts, set_offline
from reco_assets_tests.serving.conftest import running_service
from reco_assets_tests.serving.own_server import own_server
from reco_assets_tests.store.conftest import settings_for


def test_twenty_events_go_at_once(visit: Open, app: App) -> None:
    tab = visit(app.user)
    for post in app.posts[:19]:
        tab.track("click", post)
    tab.page.wait_for_timeout(200)  # a call would be noted by now
    assert (tab.sizes, len(tab.queued())) == ([], 19)
    tab.track("click", app.posts[19])
    tab.wait_stored(app, click=20)
    tab.wait_called(20)


def test_fewer_go_after_five_seconds_together(visit: Open, app: App) -> None:
    tab = visit(app.user)
    for post in app.posts[:3]:
        tab.track("click", post)
    tab.let_pass(4.9)
    tab.page.wait_for_timeout(200)  # a call would be noted by now
    assert (tab.sizes, len(tab.queued())) == ([], 3)
    tab.let_pass(0.1)
    tab.wait_stored(app, click=3)
    tab.wait_sent()
    tab.track("like", app.posts[0])
    tab.let_pass(5)
    tab.wait_stored(app, click=3, like=1)
    tab.wait_called(3, 1)


def test_what_happens_offline_is_sent_when_the_network_is_back(visit: Open, app: App) -> None:
    tab = visit(app.user)
    set_offline(tab, True)
    for post in app.posts[:25]:
        tab.track("click", post)
    tab.flush()
    assert len(tab.queued()) == 25
    set_offline(tab, False)
    tab.wait_stored(app, click=25)
    tab.wait_sent()
    tab.wait_called(25)  # nothing before, when it was known to fail


def test_after_a_503_it_waits_and_sends_the_same_again(
    still_context: BrowserContext, open_tmp_path: Path
) -> None:
    with own_server(open_tmp_path / "postgres") as server:
        settings = settings_for(server.url)
        app = make_app(settings)
        with running_service(settings) as service:
            add_pages(service.app)
            tab = open_posts(still_context, service.url, app.user)
            server.kill()
            for post in app.posts[:20]:  # the twentieth sends them
                tab.track("click", post)

            tab.until(lambda: len(tab.calls) >= 3, passing_s=0.1)
            assert len(tab.queued()) == 20
            server.start()
            tab.until(lambda: tab.queued() == [], passing_s=0.1)
            assert app.kinds() == {"click": 20}
            assert set(tab.sent_ids) == set(tab.sent_ids[:20])
            gaps = [b - a for a, b in zip(tab.called_at, tab.called_at[1:], strict=False)]
            assert min(gaps) > 0.85, "Retry-After is one second; calls are timed to a tenth"
        server.stop()


def test_without_locks_or_storage_it_still_works(
    visit: Open, app: App, still_context: BrowserContext
) -> None:
    still_context.add_init_script(
        "Object.defineProperty(navigator, 'locks', {value: undefined});"
        "const names = () => []; Object.defineProperty(window, 'localStorage',"
        " {get() { throw new DOMException('denied', 'SecurityError') }})"
    )
    tab = visit(app.user)
    for post in app.posts[:3]:
        tab.track("click", post)
    tab.flush()
    tab.wait_stored(app, click=3)
    assert tab.problems == []


def test_full_storage_costs_no_event(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.page.evaluate(
        "() => { let n = 1 << 20; let i = 0; while (n) {"
        " try { localStorage['x' + i++] = 'x'.repeat(n) } catch { n >>= 1 } } }"
    )
    tab.track("like", app.posts[0])
    assert tab.queued() == []
    tab.flush()
    tab.wait_stored(app, like=1)


def test_the_queue_keeps_the_newest_thousand(visit: Open, app: App) -> None:
    tab = visit(app.user)
    set_offline(tab, True)
    tab.page.evaluate(
        "id => { for (let n = 0; n < 1050; n++) page.reco.track('click', id, {n}) }", str(app.posts[0])
    )
    assert len(tab.queued()) == 1000
    set_offline(tab, False)
    tab.wait_stored(app, click=1000)
    assert min(metadata["n"] for _, _, metadata in app.stored()) == 50
    tab.wait_called(*[50] * 20)
