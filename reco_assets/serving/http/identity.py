"""Who is asking, and for whom.

With `api_key` a trusted backend names the user. With `jwt` the user is the token's subject, and nothing
else in the request can make it another. With `none` anybody names anybody, which is why the service then
listens on loopback only (`server.py`).
"""

import hmac
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from starlette.requests import HTTPConnection

from reco_assets.errors import SettingsError
from reco_assets.serving.http.problems import Problem
from reco_assets.settings import Settings

if TYPE_CHECKING:
    from reco_assets.serving.service import Service

API_KEY_HEADER: Final = "X-API-Key"
SOCKET_PROTOCOL: Final = "reco.bearer"
"""A browser can send no header with a WebSocket: it offers this protocol, followed by its token."""

_CLOCK_LEEWAY_S: Final = 30
_LONGEST_TOKEN: Final = 8192
_END_OF_TIME: Final = 2**40


class Session(NamedTuple):
    """For whom a connection acts, and until when: seconds since 1970, None without an end."""

    user: UUID
    ends_at: float | None


class Identity:
    """The checks of one `RECO_AUTH`.

    Raises:
        SettingsError: keys that the mode needs are missing or unreadable.
    """

    def __init__(self, settings: Settings) -> None:
        self.mode = settings.auth
        self._origins = frozenset(settings.cors_origins)
        self._api_keys = tuple(key.encode() for key in settings.api_keys)
        self._algorithm = settings.jwt_algorithm
        self._audience, self._issuer = settings.jwt_audience, settings.jwt_issuer
        self._jwt_keys: tuple[Any, ...] = ()
        if self.mode == "api_key" and not self._api_keys:
            raise SettingsError("RECO_AUTH = api_key needs RECO_API_KEYS: one or two keys, by a comma.")
        if self.mode == "jwt":
            self._jwt_keys = _verification_keys(settings)

    def user(self, connection: HTTPConnection, named: UUID | None) -> UUID:
        """The user that the request is for.

        Args:
            connection: a request or a WebSocket.
            named: whom a parameter or the body names.

        Raises:
            Problem: 401 without valid credentials, 403 for another user than the token's subject, 400 when
                nobody is named.
        """
        return self.session(connection, named).user

    def session(self, connection: HTTPConnection, named: UUID | None) -> Session:
        """As `user`, for a connection that lives on: it must end when its token would be refused."""
        if self.mode == "jwt":
            session = self._session(_bearer(connection))
            if named is not None and named != session.user:
                raise Problem(
                    403, "other_user", "The user named is not the token's subject. Name that one, or nobody."
                )
            return session
        self.admit(connection)
        if named is None:
            raise Problem(
                400,
                "user_id_missing",
                "No user_id. Name the user, or let users bring a token (RECO_AUTH=jwt).",
            )
        return Session(named, None)

    def admit(self, connection: HTTPConnection) -> None:
        """Check the credentials of a caller who need not name a user.

        Without authentication a web page from elsewhere, open in a browser on this machine, is the caller to
        fear: it may send what needs no preflight, or come in under a name of its own that leads here.

        Raises:
            Problem: 401 without valid credentials, 403 for a page from elsewhere.
        """
        if self.mode == "none":
            _check_host(connection)
            self.check_page(connection)
        elif self.mode == "api_key":
            given = connection.headers.get(API_KEY_HEADER, "").encode("latin-1", "replace")
            # Every key is compared, always: the time tells nothing about which one is nearly right.
            if not sum([hmac.compare_digest(given, key) for key in self._api_keys]):
                raise Problem(401, "bad_api_key", f"The header {API_KEY_HEADER} holds no valid key.")
        elif self.mode == "jwt":
            self._session(_bearer(connection))

    def check_page(self, connection: HTTPConnection) -> None:
        """Admit pages of this service and of RECO_CORS_ORIGINS, and callers that are no pages.

        Raises:
            Problem: 403.
        """
        origin = connection.headers.get("Origin")
        if origin is None or origin in self._origins:
            return
        try:
            netloc = urlsplit(origin).netloc
            own = bool(netloc) and netloc == connection.headers.get("Host")
        except ValueError:  # no address at all
            own = False
        if not own:
            raise Problem(
                403, "foreign_origin", f"Pages of {origin[:200]} may not call; see RECO_CORS_ORIGINS."
            )

    @property
    def names_anybody(self) -> bool:
        """Whether the caller is trusted with every user's data."""
        return self.mode != "jwt"

    def _session(self, token: str) -> Session:
        import jwt

        if not token or len(token) > _LONGEST_TOKEN:
            raise _no_token("No bearer token in the header Authorization.")
        failure: Exception | None = None
        for key in self._jwt_keys:
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[self._algorithm],  # the one of the settings, whatever the token says
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=_CLOCK_LEEWAY_S,
                    options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
                )
            except (jwt.PyJWTError, OverflowError) as error:  # exp may be any number
                failure = failure if isinstance(failure, jwt.ExpiredSignatureError) else error
                continue
            try:
                user = UUID(claims["sub"])
            except (ValueError, AttributeError, TypeError):
                raise _no_token("The token's subject is not a user id (UUID).") from None
            return Session(user, float(min(int(claims["exp"]), _END_OF_TIME) + _CLOCK_LEEWAY_S))
        if isinstance(failure, jwt.ExpiredSignatureError):
            raise _no_token("The token has expired. Get a new one.")
        raise _no_token(f"The token is not valid here: {failure}.")


