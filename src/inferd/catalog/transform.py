"""Makes one file of another after a download, in a child process.

The event loop goes on, and a cancelled fetch kills the child. `requantise` imports numpy, which
the gateway does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from inferd.errors import Unavailable

TRANSFORMS = {"gguf-q4_0": ("inferd.catalog.requantise", 1)}
"""Name in a card → (module to run, version). Another version makes the file anew."""


def transformed_name(sha256: str, transform: str) -> str:
    """Under which name the store keeps what was made of a file."""
    return f"{sha256}.{transform}-{TRANSFORMS[transform][1]}"


async def transform_file(transform: str, source: Path, target: Path) -> None:
    """Write `target`, whole or not at all. Unavailable with the reason when it cannot be made."""
    module, _ = TRANSFORMS[transform]
    # -P: a file in the current directory must not pass for a module. The child ends by itself
    # when its standard input does: should this process be killed, no orphan goes on.
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", module, str(source), str(target)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stderr is not None, "the child was started with a pipe"
        said = await child.stderr.read()
        code = await child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        for left in target.parent.glob(f".{target.name}.*.part"):
            left.unlink(missing_ok=True)
    if code != 0:
        lines = said.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1][:300] if lines else f"the converter ended with code {code}"
        raise Unavailable(f"The weights could not be converted: {reason}")
