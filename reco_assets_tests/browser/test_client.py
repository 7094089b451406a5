"""The client in a real browser: what is tracked, when it is sent, and that nothing is lost or doubled."""

import re
from pathlib import Path
from uuid import UUID

import jwt
import pytest
from playwright.sync_api import BrowserContext

from reco_assets.settings import Settings
from reco_assets_tests.browser.conftest import App, Open, add_pages, make_app, open_posts
from reco_assets_tests.serving.conftest import Serve, running_service
from reco_assets_tests.serving.own_server import own_server
from reco_assets_tests.store.conftest import settings_for

NO_TIMERS = "() => { window.setTimeout = () => 0 }"
OFF_SCREEN = "() => scrollTo(0, document.body.scrollHeight)"


def test_a_view_is_half_of_a_post_for_a_second_and_counts_once(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:6])  # 200 px each on a screen of 800: the first four
    tab.page.wait_for_timeout(600)
    tab.page.evaluate(OFF_SCREEN)  # before a second is over: only what stays counts
    tab.page.wait_for_timeout(1500)
    tab.page.evaluate("() => scrollTo(0, 0)")
    tab.page.wait_for_timeout(1500)
    tab.page.evaluate(OFF_SCREEN)
    tab.page.wait_for_timeout(1500)
    tab.flush()
    tab.wait_stored(app, view=6)
    assert {post for _, post, _ in app.stored()} == set(app.posts[:6])


def test_a_post_that_is_shown_twice_is_viewed_once(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show([app.posts[0], app.posts[1], app.posts[0]])
    tab.page.wait_for_timeout(1500)
    tab.flush()
    tab.wait_stored(app, view=2)


def test_a_glance_is_no_view(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:12])
    tab.page.wait_for_timeout(400)
    tab.page.evaluate(OFF_SCREEN)
    tab.page.wait_for_timeout(1600)
    tab.flush()
    assert not {post for _, post, _ in app.stored()} & set(app.posts[:4])


def test_a_post_taller_than_two_screens_is_viewed_when_it_fills_half_of_one(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:1], "tall")
    tab.page.wait_for_timeout(1300)
    tab.flush()
    tab.wait_stored(app, view=1)


def test_links_are_clicks_and_buttons_say_what_they_are(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:1])
    tab.page.click("article button")
    tab.page.click("article i")  # nothing
    tab.page.click("article a", button="right")  # nor does a menu
    tab.page.click("article a", button="middle")
    tab.page.click("article a")  # leaves the page
    tab.page.wait_for_url("**/posts.html?next")
    tab.wait_stored(app, like=1, click=2)


def test_an_event_says_where_its_post_came_from(visit: Open, app: App) -> None:
    tab = visit(app.user)
    metadata = {"request_id": "r1", "generation_id": "g1", "model_version": "m_v3"}
    answer = {
        "posts": [{"post_id": str(app.posts[0]), "source": "exploration", "rank": 7, "propensity": 0.25}],
        "metadata": {**metadata, "experiment": {"name": "e", "arm": "random"}},
    }
    tab.page.evaluate(
        "answer => page.reco.track('like', page.withTracking(answer).posts[0], {where: 'list'})", answer
    )
    tab.flush()
    tab.wait_stored(app, like=1)
    kept = app.stored()[0][2]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", kept.pop("client_time"))
    assert kept == {
        **metadata,
        "source": "exploration",
        "rank": 7,
        "propensity": 0.25,
        "experiment": "e",
        "arm": "random",
        "where": "list",
    }


def test_a_post_of_the_feed_is_known_by_its_id(app: App, visit: Open) -> None:
    tab = visit(app.user)
    post = tab.page.evaluate(
        "async () => { const [post] = (await page.reco.feed({limit: 1})).posts;"
        " page.reco.track('share', post.post_id, {to: 'mail'});"
        " return JSON.parse(JSON.stringify(post)) }"
    )
    tab.track("click", next(other for other in app.posts if str(other) != post["post_id"]))
    tab.flush()
    tab.wait_stored(app, share=1, click=1)
    share, click = (metadata for _, _, metadata in app.stored())
    assert share.pop("client_time")
    assert click.keys() == {"client_time"}
    assert share == post["tracking"] | {"to": "mail"}
    assert share["source"] == post["source"]
    assert share["rank"] == 1


