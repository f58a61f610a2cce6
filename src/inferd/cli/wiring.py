"""Builds the rooms from settings, and takes them down again in reverse."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import uvloop

from inferd.access import shared_key
from inferd.access.changes import Changes
from inferd.access.in_flight_bytes import ACCOUNT_BYTES_MAX, ALL_BYTES_MAX, InFlightBytes
from inferd.access.installation import InstallationKeys, installation_keys
from inferd.access.limit_book import LimitBook
from inferd.access.lone_gateway import require_first, require_lone
from inferd.access.tokens import Tokens
from inferd.admission.gate import Gate
from inferd.admission.rent import Rent
from inferd.admission.work import Rooms
from inferd.api.address import read_networks
from inferd.api.services import ApiOptions, Services
from inferd.cli import data_dir, gateways
from inferd.cli.gateways import Seat
from inferd.cli.replicas import Report, catalog, local_router, store
from inferd.cli.sharing import Sharing
from inferd.clock import Clock, SystemClock
from inferd.metering.ledger import Ledger
from inferd.metering.nightly import Nightly
from inferd.metering.prices import PriceBook
from inferd.serving.router import Router
from inferd.settings import Settings, listed
from inferd.settings.providers import sign_in_providers
from inferd.storage import jobs, webhook_calls
from inferd.storage.database import Database, migrate
from inferd.storage.writers import ledger_writer

__all__ = ["catalog", "rooms", "run_async", "store"]

T = TypeVar("T")


def run_async(work: Coroutine[None, None, T]) -> T:
    """Run a coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@asynccontextmanager
async def rooms(
    settings: Settings, report: Report, seat: Seat | None = None
) -> AsyncGenerator[Services]:
    """Everything, over a data directory whose lock is held; `seat`: one gateway of several."""
    root = data_dir.prepare(settings)
    cards = catalog(settings)
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        index = 0 if seat is None else seat.index
        keys = _keys(settings)
        sharing = Sharing(stack, settings, keys.current)
        database, changes, ledger = await _books(stack, settings, index, clock, sharing)
        if settings.is_clustered:
            await shared_key.check(database, keys)
        tokens = Tokens(database, keys.current, clock, changes=changes, retired_keys=keys.retired)
        prices = PriceBook(database, clock)
        await prices.sync(cards.cards())
        media = _fresh(root / "media" / ("" if seat is None else str(seat.index)))
        router = await _router(stack, settings, clock, report) if seat is None else seat.router
        stack.push_async_callback(router.close)
        live = await sharing.limits(clock)
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
            webhook_keys=(keys.current, *keys.retired),
            bodies=_in_flight_bytes(settings),
            blob_dir=settings.data_path / "blobs",
            providers=sign_in_providers(settings),
        )
        stack.push_async_callback(services.deliveries.close)
        stack.push_async_callback(services.webhooks.close)
        stack.push_async_callback(services.videos.close)
        await services.videos.resume(cards.serving)
        _watch(stack, services)
        yield services


def _keys(settings: Settings) -> InstallationKeys:
    if settings.installation_key_file:
        shared_key.adopt(settings.data_path, Path(settings.installation_key_file))
    return installation_keys(settings.data_path)


def _watch(stack: AsyncExitStack, services: Services) -> None:
    """Begin what nobody's request begins: the nightly check, the rent of what is kept up."""
    ledger, clock = services.ledger, services.clock
    nightly = Nightly(services.database, ledger, clock, services.metrics.verified)
    nightly.start()
    stack.push_async_callback(nightly.close)
    tasks = {card.name: card.task for card in services.catalog.cards()}
    rent = Rent(services.router, ledger, services.prices, tasks, clock)
    services.gate.with_rent(rent.check)
    rent.start()
    stack.push_async_callback(rent.close)


async def _books(
    stack: AsyncExitStack, settings: Settings, index: int, clock: Clock, sharing: Sharing
) -> tuple[Database, Changes, Ledger]:
    where, root = settings.database_location, settings.data_path
    migrate(where)
    if settings.is_clustered and index == 0:
        await _take_over(settings, clock)
    own = gateways.folder(root, index)
    await stack.enter_async_context(gateways.alone(own))
    database = Database(where, directory=own, power_safe=settings.power_safe)
    stack.push_async_callback(database.close)
    writer = ledger_writer(where, own, power_safe=settings.power_safe)
    stack.push_async_callback(writer.close)
    gateway = gateways.gateway_name(root, index) if settings.is_clustered else ""
    counts_alone = settings.is_clustered and not settings.valkey_url
    if counts_alone:
        await require_lone(database, gateway)
    changes = Changes(database, clock)
    await sharing.follow(changes, database)
    ledger = Ledger(writer, database, clock, gateway)
    await ledger.start()
    stack.push_async_callback(ledger.close)
    if counts_alone:
        await require_first(database, gateway, ledger.epoch_unix_ns)
    changes.listen("purse", ledger.refresh)
    return database, changes, ledger


async def _take_over(settings: Settings, clock: Clock) -> None:
    """Do what gateways of an earlier start have left, when there were more of them."""
    where, root = settings.database_location, settings.data_path
    for index in gateways.beyond(root, settings.workers):
        own = gateways.folder(root, index)
        name = gateways.gateway_name(root, index)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(gateways.alone(own))
            database = Database(where, directory=own)
            stack.push_async_callback(database.close)
            writer = ledger_writer(where, own)
            stack.push_async_callback(writer.close)
            # It replays the journal and releases what was reserved; at its end it holds no lease.
            ledger = Ledger(writer, database, clock, name)
            await ledger.start()
            await ledger.close()
            async with database.writing() as connection:
                await jobs.hand_over(connection, name, gateways.gateway_name(root, 0))
                await webhook_calls.hand_over(connection, name, gateways.gateway_name(root, 0))
        if not (own / "ledger.refused").exists():
            shutil.rmtree(own)


async def _router(
    stack: AsyncExitStack, settings: Settings, clock: Clock, report: Report
) -> Router:
    runtime = Path(tempfile.mkdtemp(prefix="inferd-", dir=settings.runtime_path()))
    stack.callback(shutil.rmtree, runtime, ignore_errors=True)
    return local_router(settings, clock, runtime, report)


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
        private_webhooks=read_networks(settings.private_webhooks),
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


def _fresh(media: Path) -> Path:
    """Callers' files while their requests run. What a killed server left behind goes now."""
    shutil.rmtree(media, ignore_errors=True)
    media.mkdir(mode=0o700, parents=True)
    return media