def acting_session(connection: HTTPConnection, named: UUID | None) -> Session:
    """For whom a WebSocket is, and until when; see `Identity.session`."""
    service: Service = connection.app.state.service
    return service.identity.session(connection, named)


def acting_user(connection: HTTPConnection, named: UUID | None) -> UUID:
    """The user that a request or a WebSocket is for; see `Identity.user`."""
    service: Service = connection.app.state.service
    return service.identity.user(connection, named)


def _check_host(connection: HTTPConnection) -> None:
    """A name from elsewhere that leads to this machine would make its pages ours (DNS rebinding)."""
    host = connection.headers.get("Host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
        local = name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        local = False
    if not local:
        raise Problem(
            403,
            "foreign_host",
            f"Without authentication the service answers to 127.0.0.1 and localhost only, not to "
            f"{host[:200]!r}. Set RECO_AUTH to serve others.",
        )


def _bearer(connection: HTTPConnection) -> str:
    scheme, _, token = connection.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    offered = [part.strip() for part in connection.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if connection.scope["type"] == "websocket" and len(offered) == 2 and offered[0] == SOCKET_PROTOCOL:
        return offered[1]
    return ""


def _no_token(message: str) -> Problem:
    return Problem(401, "bad_token", message, {"WWW-Authenticate": "Bearer"})


def _verification_keys(settings: Settings) -> tuple[Any, ...]:
    if not 1 <= len(settings.jwt_keys) <= 2:
        raise SettingsError(
            f"RECO_AUTH = jwt needs one or two RECO_JWT_KEYS, separated by a comma; there are "
            f"{len(settings.jwt_keys)}."
        )
    if settings.jwt_algorithm == "HS256":
        for key in settings.jwt_keys:
            if len(key.encode()) < 32:
                raise SettingsError(
                    f"A key of RECO_JWT_KEYS has {len(key.encode())} bytes; HS256 needs 32 (RFC 7518)."
                )
        return settings.jwt_keys
    import jwt

    algorithm = jwt.get_algorithm_by_name(settings.jwt_algorithm)
    keys = []
    for path in settings.jwt_keys:
        try:
            key = algorithm.prepare_key(Path(path).read_bytes())
        # A key of another kind is a TypeError, or an InvalidKeyError, depending on the algorithm.
        except (OSError, ValueError, TypeError, jwt.PyJWTError) as error:
            raise SettingsError(
                f"RECO_JWT_KEYS names {path!r}, which is no readable PEM public key for "
                f"{settings.jwt_algorithm}: {error}."
            ) from None
        if hasattr(key, "private_numbers") or hasattr(key, "private_bytes"):
            raise SettingsError(
                f"RECO_JWT_KEYS names {path!r}, which is a private key. Name the public one, which cannot "
                "make tokens."
            )
        keys.append(key)
    return tuple(keys)
