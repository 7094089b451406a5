"""The browser client as it is served: types, caching, size, and where the demo is not."""

import gzip
import re
from pathlib import Path

import pytest

from reco_assets.serving.routes.client_files import STATIC
from reco_assets_tests.serving.conftest import RunningService, Serve


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/reco.js", "text/javascript; charset=utf-8"),
        ("/react.js", "text/javascript; charset=utf-8"),
        ("/reco.d.ts", "text/plain; charset=utf-8"),
        ("/react.d.ts", "text/plain; charset=utf-8"),
        ("/demo", "text/html; charset=utf-8"),
        ("/demo/demo.js", "text/javascript; charset=utf-8"),
        ("/demo/demo.css", "text/css; charset=utf-8"),
        ("/demo/icon.svg", "image/svg+xml"),
    ],
)
def test_files_have_their_types_and_are_not_sent_again(
    service: RunningService, path: str, content_type: str
) -> None:
    answer = service.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
    assert answer.headers["cache-control"] in ("public, max-age=300", "no-cache")
    again = service.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert service.client.head(path).status_code == 200


def test_the_client_is_under_4_kb_compressed(service: RunningService) -> None:
    assert len(gzip.compress(service.client.get("/reco.js").content, mtime=0)) < 4096


def test_every_file_is_served(service: RunningService) -> None:
    files = [path.relative_to(STATIC) for path in STATIC.rglob("*") if path.is_file()]
    assert len(files) >= 9
    for file in files:
        assert service.client.get(f"/{file}").content == (STATIC / file).read_bytes()


def test_the_demo_runs_no_script_but_its_own(service: RunningService) -> None:
    policy = service.client.get("/demo").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    pages = "".join(path.read_text() for path in STATIC.rglob("*") if path.suffix in (".html", ".css", ".js"))
    assert re.findall(r"<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=\"", pages) == []
    assert set(re.findall(r"https?://[^\s\"'`)]+", pages)) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize(
    "changes",
    [
        {"demo_page": False},
        {"auth": "api_key", "api_keys": "0123456789abcdef"},
        {"auth": "jwt", "jwt_keys": "0123456789abcdef0123456789abcdef"},
    ],
)
def test_there_is_no_demo_where_users_are_real(serve: Serve, changes: dict[str, object]) -> None:
    client = serve(**changes).client
    headers = {"X-API-Key": "0123456789abcdef"}
    for path in ("/demo", "/demo/demo.js", "/demo/users", "/demo/index.html"):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_demo")
    assert client.get("/reco.js").status_code == 200


@pytest.mark.parametrize(
    "path", ["/demo/..%2freco.js", "/demo/%2e%2e/app.py", "/demo/nothing.js", "/demo/..;"]
)
def test_no_path_leads_out_of_the_demo(service: RunningService, path: str) -> None:
    assert service.client.get(path).status_code == 404


def test_the_types_name_what_the_modules_export() -> None:
    for name in ("reco", "react"):
        module = (STATIC / f"{name}.js").read_text()
        types = (STATIC / f"{name}.d.ts").read_text()
        exported = re.findall(r"^export (?:async )?(?:function|const) (\w+)", module, re.MULTILINE)
        assert exported
        assert exported == sorted(
            re.findall(r"^export function (\w+)", types, re.MULTILINE), key=exported.index
        )


def test_the_types_name_the_clients_methods() -> None:
    body = re.search(r"^export interface Reco \{\n(.*?)^\}", _read("reco.d.ts"), re.MULTILINE | re.DOTALL)
    returned = re.search(r"return \{ (track[\w, ]+) \};", _read("reco.js"))
    assert body
    assert returned
    assert set(re.findall(r"^  (\w+)\(", body[1], re.MULTILINE)) == set(returned[1].split(", "))


def _read(name: str) -> str:
    return Path(STATIC / name).read_text()


def test_the_root_leads_to_the_demo_where_there_is_one(serve: Serve) -> None:
    answer = serve().client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/demo")
    assert serve(demo_page=False).client.get("/").status_code == 404
