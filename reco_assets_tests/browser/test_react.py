"""The hook, with React itself."""

from typing import Any

from reco_assets_tests.browser.conftest import App, Open, Visit


def _render(tab: Visit, posts: list[dict[str, Any]], class_name: str = "") -> None:
    tab.page.evaluate("([posts, kind]) => page.render(posts, kind)", [posts, class_name])
    tab.page.wait_for_function(
        "([n, kind]) => document.querySelectorAll('article').length === n"
        " && [...document.querySelectorAll('article')].every(post => post.className === kind)",
        arg=[len(posts), class_name],
    )


def _posts(app: App, n: int) -> list[dict[str, Any]]:
    return [
        {"post_id": str(post), "title": "Like", "tracking": {"request_id": "r1", "rank": rank}}
        for rank, post in enumerate(app.posts[:n], start=1)
    ]


def test_a_component_is_viewed_once_however_often_it_renders(visit: Open, app: App) -> None:
    tab = visit(app.user, name="react")
    posts = _posts(app, 3)
    for name in ("a", "b", "c"):
        _render(tab, posts, name)
        tab.settle()
        tab.let_pass(0.5)  # a render in between does not begin the second anew
    tab.flush()
    tab.wait_stored(app, view=3)
    assert tab.page.evaluate("() => page.renders()") >= 9
    assert {metadata["rank"] for _, _, metadata in app.stored()} == {1, 2, 3}
    assert tab.problems == []


def test_a_component_tracks_marked_buttons_and_what_it_is_told(visit: Open, app: App) -> None:
    tab = visit(app.user, name="react")
    _render(tab, _posts(app, 1))
    tab.page.click(".like")
    tab.page.click("text=Share")
    tab.flush()
    tab.wait_stored(app, like=1, share=1)
    like, share = (metadata for _, _, metadata in app.stored())
    assert (like["rank"], share["rank"], share["where"]) == (1, 1, "menu")


def test_a_component_that_is_gone_is_not_tracked(visit: Open, app: App) -> None:
    tab = visit(app.user, name="react")
    posts = _posts(app, 2)
    _render(tab, posts)
    _render(tab, posts[1:])
    tab.settle()
    tab.let_pass(1.4)
    tab.flush()
    tab.wait_stored(app, view=1)
    assert app.stored()[0][1] == app.posts[1]


def test_a_component_that_gets_another_answer_says_so_in_its_events(visit: Open, app: App) -> None:
    tab = visit(app.user, name="react")
    posts = _posts(app, 1)
    _render(tab, posts)
    posts[0]["tracking"] = {"request_id": "r2", "rank": 9}
    _render(tab, posts, "again")
    tab.page.click(".like")
    tab.flush()
    tab.wait_stored(app, like=1)
    assert app.stored()[0][2]["request_id"] == "r2"
