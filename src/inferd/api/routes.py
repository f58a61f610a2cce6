"""The route table: what can be called, who may, and what the OpenAPI document says of it.

A route that is not here does not exist. Nothing is public but the routes that say so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple

from inferd.access.caller import ACCOUNT_ADMIN, ADMIN, MEMBER
from inferd.api.errors import RouteNotFound, Shape
from inferd.api.exchange import Exchange
from inferd.api.services import Services
from inferd.errors import MethodNotAllowed

Endpoint = Callable[[Exchange, Services], Awaitable[None]]

Access = Literal["public", "catalogue", "inference", "token", "member", "account-admin", "admin"]
"""What a route asks for. catalogue: nothing, if the setting says so; inference: any credential,
scoped JWTs too, which open nothing else; token: an API token or a session; then the scopes."""

NEEDS: dict[Access, str] = {
    "member": MEMBER,
    "account-admin": ACCOUNT_ADMIN,
    "admin": ADMIN,
}
"""Access → scope of the caller."""


class Route(NamedTuple):
    """One method on one path.

    A path that ends in `{rest}` matches everything below; in the middle it is one segment.
    """

    method: str
    path: str
    endpoint: Endpoint
    access: Access
    shape: Shape
    summary: str
    takes: type | None = None
    """The Struct of the JSON body."""
    gives: type | None = None
    """The Struct of the JSON answer; None for other media."""


def both(
    method: str,
    path: str,
    endpoint: Endpoint,
    summary: str,
    takes: type | None = None,
    gives: type | None = None,
) -> list[Route]:
    """OpenAI routes stand under two prefixes (deepinfra-api 1.1)."""
    return [
        Route(method, prefix + path, endpoint, "inference", "openai", summary, takes, gives)
        for prefix in ("/v1/openai", "/v1")
    ]


class Match(NamedTuple):
    """A route and what stood for `{rest}`."""

    route: Route
    rest: str


class RouteTable:
    """Exact paths first, then the longest prefix. One dictionary look-up for the hot paths."""

    def __init__(self, routes: list[Route]) -> None:
        self.routes = routes
        self._exact: dict[str, dict[str, Route]] = {}
        around: dict[tuple[str, str], dict[str, Route]] = {}
        for route in routes:
            path, found, suffix = route.path.partition("{rest}")
            if found:
                around.setdefault((path, suffix), {})[route.method] = route
            else:
                self._exact.setdefault(path, {})[route.method] = route
        self._around = sorted(around.items(), key=lambda item: (-len(item[0][0]), -len(item[0][1])))

    def methods(self, path: str) -> list[str]:
        """What a path can be called with. Raises RouteNotFound."""
        methods = self._exact.get(path)
        if methods is None:
            methods, _ = self._with_rest(path)
        return list(methods)

    def match(self, method: str, path: str) -> Match:
        """Find the route. Raises RouteNotFound or MethodNotAllowed."""
        methods = self._exact.get(path)
        rest = ""
        if methods is None:
            methods, rest = self._with_rest(path)
        route = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
        if route is None:
            raise MethodNotAllowed("Method Not Allowed")
        return Match(route, rest)

    def _with_rest(self, path: str) -> tuple[Mapping[str, Route], str]:
        for (prefix, suffix), methods in self._around:
            if not path.startswith(prefix) or not path.endswith(suffix):
                continue
            rest = path[len(prefix) : len(path) - len(suffix)]
            if rest and not (suffix and "/" in rest):
                return methods, rest
        raise RouteNotFound("Not Found")


_OPENAI = (
    "/v1/openai",
    "/v1/chat",
    "/v1/completions",
    "/v1/models",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/rerank",
    "/v2/rerank",
    "/v1/images",
    "/v1/audio",
    "/v1/videos",
)


def shape_of(path: str) -> Shape:
    """The error envelope of a path that may not even exist."""
    if path.startswith("/anthropic"):
        return "anthropic"
    if path.startswith(("/v1/text-to-speech", "/v1/voices")):
        return "elevenlabs"
    return "openai" if path.startswith(_OPENAI) else "native"


# JSON documents are open by nature.
Json = dict[str, Any]
