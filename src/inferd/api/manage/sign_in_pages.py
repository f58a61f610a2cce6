"""Signing in with a browser: the form, the way to a provider and back, command line tools.

No script and no resource from elsewhere; every form is answered for our own pages alone.
"""

from __future__ import annotations

import asyncio
from functools import cache
from ipaddress import ip_address
from urllib.parse import parse_qs, quote

import msgspec
from jinja2 import Environment, PackageLoader, select_autoescape

from inferd.access.caller import Caller
from inferd.access.provider_sign_in import SECONDS_MAX, Arrival
from inferd.access.sessions import person_of
from inferd.api.credential import cookie, session_secret
from inferd.api.exchange import Exchange
from inferd.api.manage.sign_in import (
    end_session_of,
    from_our_page,
    session_cookie,
    set_cookie,
    small_body,
)
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import (
    BadRequest,
    FetchTimedOut,
    Forbidden,
    InferdError,
    TooManyRequests,
    Unauthorized,
)
from inferd.storage import accounts, people

HOME = "/sign-in"
CALLBACK = "/callback"
BROWSER_COOKIE = "sign_in"
RETURN_CHARACTERS_MAX = 512
TOOL_SECONDS_MAX = 240
"""How long a command line tool may wait for its person; deepctl gives up after 300 s."""
TOOL_PAUSE_SECONDS = 0.5
TOOLS_WAITING_MAX = 64
_CSP = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    b"frame-ancestors 'none'",
)
_HTML = (b"content-type", b"text/html; charset=utf-8")
_NO_STORE = (b"cache-control", b"no-store")
_NO_REFERRER = (b"referrer-policy", b"no-referrer")


class AccessToken(msgspec.Struct, frozen=True):
    """What a command line tool gets."""

    access_token: str


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("inferd.api"), autoescape=select_autoescape(default=True)
    )


async def _page(exchange: Exchange, status: int, name: str, **values: object) -> None:
    page = _environment().get_template(name).render(**values).encode()
    await exchange.respond(status, page, [_HTML, _CSP, _NO_STORE, _NO_REFERRER])


async def _go(exchange: Exchange, url: str, *headers: tuple[bytes, bytes]) -> None:
    location = (b"location", url.encode())
    await exchange.respond(303, b"", [location, _NO_STORE, _NO_REFERRER, *headers])


def _query(exchange: Exchange) -> dict[str, str]:
    return _first(exchange.query.decode("latin-1"))


def _first(text: str) -> dict[str, str]:
    try:
        parsed = parse_qs(text, max_num_fields=32)
    except ValueError:
        raise BadRequest("Too many fields.") from None
    return {name: values[0] for name, values in parsed.items()}


def local_path(given: str | None) -> str:
    """A path of this site, and nothing else; HOME for anything else."""
    if given is None or len(given) > RETURN_CHARACTERS_MAX or not given.startswith("/"):
        return HOME
    strange = "\\" in given or any(not " " < c < "\x7f" for c in given)
    return HOME if strange or given.startswith("//") else given


async def _signed_in(exchange: Exchange, services: Services) -> Caller | None:
    secret = session_secret(exchange.headers)
    if secret is None:
        return None
    try:
        return await services.sessions.authenticate(secret)
    except Unauthorized:
        return None


async def sign_in_page(exchange: Exchange, services: Services) -> None:
    """GET /sign-in?return_to=."""
    caller = await _signed_in(exchange, services)
    if caller is None:
        await _form(exchange, services, local_path(_query(exchange).get("return_to")))
        return
    async with services.database.reading() as connection:
        person = await people.by_id(connection, person_of(caller))
    name = "" if person is None else person.name
    account = await _account_name(services, caller)
    await _page(exchange, 200, "sign_in.html", person=name, account=account)


async def _form(
    exchange: Exchange, services: Services, return_to: str, error: InferdError | None = None
) -> None:
    await _page(
        exchange,
        200 if error is None else error.status,
        "sign_in.html",
        ways=list(services.provider_sign_in.titles().items()),
        return_to=return_to,
        problem=error.message if error else "",
    )


async def _account_name(services: Services, caller: Caller) -> str:
    async with services.database.reading() as connection:
        account = await accounts.by_id(connection, caller.account_id)
    return "" if account is None else account.name


async def sign_in_form(exchange: Exchange, services: Services) -> None:
    """POST /sign-in: the form's answer."""
    fields = _first((await small_body(exchange, services)).decode("utf-8", "replace"))
    return_to = local_path(fields.get("return_to"))
    login, password = fields.get("login", ""), fields.get("password", "")
    try:
        session = await services.sign_in.with_password(login, password, exchange.address)
    except (Unauthorized, TooManyRequests) as error:
        await _form(exchange, services, return_to, error)
        return
    await end_session_of(exchange, services)
    await _go(exchange, return_to, session_cookie(exchange, services, session.secret))


async def sign_out_form(exchange: Exchange, services: Services) -> None:
    """POST /sign-out."""
    if not from_our_page(exchange, services):
        raise Forbidden("Another site's page may not sign anybody out.")
    await end_session_of(exchange, services)
    await _go(exchange, HOME, session_cookie(exchange, services, ""))


