"""What settings must not say, beyond the bounds of each value."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from inferd.settings.values import Settings
from inferd.storage.database_url import SQLITE, is_postgres

BOOTSTRAP_CHARACTERS_MIN = 32
_ORIGIN = re.compile(r"\*|https?://(?:\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::[0-9]{1,5})?")
"""Scheme, host and port alone, in lower case, as browsers write them."""
_VALKEY_SCHEMES = ("valkey://", "valkeys://", "redis://", "rediss://", "unix://")


def contradictions(settings: Settings) -> Iterator[str]:
    """A sentence for each."""
    yield from _access(settings)
    yield from _stores(settings)
    yield from _networks(settings)
    yield from _tls(settings)


def _access(settings: Settings) -> Iterator[str]:
    if settings.bootstrap_token and len(settings.bootstrap_token) < BOOTSTRAP_CHARACTERS_MIN:
        yield f"bootstrap_token needs at least {BOOTSTRAP_CHARACTERS_MIN} characters."
    if settings.is_public and not settings.bootstrap_token:
        yield (
            f"{settings.host} is a public address: set INFERD_BOOTSTRAP_TOKEN to a secret of at "
            f"least {BOOTSTRAP_CHARACTERS_MIN} characters first."
        )


def _stores(settings: Settings) -> Iterator[str]:
    if settings.database_url and not _is_database(settings.database_url):
        yield "database_url: expected postgresql://USER:PASSWORD@HOST/NAME or sqlite:///PATH."
    if settings.valkey_url and not settings.valkey_url.startswith(_VALKEY_SCHEMES):
        yield f"valkey_url: expected one of {', '.join(_VALKEY_SCHEMES)}."
    if settings.workers > 1 and not settings.is_clustered:
        yield "workers: several gateways need PostgreSQL (database_url); SQLite has one writer."
    elif settings.workers > 1 and not settings.valkey_url:
        yield "workers: several gateways count limits together on Valkey: set valkey_url."


def _tls(settings: Settings) -> Iterator[str]:
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        yield "tls_certificate and tls_key belong together: set both or neither."
    url = settings.public_url
    if url and (url == "*" or not _ORIGIN.fullmatch(url)):
        yield "public_url: expected scheme, host and port alone, such as https://inferd.example."


def _networks(settings: Settings) -> Iterator[str]:
    for name in ("private_media", "private_webhooks", "trusted_proxies"):
        for network in listed(getattr(settings, name)):
            if not _is_network(network):
                yield f"{name}: {network} is no network such as 10.0.0.0/8."
    for origin in listed(settings.cors_origins):
        if not _ORIGIN.fullmatch(origin):
            yield f"cors_origins: {origin} is no origin such as https://app.example."


def _is_database(url: str) -> bool:
    if is_postgres(url):
        return url.partition("://")[2].strip("/") != ""
    return url.startswith(SQLITE) and len(url) > len(SQLITE)


def listed(text: str) -> list[str]:
    """The parts of a setting with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
