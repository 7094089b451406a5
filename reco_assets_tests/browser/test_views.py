"""When a post counts as viewed."""

from reco_assets.settings import Settings
from reco_assets_tests.browser.conftest import HIDDEN, App, Open, make_app


def test_a_view_is_half_of_a_post_for_a_second_and_counts_once(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:6])  # 200 px each on a screen of 800: the first four
    tab.settle()
    tab.let_pass(0.6)
    tab.scroll_away()  # before a second is over: only what stays counts
    tab.let_pass(0.399)
    assert tab.viewed() == []
    tab.let_pass(0.001)
    assert tab.viewed() == app.posts[2:4]
    tab.let_pass(0.6)
    assert tab.viewed() == app.posts[2:6]
    tab.page.evaluate("() => scrollTo(0, 0)")
    tab.settle()
    tab.let_pass(0.999)
    assert tab.viewed() == app.posts[2:6]
    tab.let_pass(0.001)
    assert set(tab.viewed()) == set(app.posts[:6])
    tab.scroll_away()
    tab.let_pass(1.5)
    tab.flush()
    tab.wait_stored(app, view=6)
    assert {post for _, post, _ in app.stored()} == set(app.posts[:6])


def test_a_post_that_is_shown_twice_is_viewed_once(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show([app.posts[0], app.posts[1], app.posts[0]])
    tab.settle()
    tab.let_pass(1.5)
    tab.flush()
    tab.wait_stored(app, view=2)


def test_a_glance_is_no_view(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:12])
    tab.settle()
    tab.let_pass(0.9)
    tab.scroll_away()
    tab.let_pass(1.6)
    assert tab.viewed()
    assert not set(tab.viewed()) & set(app.posts[:4])


def test_a_post_taller_than_two_screens_is_viewed_when_it_fills_half_of_one(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:1], "tall")
    tab.settle()
    tab.let_pass(1)
    assert tab.viewed() == app.posts[:1]


def test_a_page_of_100_views_makes_at_most_6_calls(visit: Open, settings: Settings) -> None:
    app = make_app(settings, n_posts=100)
    tab = visit(app.user)
    tab.show(app.posts, "small")
    tab.settle()
    tab.let_pass(1)
    tab.wait_stored(app, view=100)
    tab.until(lambda: sum(tab.sizes) >= 100)
    assert len(tab.calls) <= 6
    assert len(set(tab.sent_ids)) == len(tab.sent_ids) == 100


def test_scrolling_through_100_posts_makes_at_most_6_calls(visit: Open, settings: Settings) -> None:
    app = make_app(settings, n_posts=100)
    tab = visit(app.user)
    tab.page.set_viewport_size({"width": 1000, "height": 2000})
    tab.show(app.posts)
    for screen in range(11):
        tab.page.evaluate("y => scrollTo(0, y)", 1900 * screen)
        tab.settle()
        tab.let_pass(1.2)
        # Twenty go at once. The service has to answer while the user still reads this screen.
        tab.until(lambda: len(tab.queued()) < 20)
    tab.let_pass(5)
    tab.wait_stored(app, view=100)
    tab.until(lambda: sum(tab.sizes) >= 100)
    assert len(tab.calls) <= 6


def test_a_tab_in_the_background_views_nothing(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:1])
    tab.settle()
    tab.let_pass(0.3)
    tab.page.evaluate(HIDDEN)
    tab.settle()
    tab.let_pass(1.5)
    assert tab.viewed() == []
    tab.page.evaluate(HIDDEN.replace("true", "false"))
    tab.settle()
    tab.let_pass(1)
    assert tab.viewed() == app.posts[:1]


def test_an_element_that_is_let_go_is_not_tracked(visit: Open, app: App) -> None:
    tab = visit(app.user)
    tab.show(app.posts[:2])
    tab.page.evaluate("id => page.stops.get(id)()", str(app.posts[0]))
    tab.page.click("article:first-child button")
    tab.settle()
    tab.let_pass(1.5)
    tab.flush()
    tab.wait_stored(app, view=1)
    assert app.stored()[0][1] == app.posts[1]
