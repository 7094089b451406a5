"""What is tracked, what an event says, and what becomes of one that is refused."""

import re
from uuid import UUID

from reco_assets_tests.browser.conftest import App, Open


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
    tab.wait_called(5)
    assert [event["post_id"] for event in tab.calls[0]] == [str(post) for post in app.posts[:5]]
    assert len(set(ids)) == 5


def test_an_event_that_is_refused_is_dropped_and_the_others_stored(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.track("like", app.posts[0])
    tab.track("like", app.add_user())  # no post
    tab.track("adore", app.posts[0])  # no type
    tab.flush()
    tab.wait_stored(app, like=1)
    tab.wait_sent()
    tab.until(lambda: sorted(tab.page.evaluate("() => page.refused")) == ["unknown_post", "unknown_type"])


def test_a_refusal_names_its_event(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.track("like", app.posts[0])
    tab.page.evaluate("id => page.reco.track('adore', id, {where: 'list'})", str(app.posts[1]))
    tab.flush()
    tab.wait_stored(app, like=1)
    tab.wait_sent()
    tab.until(lambda: len(tab.page.evaluate("() => page.refusals")) == 1)
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
    tab.until(lambda: tab.queued() == [], passing_s=0.1)
    tab.wait_stored(app, click=2)
    tab.until(lambda: tab.page.evaluate("() => page.refused") == ["bad_json"])


def test_an_event_too_large_for_a_page_to_leave_behind_holds_nothing_up(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.page.evaluate("id => page.reco.track('share', id, {blob: 'x'.repeat(70000)})", str(app.posts[0]))
    tab.track("click", app.posts[1])
    tab.flush()
    tab.wait_stored(app, click=1)
    tab.wait_sent()
    tab.until(lambda: tab.page.evaluate("() => page.refused") == ["metadata_too_large"])


def test_close_sends_what_is_left_and_hears_nothing_more(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:1])
    tab.track("share", app.posts[1])
    tab.page.evaluate("() => page.reco.close()")
    tab.wait_stored(app, share=1)
    tab.wait_sent()
    tab.page.click("article button")
    tab.settle()
    tab.let_pass(1.5)  # no view either
    assert tab.queued() == []
    assert app.kinds() == {"share": 1}


def test_the_module_adds_nothing_to_the_page(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.page.goto(tab.page.url.replace("posts.html", "empty.html"))
    names = tab.page.evaluate(
        "async () => { const before = new Set(Object.getOwnPropertyNames(window));"
        " (await import('/reco.js')).createReco();"
        " return Object.getOwnPropertyNames(window).filter(name => !before.has(name)) }"
    )
    assert names == []
