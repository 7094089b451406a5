"""An open page hears that its feed has changed, also after the connection was lost."""

from uuid import uuid4

import jwt
from playwright.sync_api import BrowserContext

from reco_assets_tests.browser.conftest import App, Open, Visit, add_pages, open_posts
from reco_assets_tests.serving.conftest import RunningService, Serve

_LISTEN = "() => { page.heard = []; page.stop = page.reco.live(message => page.heard.push(message.type)) }"


def _heard(tab: Visit) -> list[str]:
    heard: list[str] = tab.page.evaluate("() => page.heard")
    return heard


def test_a_page_hears_of_changes_and_connects_again(visit: Open, service: RunningService, app: App) -> None:
    tab = visit(app.user)
    changes = service.service.realtime.changes
    tab.page.evaluate(_LISTEN)
    tab.until(lambda: len(changes) == 1)
    changes.tell_all(uuid4())
    tab.until(lambda: _heard(tab) == ["feed_changed"])
    changes.close()  # as a service does that stops
    tab.until(lambda: _heard(tab) == ["feed_changed", "reconnected"], passing_s=0.1)
    changes.tell_all(uuid4())
    tab.until(lambda: _heard(tab) == ["feed_changed", "reconnected", "feed_changed"])
    tab.page.evaluate("() => page.stop()")
    tab.until(lambda: len(changes) == 0)
    tab.let_pass(60)
    tab.page.wait_for_timeout(200)  # a connection would be open by now
    assert len(changes) == 0
    assert tab.problems == []


def test_what_stopped_listening_leaves_nothing_behind(visit: Open, service: RunningService, app: App) -> None:
    tab = visit(app.user)
    protocol = tab.page.context.new_cdp_session(tab.page)

    def n_listeners() -> int:
        window = protocol.send("Runtime.evaluate", {"expression": "window"})["result"]["objectId"]
        listeners = protocol.send("DOMDebugger.getEventListeners", {"objectId": window})["listeners"]
        return len(listeners)

    before = n_listeners()
    tab.page.evaluate(_LISTEN)
    tab.until(lambda: len(service.service.realtime.changes) == 1)
    assert n_listeners() == before + 1
    tab.page.evaluate("() => page.stop()")
    tab.until(lambda: len(service.service.realtime.changes) == 0)
    assert n_listeners() == before


def test_closing_the_client_ends_the_connection(visit: Open, service: RunningService, app: App) -> None:
    tab = visit(app.user)
    tab.page.evaluate(_LISTEN)
    tab.until(lambda: len(service.service.realtime.changes) == 1)
    tab.page.evaluate("() => page.reco.close()")
    tab.until(lambda: len(service.service.realtime.changes) == 0)


def test_the_token_goes_with_the_connection(still_context: BrowserContext, serve: Serve, app: App) -> None:
    key = "k" * 32
    service = serve(auth="jwt", jwt_keys=key)
    add_pages(service.app)
    token = jwt.encode({"sub": str(app.user), "exp": 4_000_000_000}, key)
    tab = open_posts(still_context, service.url, None, token=token)
    tab.page.evaluate(_LISTEN)
    tab.until(lambda: len(service.service.realtime.changes) == 1)
    service.service.realtime.changes.tell_all(uuid4())
    tab.until(lambda: _heard(tab) == ["feed_changed"])


def test_a_feed_names_its_error(visit: Open, app: App) -> None:
    tab = visit(app.user)
    error = tab.page.evaluate(
        "() => page.reco.feed({limit: 100000}).catch(e => [e instanceof Error, e.status, e.code, e.message])"
    )
    assert error[:2] == [True, 422]
    assert error[2]
    assert "100000" in error[3]
