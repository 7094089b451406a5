"""What goes wrong around the client: slow tokens, refusals, hostile answers, pages that end in between."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from uuid import UUID, uuid4

import jwt
import pytest
from playwright.sync_api import BrowserContext, Route

from reco_assets.serving.routes import live_feed
from reco_assets_tests.browser.conftest import HIDDEN, LEFT, App, Open, Visit, add_pages, open_posts
from reco_assets_tests.serving.conftest import RunningService, Serve

NEVER = "() => new Promise(() => {})"
DENIED = "LockManager.prototype.request = () => Promise.reject(new DOMException('denied', 'SecurityError'))"
LONGEST_BACKOFF = "Math.random = () => 0.999999"


def test_a_token_that_never_comes_does_not_hold_up_other_tabs(visit: Open, app: App) -> None:
    waiting, other = visit(app.user), visit(app.user)
    _make_client(waiting, app.user, token="() => { page.asked = true; return new Promise(() => {}) }")
    waiting.page.evaluate("id => { page.own.track('like', id); page.own.flush() }", str(app.posts[0]))
    waiting.page.wait_for_function("() => page.asked")
    other.track("click", app.posts[1])
    other.flush()  # in the other tab no time passes
    other.until(lambda: app.kinds().get("click") == 1)

    def all_stored() -> bool:
        other.flush()
        return app.kinds() == {"like": 1, "click": 1}

    other.until(all_stored)  # what the first one had does not wait for its token either


def test_a_token_that_never_comes_is_an_error_of_the_feed(visit: Open, app: App) -> None:
    tab = visit(app.user)
    _make_client(tab, app.user, token=NEVER)
    tab.page.evaluate("() => { page.own.feed().catch(error => page.late = error.message) }")
    tab.let_pass(21)
    tab.page.wait_for_function("() => page.late === 'token() is late'")


@pytest.mark.parametrize(
    "token", ["() => { throw new Error('no session') }", "() => Promise.reject(new Error('no session'))"]
)
def test_a_token_that_cannot_be_had_keeps_the_events(visit: Open, app: App, token: str) -> None:
    tab = visit(app.user)
    _make_client(tab, app.user, token=token)
    tab.page.evaluate("id => { page.own.track('like', id); return page.own.flush() }", str(app.posts[0]))
    tab.let_pass(21)
    assert len(tab.queued()) == 1
    assert tab.problems == []
    assert tab.calls == []


def test_what_waits_for_a_token_leaves_with_the_one_before(
    still_context: BrowserContext, serve: Serve, app: App
) -> None:
    key = "k" * 32
    service = serve(auth="jwt", jwt_keys=key)
    add_pages(service.app)
    token = jwt.encode({"sub": str(app.user), "exp": 4_000_000_000}, key)
    tab = open_posts(still_context, service.url, uuid4())  # the page's own client has nothing to send
    tab.page.evaluate("token => page.next = token", token)
    _make_client(tab, app.user, token="() => page.next")
    tab.page.evaluate("id => { page.own.track('like', id); return page.own.flush() }", str(app.posts[0]))
    tab.wait_stored(app, like=1)
    tab.page.evaluate(
        "id => { page.next = new Promise(() => {}); page.own.track('click', id); void page.own.flush() }",
        str(app.posts[0]),
    )
    tab.page.evaluate(LEFT)
    tab.wait_stored(app, like=1, click=1)
    tab.wait_called(1, 1)


def test_nothing_goes_out_with_the_token_of_the_next_user(
    still_context: BrowserContext, serve: Serve, app: App
) -> None:
    key = "k" * 32
    service = serve(auth="jwt", jwt_keys=key)
    add_pages(service.app)
    tab = open_posts(still_context, service.url, uuid4())
    sockets: list[str] = []
    tab.page.on("websocket", lambda socket: sockets.append(socket.url))
    tab.page.evaluate("() => { page.login = new Promise(done => page.login_as = done) }")
    _make_client(tab, app.user, token="() => page.login")
    tab.page.evaluate(
        "id => { page.own.live(() => {}); page.own.track('like', id); void page.own.flush();"
        " page.own.close() }",
        str(app.posts[0]),
    )
    second = app.add_user()
    token = jwt.encode({"sub": str(second), "exp": 4_000_000_000}, key)
    tab.page.evaluate("token => page.login_as(token)", token)
    _make_client(tab, second, token="() => page.login")
    tab.page.evaluate("id => { page.own.track('click', id); page.own.live(() => {}) }", str(app.posts[0]))
    tab.page.evaluate("() => page.own.flush()")
    tab.wait_stored(app, second, click=1)
    tab.until(lambda: len(service.service.realtime.changes) == 1)
    assert [event["interaction_type"] for call in tab.calls for event in call] == ["click"]
    assert [str(second) in url for url in sockets] == [True]
    assert len(tab.queued()) == 1  # it waits for its own user


def _only_small_ones(answer: Callable[[Route], None], tab: Visit, most: int = 4) -> None:
    def handle(route: Route) -> None:
        n = len((route.request.post_data_json or {})["interactions"])
        if n > most:
            answer(route)
        else:
            route.continue_()

    tab.page.route("**/api/track", handle)


def _refuse(status: int) -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=status, json={"error": {"code": "no", "message": "no"}})


@pytest.mark.parametrize(
    "answer",
    [_refuse(408), _refuse(413), lambda route: route.abort("connectionreset")],
    ids=["408", "413", "no answer"],
)
def test_what_cannot_be_sent_at_once_is_halved(
    visit: Open, app: App, answer: Callable[[Route], None]
) -> None:
    tab = visit(app.user)
    _only_small_ones(answer, tab)
    for post in app.posts[:16]:
        tab.track("click", post)
    tab.until(lambda: tab.queued() == [], passing_s=0.5)
    tab.wait_stored(app, click=16)
    assert tab.sizes[:3] == [16, 8, 4]
    assert tab.page.evaluate("() => page.refused") == []


def test_a_single_event_that_was_too_slow_is_sent_again(visit: Open, app: App) -> None:
    tab = visit(app.user)
    answers = [408, 408]
    tab.page.route(
        "**/api/track", lambda route: _refuse(answers.pop())(route) if answers else route.continue_()
    )
    tab.track("like", app.posts[0])
    tab.until(lambda: tab.queued() == [], passing_s=0.5)
    tab.wait_stored(app, like=1)
    assert tab.page.evaluate("() => page.refused") == []
    assert len(set(tab.sent_ids)) == 1


def _busy_once(tab: Visit, retry_after: Callable[[str], str]) -> None:
    """Answer the first call with 503 and a Retry-After; it gets the page's own time."""
    first = [True]

    def handle(route: Route) -> None:
        if not first:
            route.continue_()
            return
        first.clear()
        # The page's own clock: a real one is ahead of it.
        headers = {"Retry-After": retry_after(tab.page.evaluate("() => new Date().toUTCString()"))}
        route.fulfill(status=503, headers=headers, json={"error": {"code": "unavailable", "message": "-"}})

    tab.page.route("**/api/track", handle)


