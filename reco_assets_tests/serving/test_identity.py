"""Who may do what: keys, tokens, and that nothing else makes a caller somebody."""

import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from reco_assets.errors import SettingsError
from reco_assets.serving.http.identity import Identity
from reco_assets.serving.server import check_address
from reco_assets_tests.serving.conftest import Serve
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import make_world, post, user

KEY, OLD_KEY, OTHER_KEY = "k" * 32, "o" * 32, "x" * 32
ALICE, BOB = user(1), user(2)


def token(subject: Any = ALICE, key: Any = KEY, algorithm: str = "HS256", **claims: Any) -> str:
    payload = {"sub": str(subject), "exp": time.time() + 600, **claims}
    return jwt.encode({k: v for k, v in payload.items() if v is not None}, key, algorithm=algorithm)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}".strip()}


def feed(client: httpx.Client, named: UUID | None = None, **headers: str) -> httpx.Response:
    return client.get("/api/feeds", params={"user_id": str(named)} if named else {}, headers=headers)


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


@pytest.fixture
def world(engine: sa.Engine) -> None:
    make_world(engine)


def test_without_authentication_the_request_names_the_user(serve: Serve, world: None) -> None:
    client = serve().client
    assert feed(client, ALICE).status_code == 200
    assert (feed(client).status_code, code(feed(client))) == (400, "user_id_missing")


def test_a_page_from_elsewhere_cannot_act_for_a_user_of_this_machine(
    serve: Serve, world: None, engine: sa.Engine
) -> None:
    client = serve().client
    body = json.dumps({"user_id": str(ALICE), "post_id": str(post(1)), "interaction_type": "like"})
    plain = {"Content-Type": "text/plain"}  # what a page may send without asking first
    for origin in (
        "https://evil.example",
        "null",
        "http://[",
        "http://127.0.0.1:1",
        f"{client.base_url}.evil.example",
    ):
        answer = client.post("/api/track", content=body, headers={**plain, "Origin": origin})
        assert (answer.status_code, code(answer)) == (403, "foreign_origin")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM user_interactions")) == 0
    own = str(client.base_url).rstrip("/")
    assert client.post("/api/track", content=body, headers={**plain, "Origin": own}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "[::1", "10.0.0.1"])
def test_a_foreign_name_for_this_machine_is_refused(serve: Serve, world: None, host: str) -> None:
    answer = feed(serve().client, ALICE, Host=host)
    assert (answer.status_code, code(answer)) == (403, "foreign_host")


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_names_of_this_machine_are_answered(serve: Serve, world: None, host: str) -> None:
    assert feed(serve().client, ALICE, Host=host).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_without_authentication_no_other_machine_is_served(host: str) -> None:
    with pytest.raises(SettingsError, match="RECO_AUTH"):
        check_address(settings_for("postgresql://h/d", service_host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_without_authentication_loopback_is_allowed(host: str) -> None:
    check_address(settings_for("postgresql://h/d", service_host=host))


def test_with_keys_any_address_is_allowed() -> None:
    check_address(settings_for("postgresql://h/d", service_host="0.0.0.0", auth="api_key", api_keys=(KEY,)))


@pytest.mark.parametrize("key", [KEY, OLD_KEY])
def test_both_keys_are_valid_while_they_rotate(serve: Serve, world: None, key: str) -> None:
    client = serve(auth="api_key", api_keys=(KEY, OLD_KEY)).client
    assert feed(client, ALICE, **{"X-API-Key": key}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"X-API-Key": OTHER_KEY}, {"X-API-Key": ""}, {"X-API-Key": KEY[:-1]}]
)
def test_a_wrong_or_missing_key_is_refused(serve: Serve, world: None, headers: dict[str, str]) -> None:
    client = serve(auth="api_key", api_keys=(KEY,)).client
    answer = feed(client, ALICE, **headers)
    assert (answer.status_code, code(answer)) == (401, "bad_api_key")
    answer = client.post("/api/track", json={"user_id": str(ALICE), "interactions": []}, headers=headers)
    assert answer.status_code == 401


@pytest.mark.parametrize("key", [KEY, OLD_KEY])
def test_the_subject_of_a_token_is_the_user(serve: Serve, world: None, engine: sa.Engine, key: str) -> None:
    client = serve(auth="jwt", jwt_keys=(KEY, OLD_KEY)).client
    body = {"post_id": str(post(1)), "interaction_type": "like"}
    assert client.post("/api/track", json=body, headers=bearer(token(key=key))).status_code == 200
    with engine.connect() as connection:
        assert connection.scalars(sa.text("SELECT user_id FROM user_interactions")).all() == [ALICE]


