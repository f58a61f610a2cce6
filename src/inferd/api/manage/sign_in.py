"""Signing in and out as JSON: sessions and passwords."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from inferd.access.sessions import NewSession, person_of
from inferd.access.sign_in import LOGIN_CHARACTERS_MAX
from inferd.api import inference
from inferd.api.body import check_media_type, decode
from inferd.api.credential import is_from_own_page, own_origin, session_secret
from inferd.api.exchange import Exchange
from inferd.api.routes import Access, Endpoint, Route
from inferd.api.services import Services
from inferd.errors import Forbidden, NotFound, Unauthorized
from inferd.storage import people
from inferd.storage.sign_in import SessionRow

SMALL_BODY_BYTES_MAX = 8192
_STRANGERS = "strangers"
"""Whose the bodies of those are who are not signed in yet."""

Word = Annotated[str, Meta(max_length=LOGIN_CHARACTERS_MAX)]


class SignInIn(msgspec.Struct, frozen=True):
    """Name and password."""

    login: Word
    password: Word


class SessionIn(msgspec.Struct, frozen=True):
    """Which account to work in."""

    account_id: Annotated[str, Meta(max_length=64)]


class PasswordIn(msgspec.Struct, frozen=True):
    """A change of one's own password."""

    current: Word
    new: Word


class PasswordResetIn(msgspec.Struct, frozen=True):
    """Whose password is made anew."""

    login: Word


class PasswordOut(msgspec.Struct, frozen=True):
    """A password that was made here; shown once."""

    login: str
    password: str


class AccountOut(msgspec.Struct, frozen=True):
    """An account that the person may work in."""

    account_id: str
    name: str
    kind: str
    role: str


class SessionOut(msgspec.Struct, frozen=True, kw_only=True):
    """Who is signed in, and where he works."""

    session_id: str
    person_id: str
    name: str
    email: str | None
    account_id: str
    accounts: list[AccountOut]
    scopes: list[str]


class SessionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One browser that is signed in."""

    session_id: str
    provider: str
    address: str
    created_at: str
    seen_at: str
    expires_at: str
    current: bool


class SessionList(msgspec.Struct, frozen=True):
    """A person's sessions."""

    sessions: list[SessionEntry]


_SIGN_IN = msgspec.json.Decoder(SignInIn)
_SESSION = msgspec.json.Decoder(SessionIn)
_PASSWORD = msgspec.json.Decoder(PasswordIn)
_RESET = msgspec.json.Decoder(PasswordResetIn)


def from_our_page(exchange: Exchange, services: Services) -> bool:
    """True if a page of ours, or a plain visit, sent the request."""
    public = services.options.own_origin
    own = own_origin(public, exchange.headers, secure=exchange.secure)
    return is_from_own_page(exchange.method, exchange.headers, own)


async def small_body(exchange: Exchange, services: Services) -> bytes:
    """The body of a call that needs no credential. Refuses pages of other sites."""
    if b"origin" in exchange.headers and not from_our_page(exchange, services):
        raise Forbidden("Another site's page may not sign anybody in.")
    holding = services.bodies.hold(_STRANGERS)
    try:
        return await exchange.body(
            bytes_max=SMALL_BODY_BYTES_MAX,
            seconds_max=services.options.body_seconds_max,
            holding=holding,
        )
    finally:
        holding.release()


def session_cookie(exchange: Exchange, services: Services, secret: str) -> tuple[bytes, bytes]:
    """Set-Cookie: the session; an empty secret takes it away."""
    seconds = round(services.sessions.seconds_max) if secret else 0
    return set_cookie(exchange, services, ("session", secret, "/"), seconds)


def set_cookie(
    exchange: Exchange, services: Services, cookie: tuple[str, str, str], seconds: int
) -> tuple[bytes, bytes]:
    """Set-Cookie for (name, value, path): out of scripts' reach, and of other sites' forms."""
    name, value, path = cookie
    parts = [f"{name}={value}", f"Path={path}", f"Max-Age={seconds}", "HttpOnly", "SameSite=Lax"]
    if exchange.secure or services.options.public_url.startswith("https:"):
        parts.append("Secure")
    return b"set-cookie", "; ".join(parts).encode()


async def end_session_of(exchange: Exchange, services: Services) -> None:
    """End the session that the request still shows, if any: a browser has one at a time."""
    secret = session_secret(exchange.headers)
    if secret is None:
        return
    try:
        caller = await services.sessions.authenticate(secret)
        await services.sessions.end(caller, caller.token_id)
    except (Unauthorized, NotFound):
        return


async def sign_in(exchange: Exchange, services: Services) -> None:
    """POST /v1/sign-in."""
    check_media_type(exchange.headers.get(b"content-type"))
    wire = decode(await small_body(exchange, services), _SIGN_IN)
    session = await services.sign_in.with_password(wire.login, wire.password, exchange.address)
    await end_session_of(exchange, services)
    await _respond_session(exchange, services, session)