def test_a_post_that_is_observed_is_known_by_its_id(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:2])
    tab.track("share", app.posts[1])
    tab.flush()
    tab.wait_stored(app, share=1)
    assert app.stored()[0][2].items() >= {"source": "test", "rank": 2}.items()


def test_ids_are_uuids_in_the_order_they_were_made(visit: Open, app: App) -> None:
    tab = visit(app.user)
    for post in app.posts[:5]:
        tab.track("click", post)
    ids = [UUID(key[-36:]) for key in tab.queued()]
    assert all(i.version == 7 and i.variant == "specified in RFC 4122" for i in ids)
    tab.flush()
    assert [event["post_id"] for event in tab.calls[0]] == [str(post) for post in app.posts[:5]]
    assert len(set(ids)) == 5


def test_twenty_events_go_at_once(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.page.evaluate(NO_TIMERS)
    for post in app.posts[:19]:
        tab.track("click", post)
    tab.page.wait_for_timeout(300)
    assert tab.calls == []
    tab.track("click", app.posts[19])
    tab.wait_stored(app, click=20)
    assert [len(call) for call in tab.calls] == [20]


def test_fewer_go_after_a_while_together(visit: Open, app: App) -> None:
    tab = visit(app.user)
    for post in app.posts[:3]:
        tab.track("click", post)
    tab.wait_stored(app, click=3)
    tab.track("like", app.posts[0])
    tab.wait_stored(app, click=3, like=1)
    assert [len(call) for call in tab.calls] == [3, 1]


def test_a_page_of_100_views_makes_at_most_6_calls(visit: Open, settings: Settings) -> None:
    app = make_app(settings, n_posts=100)
    tab = visit(app.user)
    tab.show(app.posts, "small")
    tab.wait_stored(app, view=100)
    assert len(tab.calls) <= 6
    assert len(tab.sent_ids) == len(set(tab.sent_ids)) == 100


def test_scrolling_through_100_posts_makes_at_most_6_calls(visit: Open, settings: Settings) -> None:
    app = make_app(settings, n_posts=100)
    tab = visit(app.user)
    tab.show(app.posts)
    tab.page.set_viewport_size({"width": 1000, "height": 2000})
    for screen in range(11):
        tab.page.evaluate("y => scrollTo(0, y)", 1900 * screen)
        tab.page.wait_for_timeout(1200)
    tab.wait_stored(app, view=100)
    assert len(tab.calls) <= 6


def test_what_happens_offline_is_sent_when_the_network_is_back(
    visit: Open, app: App, context: BrowserContext
) -> None:
    tab = visit(app.user)
    tab.page.evaluate(NO_TIMERS)
    context.set_offline(True)
    for post in app.posts[:25]:
        tab.track("click", post)
    tab.flush()
    assert tab.calls == []  # nothing that is known to fail
    context.set_offline(False)
    tab.wait_stored(app, click=25)
    tab.until(lambda: tab.queued() == [])


def test_what_a_reload_interrupts_is_sent_by_the_next_page_with_the_same_ids(
    visit: Open, app: App, context: BrowserContext
) -> None:
    tab = visit(app.user)
    context.set_offline(True)
    for post in app.posts[:5]:
        tab.track("like", post)
    ids = [key[-36:] for key in tab.queued()]
    tab.close_unable_to_send()
    context.set_offline(False)
    later = visit(app.user)
    later.wait_stored(app, like=5)
    later.until(lambda: later.sent_ids == ids)


@pytest.mark.parametrize("lacking", ["", "delete Request.prototype.keepalive"])
def test_a_tab_that_closes_mid_batch_sends_it_and_nothing_is_stored_twice(
    visit: Open, app: App, context: BrowserContext, lacking: str
) -> None:
    context.add_init_script(lacking)  # a browser that lacks keepalive sends a beacon
    tab = visit(app.user)
    for post in app.posts[:7]:
        tab.track("share", post)
    tab.page.close()
    later = visit(app.add_user())
    later.wait_stored(app, share=7)
    again = visit(app.user)
    again.flush()  # the beacon brought no answer, and the page was gone before the other's
    again.until(lambda: again.queued() == [])
    assert app.kinds() == {"share": 7}


HIDDEN = """() => {
  Object.defineProperty(document, 'hidden', {get: () => true, configurable: true});
  document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.mark.parametrize(
    "put_away", [HIDDEN, "() => void window.dispatchEvent(new Event('pagehide'))"], ids=["hidden", "left"]
)
def test_a_page_that_is_put_away_sends_what_it_has(visit: Open, app: App, put_away: str) -> None:
    tab = visit(app.user)
    tab.page.evaluate(NO_TIMERS)
    tab.track("click", app.posts[0])
    # Headless Chromium shows every tab: the events are what a phone's browser would give.
    tab.page.evaluate(put_away)
    tab.wait_stored(app, click=1)
    assert len(tab.calls) == 1


def test_after_a_503_it_waits_and_sends_the_same_again(context: BrowserContext, open_tmp_path: Path) -> None:
    with own_server(open_tmp_path / "postgres") as server:
        settings = settings_for(server.url)
        app = make_app(settings)
        with running_service(settings) as service:
            add_pages(service.app)
            tab = open_posts(context, service.url, app.user)
            server.kill()
            for post in app.posts[:20]:  # the twentieth sends them
                tab.track("click", post)
            tab.until(lambda: len(tab.calls) >= 3)
            assert len(tab.queued()) == 20
            server.start()
            tab.until(lambda: tab.queued() == [])
            assert app.kinds() == {"click": 20}
            assert set(tab.sent_ids) == set(tab.sent_ids[:20])
            gaps = [b - a for a, b in zip(tab.called_at, tab.called_at[1:], strict=False)]
            assert min(gaps) > 0.9, "Retry-After is one second"
        server.stop()


def test_two_tabs_do_not_send_the_same_queue(visit: Open, app: App, context: BrowserContext) -> None:
    tabs = [visit(app.user), visit(app.user)]
    context.set_offline(True)
    for tab in tabs:
        for post in app.posts[:30]:
            tab.track("click", post)
    context.set_offline(False)
    for tab in tabs:
        tab.wait_stored(app, click=60)
        tab.until(lambda tab=tab: tab.queued() == [])  # type: ignore[misc]
    sent = [event_id for tab in tabs for event_id in tab.sent_ids]
    assert len(set(sent)) == 60
    # Each for itself they would send 120. What one tab took off the queue the other sees a moment later.
    assert len(sent) < 110


def test_without_locks_or_storage_it_still_works(visit: Open, app: App, context: BrowserContext) -> None:
    context.add_init_script(
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


def test_the_queue_keeps_the_newest_thousand(visit: Open, app: App, context: BrowserContext) -> None:
    tab = visit(app.user)
    context.set_offline(True)
    tab.page.evaluate(
        "id => { for (let n = 0; n < 1050; n++) page.reco.track('click', id, {n}) }", str(app.posts[0])
    )
    assert len(tab.queued()) == 1000
    context.set_offline(False)
    tab.wait_stored(app, click=1000)
    assert min(metadata["n"] for _, _, metadata in app.stored()) == 50
    assert max(len(call) for call in tab.calls) == 50


def test_one_user_never_sends_what_another_did(visit: Open, app: App) -> None:
    other = app.add_user()
    first = visit(app.user)
    first.track("like", app.posts[0])
    first.close_unable_to_send()
    second = visit(other)
    second.track("click", app.posts[1])
    second.flush()
    second.wait_stored(app, other, click=1)
    assert app.kinds() == {}
    visit(app.user).wait_stored(app, like=1)


def test_an_event_that_is_refused_is_dropped_and_the_others_stored(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.track("like", app.posts[0])
    tab.track("like", app.add_user())  # no post
    tab.track("adore", app.posts[0])  # no type
    tab.flush()
    tab.wait_stored(app, like=1)
    tab.until(lambda: tab.queued() == [])
    assert sorted(tab.page.evaluate("() => page.refused")) == ["unknown_post", "unknown_type"]


def test_a_refusal_names_its_event(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.track("like", app.posts[0])
    tab.page.evaluate("id => page.reco.track('adore', id, {where: 'list'})", str(app.posts[1]))
    tab.flush()
    tab.wait_stored(app, like=1)
    ((refusal,),) = tab.page.evaluate("() => page.refusals")  # one argument each
    assert (refusal["index"], refusal["code"]) == (1, "unknown_type")
    assert "adore" in refusal["message"]
    assert refusal["event"] == tab.calls[0][1]
    assert refusal["event"]["metadata"] == {"where": "list"}


def test_an_event_that_spoils_its_batch_is_found_and_dropped(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.track("click", app.posts[0])
    tab.page.evaluate("user => { localStorage[`reco:${user}:${'0'.repeat(36)}`] = '{broken' }", str(app.user))
    tab.track("click", app.posts[1])
    tab.flush()
    tab.wait_stored(app, click=2)
    tab.until(lambda: tab.queued() == [])
    assert tab.page.evaluate("() => page.refused") == ["bad_json"]


def test_an_event_too_large_for_a_page_to_leave_behind_holds_nothing_up(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.page.evaluate("id => page.reco.track('share', id, {blob: 'x'.repeat(70000)})", str(app.posts[0]))
    tab.track("click", app.posts[1])
    tab.flush()
    tab.wait_stored(app, click=1)
    tab.until(lambda: tab.queued() == [])
    assert tab.page.evaluate("() => page.refused") == ["metadata_too_large"]


@pytest.mark.parametrize("later", [{}, {"later": "1"}], ids=["token", "promise"])
def test_a_token_names_the_user(
    context: BrowserContext, serve: Serve, app: App, later: dict[str, str]
) -> None:
    key = "k" * 32
    service = serve(auth="jwt", jwt_keys=key)
    add_pages(service.app)
    token = jwt.encode({"sub": str(app.user), "exp": 4_000_000_000}, key)
    tab = open_posts(context, service.url, None, token=token, **later)
    tab.track("like", app.posts[0])
    tab.flush()
    tab.wait_stored(app, like=1)
    tab.track("click", app.posts[0])
    tab.page.close()  # the header goes along
    after = open_posts(context, service.url, None, token=token, **later)
    after.wait_stored(app, like=1, click=1)


def test_events_wait_for_a_valid_token(context: BrowserContext, serve: Serve, app: App) -> None:
    key = "k" * 32
    service = serve(auth="jwt", jwt_keys=key)
    add_pages(service.app)
    expired = jwt.encode({"sub": str(app.user), "exp": 1_000_000_000}, key)
    tab = open_posts(context, service.url, app.user, token=expired)
    tab.track("like", app.posts[0])
    tab.flush()
    assert len(tab.calls) == len(tab.queued()) == 1
    tab.page.close()
    valid = jwt.encode({"sub": str(app.user), "exp": 4_000_000_000}, key)
    open_posts(context, service.url, app.user, token=valid).wait_stored(app, like=1)


def test_a_page_of_another_origin_can_use_the_service(
    context: BrowserContext, serve: Serve, app: App
) -> None:
    elsewhere = serve()
    add_pages(elsewhere.app)
    service = serve(cors_origins=elsewhere.url)
    tab = open_posts(context, elsewhere.url, app.user, endpoint=service.url)
    tab.track("like", app.posts[0])
    tab.flush()
    tab.wait_stored(app, like=1)
    tab.track("click", app.posts[0])
    tab.page.close()
    after = open_posts(context, elsewhere.url, app.user, endpoint=service.url)
    after.wait_stored(app, like=1, click=1)


def test_close_sends_what_is_left_and_hears_nothing_more(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:1])
    tab.track("share", app.posts[1])
    tab.page.evaluate("() => page.reco.close()")
    tab.page.click("article button")
    tab.wait_stored(app, share=1)
    tab.page.wait_for_timeout(1500)  # no view either
    tab.flush()
    assert app.kinds() == {"share": 1}


def test_a_tab_in_the_background_views_nothing(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:1])
    tab.page.wait_for_timeout(300)
    tab.page.evaluate(HIDDEN)
    tab.page.wait_for_timeout(1500)
    assert tab.queued() == []
    tab.page.evaluate(HIDDEN.replace("true", "false"))
    tab.page.wait_for_timeout(1500)
    assert len(tab.queued()) == 1


def test_an_element_that_is_let_go_is_not_tracked(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:2])
    tab.page.evaluate("id => page.stops.get(id)()", str(app.posts[0]))
    tab.page.click("article:first-child button")
    tab.page.wait_for_timeout(1500)
    tab.flush()
    tab.wait_stored(app, view=1)
    assert app.stored()[0][1] == app.posts[1]


def test_the_module_adds_nothing_to_the_page(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.page.goto(tab.page.url.replace("posts.html", "empty.html"))
    names = tab.page.evaluate(
        "async () => { const before = new Set(Object.getOwnPropertyNames(window));"
        " (await import('/reco.js')).createReco();"
        " return Object.getOwnPropertyNames(window).filter(name => !before.has(name)) }"
    )
    assert names == []