def _in_10_s(now: str) -> str:
    return format_datetime(parsedate_to_datetime(now) + timedelta(seconds=10), usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "at_least_s", "at_most_s"),
    [
        (_in_10_s, 8.5, 12),
        (lambda _: "10", 10, 12),
        (lambda _: "1e99", 3600, 3602),
        (lambda _: "-1000000", 0.9, 2),
        (lambda _: "Thu, 01 Jan 1970 00:00:00 GMT", 0.9, 2),
        (lambda _: "soon", 0.9, 2),
    ],
    ids=["a date", "seconds", "for ever", "negative", "long ago", "words"],
)
def test_how_long_it_waits_when_asked_to(
    visit: Open,
    app: App,
    still_context: BrowserContext,
    retry_after: Callable[[str], str],
    at_least_s: float,
    at_most_s: float,
) -> None:
    still_context.add_init_script(LONGEST_BACKOFF)  # a second after the first failure
    tab = visit(app.user)
    _busy_once(tab, retry_after)
    tab.track("like", app.posts[0])
    tab.flush()
    tab.wait_called(1)
    tab.let_pass(at_least_s - 0.05)
    tab.page.evaluate("() => page.reco.flush()")
    tab.page.wait_for_timeout(100)
    assert tab.sizes == [1]
    tab.let_pass(at_most_s - at_least_s)
    tab.wait_stored(app, like=1)


def test_a_page_that_dies_before_the_answer_loses_and_doubles_nothing(visit: Open, app: App) -> None:
    tab = visit(app.user)
    stored: list[int] = []
    tab.page.route("**/api/track", lambda route: stored.append(route.fetch().status))  # never fulfilled
    tab.track("share", app.posts[0])
    tab.page.evaluate("() => void page.reco.flush()")
    tab.until(lambda: stored == [200])
    tab.crash()
    later = visit(app.user)
    assert len(later.queued()) == 1
    later.flush()
    later.wait_sent()
    assert later.sent_ids
    assert app.kinds() == {"share": 1}


