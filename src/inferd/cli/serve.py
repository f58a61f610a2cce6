"""`inferd serve`: one gateway over one data directory."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inferd import __version__
from inferd.cli import data_dir
from inferd.cli.flags import Config, DataDir
from inferd.cli.progress import ProgressLines
from inferd.errors import BadRequest, InferdError
from inferd.settings import Settings, load

if TYPE_CHECKING:
    from inferd.api.tls import Tls

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


_GREETING = """inferd {version} serves on {url}

Your API token, shown this once:

    {secret}
{sign_in}
Three calls to try (the first one fetches the model, about 90 MB):

curl {url}/v1/openai/chat/completions \\
  -H "Authorization: Bearer {secret}" -H "Content-Type: application/json" \\
  -d '{{"model": "{model}",
       "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'

curl {url}/v1/inference/{model} \\
  -H "Authorization: Bearer {secret}" -H "Content-Type: application/json" \\
  -d '{{"input": "The capital of France is", "max_new_tokens": 8}}'

python - <<'END'        # pip install openai
from openai import OpenAI
client = OpenAI(base_url="{url}/v1/openai", api_key="{secret}")
answer = client.chat.completions.create(
    model="{model}", messages=[{{"role": "user", "content": "Hello"}}])
print(answer.choices[0].message.content)
END

"""


_SIGN_IN = """
People sign in at {url}/sign-in with the name admin and the password, shown this once:

    {password}
"""


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def serve(  # noqa: PLR0913 one flag for each setting that people change by hand
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    memory_bytes: Annotated[int | None, typer.Option(help="For all models together.")] = None,
    idle_seconds: Annotated[float | None, typer.Option(help="Unload after; -1 never.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of each worker.")] = None,
    drain_seconds: Annotated[float | None, typer.Option(help="Grace after Ctrl-C.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    tls_certificate: Annotated[str | None, typer.Option(help="PEM file; turns TLS on.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="PEM file, its owner's alone.")] = None,
    other: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE for any other setting.")
    ] = None,
) -> None:
    """Serve until SIGINT or SIGTERM."""
    flags: dict[str, object] = {
        **_pairs(other or []),
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "memory_bytes": memory_bytes,
        "idle_seconds": idle_seconds,
        "threads": threads,
        "drain_seconds": drain_seconds,
        "log_format": log_format,
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
    }
    settings = load(flags, config=config)
    start(settings)


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in given]
    for name, _, value in pairs:
        if name not in Settings.__struct_fields__:
            raise BadRequest(f"--set {name}: there is no such setting.")
        if name == "bootstrap_token" or (name.endswith("_url") and "@" in value):
            raise BadRequest("A secret on the command line can be seen by others: use a variable.")
    return {name: value for name, _, value in pairs}


def start(settings: Settings) -> None:
    """Take the lock and the port, then serve."""
    from inferd.api.server import listen
    from inferd.cli.wiring import run_async

    layout = "%(message)s" if settings.log_format == "json" else "%(asctime)s %(name)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=layout, stream=sys.stderr)
    # Nothing in our format shows threads, processes or source lines; looking them up costs more
    # than the rest of a record (docs.python.org/3/howto/logging.html#optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # type: ignore[attr-defined]  # pyright: ignore
    for chatty in ("uvicorn", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    tls = _tls(settings)
    root = data_dir.prepare(settings)
    with data_dir.locked(root):
        # What a killed server left would send commands to a port that nobody owns.
        data_dir.remove_server_file(root)
        listener = listen(settings.host, settings.port)
        try:
            run_async(_serve(settings, listener, tls))
        finally:
            data_dir.remove_server_file(root)
            listener.close()


def _tls(settings: Settings) -> Tls | None:
    from inferd.api.tls import Tls

    if not settings.tls_certificate:
        return None
    tls = Tls(Path(settings.tls_certificate).expanduser(), Path(settings.tls_key).expanduser())
    tls.check()
    return tls


async def _serve(settings: Settings, listener: socket.socket, tls: Tls | None) -> None:
    from inferd.api.app import build
    from inferd.api.server import serve as serve_http
    from inferd.cli.wiring import rooms

    async with rooms(settings, ProgressLines().show) as services:
        secret = await services.tokens.ensure_admin(settings.bootstrap_token or None)
        local = await services.tokens.local_admin()
        password = None
        if secret is not None:
            password = await services.sign_in.first_password(
                await services.tokens.authenticate(local)
            )
        url = _url(settings.host, listener.getsockname()[1], "https" if tls else "http")

        def started() -> None:
            shown = tls.fingerprint() if tls else ""
            served = data_dir.ServerFile(url, local, os.getpid(), shown)
            data_dir.write_server_file(settings.data_path, served)
            _greet(url, secret, password)

        async def drain() -> None:
            sys.stderr.write("Draining: running answers may finish; Ctrl-C again stops at once.\n")
            await services.router.drain(settings.drain_seconds)

        try:
            await serve_http(build(services), listener, on_started=started, drain=drain, tls=tls)
        except* asyncio.CancelledError:
            pass
        except* InferdError as group:
            raise group.exceptions[0] from None


def _url(host: str, port: int, scheme: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return (
        f"{scheme}://[{shown}]:{port}"
        if ":" in shown and "[" not in shown
        else f"{scheme}://{shown}:{port}"
    )


def _greet(url: str, secret: str | None, password: str | None) -> None:
    if secret is None:
        sys.stdout.write(f"inferd {__version__} serves on {url}\n")
        sys.stdout.flush()
        return
    sign_in = _SIGN_IN.format(url=url, password=password) if password else ""
    filled = {"version": __version__, "url": url, "secret": secret, "model": MODEL}
    sys.stdout.write(_GREETING.format(sign_in=sign_in, **filled))
    sys.stdout.flush()