async def provider(exchange: Exchange, services: Services) -> None:
    """GET /sign-in/{provider} and /sign-in/{provider}/callback."""
    name = exchange.rest.removesuffix(CALLBACK)
    back = exchange.rest != name
    try:
        await (_come_back if back else _go_out)(exchange, services, name)
    except InferdError as error:
        if exchange.status:
            raise
        await _form(exchange, services, HOME, error)


async def _go_out(exchange: Exchange, services: Services, name: str) -> None:
    return_to = local_path(_query(exchange).get("return_to"))
    redirect_uri = f"{_base(exchange, services)}/sign-in/{name}{CALLBACK}"
    out = await services.provider_sign_in.begin(name, redirect_uri, return_to)
    kept = (BROWSER_COOKIE, out.browser_secret, f"/sign-in/{name}")
    await _go(exchange, out.url, set_cookie(exchange, services, kept, SECONDS_MAX))


async def _come_back(exchange: Exchange, services: Services, name: str) -> None:
    query = _query(exchange)
    if "error" in query:
        raise Unauthorized("The provider did not sign you in.", detail=query["error"][:50])
    arrival = Arrival(
        state=query.get("state", ""),
        code=query.get("code", ""),
        issuer=query.get("iss"),
        browser_secret=cookie(exchange.headers, BROWSER_COOKIE.encode()) or "",
        redirect_uri=f"{_base(exchange, services)}/sign-in/{name}{CALLBACK}",
        address=exchange.address,
    )
    session, return_to = await services.provider_sign_in.finish(name, arrival)
    await end_session_of(exchange, services)
    used = set_cookie(exchange, services, (BROWSER_COOKIE, "", f"/sign-in/{name}"), 0)
    await _go(exchange, return_to, session_cookie(exchange, services, session.secret), used)


def _base(exchange: Exchange, services: Services) -> str:
    """Our own URL, as the provider knows it: the setting, or this machine's own name."""
    if services.options.public_url:
        return services.options.public_url
    host = exchange.headers.get(b"host", b"").decode("latin-1")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if not _is_loopback(name.strip("[]")):
        raise BadRequest("Signing in through a provider needs the setting public_url.")
    return f"{'https' if exchange.secure else 'http'}://{host}"


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


async def command_page(exchange: Exchange, services: Services) -> None:
    """GET /github/login?login_id= and its sisters: asks whether the tool may in."""
    login_id = _query(exchange).get("login_id", "")
    caller = await _signed_in(exchange, services)
    if caller is None:
        here = f"{exchange.path}?login_id={quote(login_id, safe='')}"
        await _go(exchange, f"{HOME}?return_to={quote(here, safe='')}")
        return
    account = await _account_name(services, caller)
    await _page(exchange, 200, "allow_command.html", login_id=login_id, account=account)


async def allow_command(exchange: Exchange, services: Services) -> None:
    """POST /command/sign-in: yes."""
    if not from_our_page(exchange, services):
        raise Forbidden("Another site's page may not let a tool in.")
    fields = _first((await small_body(exchange, services)).decode("utf-8", "replace"))
    caller = await _signed_in(exchange, services)
    if caller is None:
        raise Unauthorized("The session has ended; sign in again.")
    await services.command_sign_in.allow(caller, fields.get("login_id", ""))
    await _page(exchange, 200, "allow_command.html", done=True)


class _Waiting:
    """How many tools wait in this process."""

    count = 0


async def command_token(exchange: Exchange, services: Services) -> None:
    """GET /github/cli/login?login_id=: waits until the person said yes."""
    login_id = _query(exchange).get("login_id", "")
    if _Waiting.count >= TOOLS_WAITING_MAX:
        raise TooManyRequests("Too many tools wait to be let in.", retry_after_seconds=5)
    exchange.watch()
    _Waiting.count += 1
    try:
        async with asyncio.timeout(TOOL_SECONDS_MAX):
            while (secret := await services.command_sign_in.token(login_id)) is None:  # noqa: ASYNC110
                # Another gateway may be the one that hears the yes.
                await asyncio.sleep(TOOL_PAUSE_SECONDS)
    except TimeoutError:
        raise FetchTimedOut("Nobody let the tool in; begin anew.") from None
    finally:
        _Waiting.count -= 1
    await exchange.respond(200, msgspec.json.encode(AccessToken(secret)), [_NO_STORE])


def sign_in_page_routes() -> list[Route]:
    """Pages and redirects; public, as nobody is signed in yet."""
    rows = [
        ("GET", HOME, sign_in_page, "The form to sign in", None),
        ("POST", HOME, sign_in_form, "The form's answer", None),
        ("POST", "/sign-out", sign_out_form, "End the session, with a form", None),
        ("GET", "/sign-in/{rest}", provider, "Sign in through a provider, and back", None),
        ("POST", "/command/sign-in", allow_command, "Let a command line tool in", None),
        (
            "GET",
            "/github/cli/login",
            command_token,
            "A command line tool waits for its token",
            AccessToken,
        ),
        *(
            ("GET", f"/{name}/login", command_page, "May a command line tool in?", None)
            for name in ("github", "google", "okta")
        ),
    ]
    return [
        Route(method, path, endpoint, "public", "native", summary, None, gives)
        for method, path, endpoint, summary, gives in rows
    ]