def test_no_parameter_and_no_field_makes_the_subject_another(
    serve: Serve, world: None, engine: sa.Engine
) -> None:
    client = serve(auth="jwt", jwt_keys=(KEY,)).client
    headers = bearer(token())
    assert feed(client, BOB, **headers).status_code == 403
    assert feed(client, ALICE, **headers).status_code == 200
    event = {"post_id": str(post(1)), "interaction_type": "like"}
    for named in (
        {"user_id": str(BOB), **event},
        {"userId": str(BOB), **event},
        {"userId": str(BOB), "interactions": [event]},
    ):
        answer = client.post("/api/track", json=named, headers=headers)
        assert (answer.status_code, code(answer)) == (403, "other_user")
    for hidden in (
        {"interactions": [{**event, "user_id": str(BOB)}]},
        {"interactions": [{**event, "userId": str(BOB)}]},
    ):
        client.post("/api/track", json=hidden, headers=headers)
    assert client.get(f"/api/recommendations/{BOB}", headers=headers).status_code == 403
    with engine.connect() as connection:
        stored = set(connection.scalars(sa.text("SELECT user_id FROM user_interactions")))
    assert stored <= {ALICE}


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "rubbish",
        "a.b.c",
        "x" * 10_000,
        token(key=OTHER_KEY),
        token(exp=time.time() - 3600),
        token(exp=None),
        token(subject="not-a-uuid"),
        token(nbf=time.time() + 3600),
        jwt.encode({"sub": str(ALICE), "exp": time.time() + 600}, "", algorithm="none"),
        token(algorithm="HS512"),
    ],
)
def test_a_token_that_proves_nothing_is_refused(serve: Serve, world: None, bad: str) -> None:
    answer = feed(serve(auth="jwt", jwt_keys=(KEY,)).client, None, **bearer(bad))
    assert (answer.status_code, code(answer)) == (401, "bad_token")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_audience_and_issuer_are_checked_where_they_are_set(serve: Serve, world: None) -> None:
    client = serve(auth="jwt", jwt_keys=(KEY,), jwt_audience="feed", jwt_issuer="https://app").client
    assert feed(client, None, **bearer(token(aud="feed", iss="https://app"))).status_code == 200
    assert feed(client, None, **bearer(token(aud="other", iss="https://app"))).status_code == 401
    assert feed(client, None, **bearer(token(aud="feed"))).status_code == 401


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_public_keys_check_tokens_and_cannot_make_them(
    serve: Serve, world: None, tmp_path: Path, algorithm: str
) -> None:
    private: Any = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if algorithm == "RS256"
        else ed25519.Ed25519PrivateKey.generate()
    )
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path = tmp_path / "key.pem"
    path.write_bytes(pem)
    client = serve(auth="jwt", jwt_keys=(str(path),), jwt_algorithm=algorithm).client
    assert feed(client, None, **bearer(token(key=private, algorithm=algorithm))).status_code == 200
    # The classic confusion: a token signed with the public key's text as if it were a shared secret.
    forged = _hs256(pem)
    assert feed(client, None, **bearer(forged)).status_code == 401


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"auth": "api_key"}, "RECO_API_KEYS"),
        ({"auth": "jwt"}, "RECO_JWT_KEYS"),
        ({"auth": "jwt", "jwt_keys": ("short",)}, "32"),
        ({"auth": "jwt", "jwt_keys": ("a" * 32, "b" * 32, "c" * 32)}, "3"),
        ({"auth": "jwt", "jwt_keys": ("/nowhere.pem",), "jwt_algorithm": "RS256"}, "/nowhere.pem"),
    ],
)
def test_missing_or_weak_keys_stop_the_start(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Identity(settings_for("postgresql://h/d", **changes))


@pytest.mark.parametrize("kind", ["another", "private"])
def test_a_key_that_does_not_fit_stops_the_start(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key.pem"
    if kind == "another":
        public = ed25519.Ed25519PrivateKey.generate().public_key()
        path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    else:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(SettingsError, match=r"key\.pem"):
        Identity(settings_for("postgresql://h/d", auth="jwt", jwt_keys=(str(path),), jwt_algorithm="RS256"))


def test_other_origins_are_closed_unless_listed(serve: Serve, world: None) -> None:
    closed, listed = serve().client, serve(cors_origins=("https://app.example",)).client
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in closed.options("/api/track", headers=preflight).headers
    answer = listed.options("/api/track", headers=preflight)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    answer = listed.options("/api/track", headers={**preflight, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


def _hs256(secret: bytes) -> str:
    """A token as an attacker builds it: PyJWT itself refuses to sign with a public key."""
    import base64
    import hashlib
    import hmac
    import json

    def part(raw: bytes) -> bytes:
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    head = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    body = part(json.dumps({"sub": str(ALICE), "exp": time.time() + 600}).encode())
    signature = part(hmac.new(secret, head + b"." + body, hashlib.sha256).digest())
    return (head + b"." + body + b"." + signature).decode()