def test_where_locks_are_denied_events_are_sent(visit: Open, app: App, still_context: BrowserContext) -> None:
    still_context.add_init_script(DENIED)
    tab = visit(app.user)
    tab.track("like", app.posts[0])
    tab.flush()
    tab.wait_stored(app, like=1)
    assert tab.problems == []


def test_going_away_is_said_twice_and_sent_once(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.track("click", app.posts[0])
    tab.page.evaluate(HIDDEN)
    tab.page.evaluate(LEFT)
    tab.wait_stored(app, click=1)
    tab.wait_sent()
    tab.wait_called(1)


def test_a_beacon_that_is_refused_costs_nothing(visit: Open, app: App, still_context: BrowserContext) -> None:
    still_context.add_init_script(
        "delete Request.prototype.keepalive; window.beacons = 0;"
        " navigator.sendBeacon = () => (beacons++, false)"
    )
    tab = visit(app.user)
    tab.track("click", app.posts[0])
    tab.page.evaluate(HIDDEN)
    assert tab.page.evaluate("() => beacons") == 1
    assert len(tab.queued()) == 1
    tab.until(lambda: tab.queued() == [], passing_s=0.5)
    tab.wait_stored(app, click=1)


def test_ids_keep_their_order_when_the_clock_goes_back(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.track("click", app.posts[0])
    tab.page.evaluate("() => { const now = Date.now; Date.now = () => now() - 3600000 }")
    for post in app.posts[1:4]:
        tab.track("click", post)
    tab.flush()
    tab.wait_stored(app, click=4)
    assert [event["post_id"] for event in tab.calls[0]] == [str(post) for post in app.posts[:4]]
    assert all(UUID(event_id).version == 7 for event_id in tab.sent_ids)


def test_an_element_that_shows_another_post_now_is_watched_anew(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:1])
    tab.settle()
    tab.let_pass(0.5)
    tab.page.evaluate(
        "id => { page.reco.observe(document.querySelector('article'), {post_id: id}) }", str(app.posts[1])
    )
    tab.settle()
    tab.let_pass(1)
    assert tab.viewed() == [app.posts[1]]


def test_a_page_that_is_kept_for_the_way_back_hangs_up_and_connects_again(
    visit: Open, service: RunningService, app: App
) -> None:
    tab = visit(app.user)
    changes = service.service.realtime.changes
    tab.page.evaluate("() => { page.heard = []; page.reco.live(message => page.heard.push(message.type)) }")
    tab.until(lambda: len(changes) == 1)
    tab.page.evaluate("() => void dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
    tab.until(lambda: len(changes) == 0)  # no time passes, as in a page that is kept
    tab.page.evaluate("() => void dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    tab.until(lambda: tab.page.evaluate("() => page.heard") == ["reconnected"], passing_s=0.5)
    changes.tell_all(uuid4())
    tab.until(lambda: tab.page.evaluate("() => page.heard") == ["reconnected", "feed_changed"])


def test_a_connection_whose_token_expires_comes_back_with_another(
    still_context: BrowserContext, serve: Serve, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_feed, "_LOOK_EVERY_S", 0.05)
    now = [datetime.now(UTC)]
    key = "k" * 32
    service = serve(clock=lambda: now[0], auth="jwt", jwt_keys=key)
    add_pages(service.app)
    expires = now[0] + timedelta(hours=1)
    first, second = (
        jwt.encode({"sub": str(app.user), "exp": int((expires + more).timestamp())}, key)
        for more in (timedelta(0), timedelta(hours=1))
    )
    tab = open_posts(still_context, service.url, uuid4())
    tab.page.evaluate("token => { page.next = token; page.heard = [] }", first)
    _make_client(tab, app.user, token="() => page.next")
    tab.page.evaluate("() => { page.own.live(message => page.heard.push(message.type)) }")
    changes = service.service.realtime.changes
    tab.until(lambda: len(changes) == 1)
    tab.page.evaluate("token => { page.next = token }", second)
    now[0] = expires + timedelta(seconds=31)
    tab.until(lambda: len(changes) == 0)
    tab.until(lambda: tab.page.evaluate("() => page.heard") == ["reconnected"], passing_s=0.5)
    assert len(changes) == 1


def _make_client(tab: Visit, user: UUID, *, token: str) -> None:
    """A further client in the page, `page.own`, whose token is what that function gives."""
    tab.page.evaluate(
        "async user => { const { createReco } = await import('/reco.js');"
        f" page.own = createReco({{ userId: user, token: {token} }}) }}",
        str(user),
    )
