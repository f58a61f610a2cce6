"""Fetches a URL that a caller named."""

from __future__ import annotations

from inferd.api.services import Services
from inferd.errors import UnsupportedField


async def fetch_url(url: str, account_id: str, services: Services, param: str) -> bytes:
    """The bytes behind a URL."""
    raise UnsupportedField("URLs are not fetched yet; send the bytes.", param=param)
