"""The ASGI application: find the route, know the caller, answer, and settle whatever happened.

The `finally` of `_answer` runs once for every request that got this far: success, refusal, crash,
client gone. Nothing else settles.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from functools import partial

from inferd.access import audit
from inferd.access.caller import Caller
from inferd.api.cors import Cors
from inferd.api.credential import credential, is_from_own_page, own_origin, session_secret
from inferd.api.detached import compute
from inferd.api.errors import render
from inferd.api.exchange import Exchange, Message, Receive, Send
from inferd.api.log import RequestLog
from inferd.api.post_url import post_url
from inferd.api.proxies import Proxies
from inferd.api.routes import NEEDS, Access, RouteTable, shape_of
from inferd.api.services import Services
from inferd.api.table import ROUTES
from inferd.errors import ClientGone, Forbidden, InferdError, NotFound, Unauthorized, Unavailable

_log = logging.getLogger("inferd.api")


class Application:
    """An ASGI 3 callable over the route table."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._table = RouteTable(ROUTES)
        options = services.options
        self._proxies = Proxies(options.trusted_proxies, options.proxy_header)
        self._cors = Cors(options.cors_origins)
        self._request_log = RequestLog(services.clock, as_json=options.log_json)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; answer lifespan events; refuse everything else."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            exchange = Exchange(scope, receive, send)
            exchange.address = self._proxies.client(scope)
            exchange.origin = self._proxies.origin(scope)
            exchange.always = self._cors.answer(exchange.headers)
            await self._answer(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        began_seconds = self._services.clock.seconds()
        failure: InferdError | None = None
        try:
            await self._dispatch(exchange)
        except InferdError as error:
            # Its frames hold the body, and this frame would hold them until a collection.
            failure = error.with_traceback(None)
            await self._refuse(exchange, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not exchange.gone or task is None:
                if exchange.detached is not None and exchange.work is not None:
                    exchange.work.forgiven = True
                raise
            # We cancelled ourselves because the client left; the task goes on to settle.
            task.uncancel()
            failure = ClientGone("The client left.")
        except Exception as error:  # noqa: BLE001 the request's outermost loop
            _log.exception("request %s failed", exchange.request_id)
            failure = _broken(error)
            await self._refuse(exchange, failure)
        finally:
            exchange.close()
            await self._settle(exchange)
            if exchange.recorder is not None:
                await exchange.recorder.close()
            for path in exchange.files:
                path.unlink(missing_ok=True)
            self._finish(exchange, failure, began_seconds)

    async def begin(self) -> None:
        """Compute the calls that a dead process left unanswered, deliver their answers."""
        networks = self._services.options.private_webhooks
        self._services.deliveries.start(partial(post_url, networks=networks))
        await self._services.webhooks.start(partial(compute, self._answer))

    async def _dispatch(self, exchange: Exchange) -> None:
        exchange.shape = shape_of(exchange.path)
        if self._cors.is_preflight(exchange.method, exchange.headers):
            await self._preflight(exchange)
            return
        audit.origin.set(audit.Origin(exchange.request_id, exchange.address))
        route, rest = self._table.match(exchange.method, exchange.path)
        exchange.route, exchange.rest, exchange.shape = route.path, rest, route.shape
        if exchange.detached is None:
            await self._authenticate(exchange, route.access)
        if "\0" in rest:
            # Nothing is called so, and PostgreSQL could not even be asked.
            raise NotFound("There is nothing of this name.")
        await route.endpoint(exchange, self._services)

    async def _preflight(self, exchange: Exchange) -> None:
        """A browser asks before it calls; it shows no credential, and learns methods alone."""
        methods = self._table.methods(exchange.path)
        headers = self._cors.preflight(exchange.headers, methods)
        kind = (b"content-type", b"text/plain")
        await exchange.respond(200, b"", [kind, *headers])

    async def _authenticate(self, exchange: Exchange, access: Access) -> None:
        public = access == "public" or (
            access == "catalogue" and self._services.options.public_catalogue
        )
        if public:
            return
        secret = credential(exchange.headers)
        if secret is None:
            caller = await self._session(exchange)
        else:
            tokens = self._services.tokens
            caller = tokens.known(secret) or await tokens.authenticate(secret)
        exchange.caller = caller
        caller.require_address(exchange.address)
        if caller.jwt_id is not None and access not in ("inference", "catalogue"):
            raise Forbidden("A scoped JWT is for inference alone.")
        scope = NEEDS.get(access)
        if scope is not None:
            caller.require_scope(scope)

    async def _session(self, exchange: Exchange) -> Caller:
        """The person behind a cookie. Raises Unauthorized, Forbidden."""
        secret = session_secret(exchange.headers)
        if secret is None:
            raise Unauthorized("Not authenticated.")
        public = self._services.options.own_origin
        own = own_origin(public, exchange.headers, secure=exchange.secure)
        if not is_from_own_page(exchange.method, exchange.headers, own):
            raise Forbidden("A session cookie is not accepted from another site.")
        return await self._services.sessions.authenticate(secret)

    async def _refuse(self, exchange: Exchange, error: InferdError) -> None:
        if isinstance(error, ClientGone) or (exchange.gone and exchange.recorder is None):
            return
        if exchange.status:
            # The status line is out; closing without an end is all that can still be said.
            _log.warning("request %s broke after its first byte", exchange.request_id)
            return
        status, body, headers = render(error, exchange.shape)
        await exchange.respond(status, body, headers)

    async def _settle(self, exchange: Exchange) -> None:
        work, task = exchange.work, asyncio.current_task()
        while work is not None:
            try:
                await work.close()
            except asyncio.CancelledError:
                # The client may leave just now; the settlement goes on and is awaited again.
                if not exchange.gone or task is None:
                    raise
                task.uncancel()
            except InferdError as error:
                sentence = "request %s could not be settled: %s"
                _log.error(sentence, exchange.request_id, error)
                return
            else:
                return

    def _finish(
        self, exchange: Exchange, failure: InferdError | None, began_seconds: float
    ) -> None:
        status = 499 if exchange.gone else exchange.status
        self._services.metrics.responded(exchange.route, status)
        self._request_log.write(exchange, failure, began_seconds)


def _broken(error: Exception) -> InferdError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable("The server's disk is full.", retry_after_seconds=30)
    return InferdError("Something broke inside inferd.", detail=repr(error))


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return


def build(services: Services) -> Application:
    """Make the application and let metrics follow the ledger."""
    services.gate.observe(services.metrics.settled)
    services.gate.observe(services.live.settled)
    services.metrics.watch(services.router)
    return Application(services)
