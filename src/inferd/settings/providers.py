"""Reads the file with the OpenID Connect providers: a table for each, named by its route.

[okta]
title = "Okta"
issuer = "https://example.okta.com"
client_id = "0oa…"
client_secret = "…"
make_accounts = true
[okta.teams]
"ml-engineers" = { team = "ml", role = "member" }
"""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from inferd.access.openid import Provider
from inferd.access.openid_http import is_safe
from inferd.errors import BadRequest
from inferd.settings.values import Settings

ISSUERS = {"google": "https://accounts.google.com"}
"""Where a table need not say it."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def sign_in_providers(settings: Settings) -> Mapping[str, Provider]:
    """Name → provider. Raises BadRequest, whose message holds no secret."""
    if not settings.sign_in_file:
        return {}
    path = Path(settings.sign_in_file).expanduser()
    tables = _tables(path)
    return {name: _provider(name, table, path.name) for name, table in tables.items()}


def _tables(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadRequest(f"sign_in_file: {path} can be read by others; run chmod 600 on it.")
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"sign_in_file cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(f"sign_in_file is no TOML: {error}.") from error


def _provider(name: str, table: Any, file: str) -> Provider:
    if not _NAME.fullmatch(name):
        raise BadRequest(f"{name!r} in {file}: a name has small letters, digits and dashes.")
    try:
        fields = msgspec.convert(table, dict[str, Any])
        if name in ISSUERS:
            fields.setdefault("issuer", ISSUERS[name])
        provider = msgspec.convert(fields, Provider)
    except msgspec.ValidationError as error:
        raise BadRequest(f"[{name}] in {file}: {str(error).replace('`', '')}.") from None
    if not is_safe(provider.issuer):
        raise BadRequest(f"[{name}] in {file}: issuer must be an https URL.")
    if "openid" not in provider.scopes:
        raise BadRequest(f"[{name}] in {file}: scopes must hold openid.")
    return provider
