"""`inferd serve`: one gateway over one data directory."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from inferd import __version__
from inferd.cli import data_dir
from inferd.cli.flags import Config, DataDir
from inferd.cli.progress import ProgressLines
from inferd.cli.starting import first_start, greet, set_up_logs, tls_of, url_of
from inferd.errors import BadRequest, InferdError
from inferd.settings import Settings, load

if TYPE_CHECKING:
    from inferd.api.tls import Tls


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
    threads: Annotated[int | None, typer.Option(help="Of each replica.")] = None,
    workers: Annotated[int | None, typer.Option(help="Gateway processes, on PostgreSQL.")] = None,
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
        "workers": workers,
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
    from inferd.cli.wiring import run_async

    set_up_logs(settings)
    tls = tls_of(settings)
    root = data_dir.prepare(settings)
    with data_dir.locked(root):
        # What a killed server left would send commands to a port that nobody owns.
        data_dir.remove_server_file(root)
        try:
            run_async(_serve(settings, tls) if settings.workers == 1 else _supervise(settings))
        finally:
            data_dir.remove_server_file(root)


async def _supervise(settings: Settings) -> None:
    from inferd.cli.supervisor import supervise

    await supervise(settings)


async def _serve(settings: Settings, tls: Tls | None) -> None:
    from inferd.api.server import listen

    # First of all: a port that is taken is told at once.
    with listen(settings.host, settings.port) as listener:
        await _serve_on(listener, settings, tls)


async def _serve_on(listener: socket.socket, settings: Settings, tls: Tls | None) -> None:
    from inferd.api.app import build
    from inferd.api.server import serve as serve_http
    from inferd.cli.wiring import rooms
    from inferd.serving.memory import give_large_blocks_their_own_place, keep_what_is_loaded

    async with rooms(settings, ProgressLines().show) as services:
        local, secret, password = await first_start(services, settings)
        url = url_of(settings.host, listener.getsockname()[1], "https" if tls else "http")

        def started() -> None:
            give_large_blocks_their_own_place()
            keep_what_is_loaded()
            shown = tls.fingerprint() if tls else ""
            served = data_dir.ServerFile(url, local, os.getpid(), shown)
            data_dir.write_server_file(settings.data_path, served)
            greet(url, secret, password)

        async def drain() -> None:
            sys.stderr.write("Draining: running answers may finish; Ctrl-C again stops at once.\n")
            await services.router.drain(settings.drain_seconds)

        try:
            await serve_http(build(services), listener, on_started=started, drain=drain, tls=tls)
        except* asyncio.CancelledError:
            pass
        except* InferdError as group:
            raise group.exceptions[0] from None