async def _respond_session(exchange: Exchange, services: Services, session: NewSession) -> None:
    exchange.caller = await services.sessions.authenticate(session.secret)
    body = await _session_out(exchange, services)
    cookie = session_cookie(exchange, services, session.secret)
    await exchange.respond(200, msgspec.json.encode(body), [cookie])


async def _session_out(exchange: Exchange, services: Services) -> SessionOut:
    caller = exchange.caller
    person_id = person_of(caller)
    async with services.database.reading() as connection:
        person = await people.by_id(connection, person_id)
        memberships = await people.memberships(connection, person_id)
    if person is None:
        raise NotFound("The person does not exist any more.")
    return SessionOut(
        session_id=caller.token_id,
        person_id=person.id,
        name=person.name,
        email=person.email,
        account_id=caller.account_id,
        accounts=[
            AccountOut(account.id, account.name, account.kind, role)
            for account, role in memberships
        ],
        scopes=sorted(caller.scopes),
    )


async def show_session(exchange: Exchange, services: Services) -> None:
    """GET /v1/session."""
    await exchange.respond(200, msgspec.json.encode(await _session_out(exchange, services)))


async def move_session(exchange: Exchange, services: Services) -> None:
    """POST /v1/session: work in another account."""
    wire = await inference.read(exchange, services, _SESSION)
    await services.sessions.move(exchange.caller, wire.account_id)
    secret = session_secret(exchange.headers)
    exchange.caller = await services.sessions.authenticate(secret or "")
    await exchange.respond(200, msgspec.json.encode(await _session_out(exchange, services)))


async def sign_out(exchange: Exchange, services: Services) -> None:
    """POST /v1/sign-out."""
    caller = exchange.caller
    await services.sessions.end(caller, caller.token_id)
    await exchange.respond(200, b"{}", [session_cookie(exchange, services, "")])


async def list_sessions(exchange: Exchange, services: Services) -> None:
    """GET /v1/sessions."""
    caller = exchange.caller
    rows = await services.sessions.list(person_of(caller))
    body = SessionList([_entry(row, caller.token_id) for row in rows])
    await exchange.respond(200, msgspec.json.encode(body))


def _entry(row: SessionRow, current: str) -> SessionEntry:
    return SessionEntry(
        session_id=row.id,
        provider=row.provider,
        address=row.address,
        created_at=_iso(row.created_unix_ns),
        seen_at=_iso(row.seen_unix_ns),
        expires_at=_iso(row.expires_unix_ns),
        current=row.id == current,
    )


def _iso(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).isoformat(timespec="seconds")


async def end_session(exchange: Exchange, services: Services) -> None:
    """DELETE /v1/sessions/{id}."""
    await services.sessions.end(exchange.caller, exchange.rest)
    await exchange.respond(200, b"{}")


async def change_password(exchange: Exchange, services: Services) -> None:
    """PUT /v1/password."""
    wire = await inference.read(exchange, services, _PASSWORD)
    await services.sign_in.change_password(
        exchange.caller, wire.current, wire.new, exchange.address
    )
    await exchange.respond(200, b"{}")


async def reset_password(exchange: Exchange, services: Services) -> None:
    """POST /v1/admin/password."""
    wire = await inference.read(exchange, services, _RESET)
    password = await services.sign_in.reset_password(exchange.caller, wire.login)
    body = PasswordOut(wire.login.strip().lower(), password)
    await exchange.respond(200, msgspec.json.encode(body))


_Row = tuple[str, str, Endpoint, Access, str, type | None, type | None]


def sign_in_routes() -> list[Route]:
    """What people call to come in, and once they are in."""
    rows: list[_Row] = [
        ("POST", "/v1/sign-in", sign_in, "public", "Sign in with a password", SignInIn, SessionOut),
        ("POST", "/v1/sign-out", sign_out, "token", "End the session", None, None),
        ("GET", "/v1/session", show_session, "token", "Who is signed in", None, SessionOut),
        ("POST", "/v1/session", move_session, "token", "Change account", SessionIn, SessionOut),
        ("GET", "/v1/sessions", list_sessions, "token", "One's sessions", None, SessionList),
        ("DELETE", "/v1/sessions/{rest}", end_session, "token", "End a session", None, None),
        ("PUT", "/v1/password", change_password, "token", "Change password", PasswordIn, None),
        (
            "POST",
            "/v1/admin/password",
            reset_password,
            "admin",
            "Make somebody's password anew",
            PasswordResetIn,
            PasswordOut,
        ),
    ]
    return [
        Route(method, path, endpoint, access, "native", summary, takes, gives)
        for method, path, endpoint, access, summary, takes, gives in rows
    ]
