"""Where the database is: a file of SQLite or a URL. No driver is imported here."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

SQLITE = "sqlite:///"
POSTGRES_SCHEMES = ("postgresql", "postgres")


def url_of(where: Path | str) -> str:
    """A URL of a path or a URL."""
    return where if isinstance(where, str) else f"{SQLITE}{where}"


def is_postgres(url: str) -> bool:
    """True for `postgresql://…`."""
    return url.partition("://")[0] in POSTGRES_SCHEMES


def sqlite_path(url: str) -> Path:
    """The file behind `sqlite:///PATH`."""
    assert url.startswith(SQLITE), "asked of SQLite alone"
    return Path(url.removeprefix(SQLITE))


def shown(url: str) -> str:
    """What may be logged of a URL: no user, no password, no parameters."""
    if not is_postgres(url):
        return sqlite_path(url).name
    parts = urlsplit(url)
    host = parts.hostname or "the local socket"
    return f"{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
