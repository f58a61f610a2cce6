"""Which package index does this machine use: the one that pip uses."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import sys

DEFAULT_INDEX_URL = "https://pypi.org/simple"
_PIP_SECONDS_MAX = 15
_KEYS = (":env:.index-url", "download.index-url", "install.index-url", "global.index-url")


async def configured_index_url() -> str:
    """The URL that pip is configured with; the public index when there is no pip or no setting."""
    try:
        # -P: a file in the current directory must not pass for a module.
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "pip", "config", "list", "--disable-pip-version-check"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return DEFAULT_INDEX_URL
    try:
        async with asyncio.timeout(_PIP_SECONDS_MAX):
            output, _ = await child.communicate()
    except TimeoutError:
        return DEFAULT_INDEX_URL
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return index_url_of(output.decode("utf-8", "replace"))


def index_url_of(listing: str) -> str:
    """Pick the index out of what `pip config list` prints."""
    settings = dict(line.split("=", 1) for line in listing.splitlines() if "=" in line)
    for key in _KEYS:
        if key in settings:
            with contextlib.suppress(ValueError, SyntaxError):
                value = ast.literal_eval(settings[key])
                if isinstance(value, str) and value:
                    return value
    return DEFAULT_INDEX_URL
