"""What the HTTP room stands on: built by the command line, passed to `app.build`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from inferd.access.accounts import Accounts
from inferd.access.changes import Changes
from inferd.access.command_sign_in import CommandSignIn
from inferd.access.fetches import Fetches
from inferd.access.in_flight_bytes import InFlightBytes
from inferd.access.limit_book import LimitBook
from inferd.access.openid import Provider
from inferd.access.provider_sign_in import ProviderSignIn
from inferd.access.sessions import Sessions
from inferd.access.sign_in import SignIn
from inferd.access.teams import Teams
from inferd.access.tokens import Tokens
from inferd.access.voices import AddedVoices
from inferd.admission.gate import Gate
from inferd.api.address import Network
from inferd.api.idempotency import IdempotencyKeys
from inferd.api.live import Live
from inferd.api.metrics import Metrics
from inferd.api.proxies import ProxyHeader
from inferd.catalog.catalog import Catalog
from inferd.clock import Clock
from inferd.jobs.blobs import Blobs
from inferd.jobs.deliveries import Deliveries
from inferd.jobs.videos import VideoJobs
from inferd.jobs.webhook_calls import WebhookCalls
from inferd.metering.ledger import Ledger
from inferd.metering.prices import PriceBook
from inferd.serving.routing import Routing
from inferd.storage.database import Database


class ApiOptions(msgspec.Struct, frozen=True):
    """How the HTTP room behaves."""

    body_bytes_max: int = 10_000_000
    """Cap of a request body, before and after gunzip."""
    body_seconds_max: float = 60
    """How long a client may take to send its body."""
    media_body_bytes_max: int = 50_000_000
    """Cap of the body of a request that brings a recording or a picture."""
    media_bytes_max: int = 50_000_000
    """Cap of one recording, picture or film, also of what a URL leads to."""
    media_seconds_max: float = 10
    """How long fetching a URL may take."""
    audio_seconds_max: float = 4 * 3600
    """Longest recording."""
    private_media: tuple[Network, ...] = ()
    """Networks that are not public and may be fetched from all the same, such as 10.0.0.0/8."""
    private_webhooks: tuple[Network, ...] = ()
    """Networks that are not public and may be delivered to all the same."""
    ping_seconds: float = 5
    """Silence after which a stream gets a comment."""
    headers_after_seconds: float = 0.25
    """A stream whose first event takes longer gets its headers and a ping at once."""
    stall_seconds: float = 60
    """A client that reads nothing for so long has left."""
    public_catalogue: bool = True
    """Model lists without a token."""
    share_prefix_cache: bool = False
    """Reuse cached prompt prefixes across accounts."""
    log_json: bool = False

    trusted_proxies: tuple[Network, ...] = ()
    """Networks of the proxies in front; only these may say where a client is."""
    proxy_header: ProxyHeader = "x-forwarded-for"
    """Where they say it."""
    public_url: str = ""
    """How browsers reach this gateway, without a path; "": as they did."""
    session_idle_seconds: float = 12 * 3600
    """A session ends when it is not used for so long."""
    session_seconds_max: float = 7 * 86_400
    """A session ends after so long, however much it is used."""
    cors_origins: tuple[str, ...] = ()
    """Sites whose pages may call with a token; `*`: all."""

    @property
    def own_origin(self) -> bytes | None:
        """The origin of our own pages; None: whatever host they were asked of."""
        return self.public_url.encode() or None


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that endpoints use."""

    catalog: Catalog
    router: Routing
    tokens: Tokens
    ledger: Ledger
    prices: PriceBook
    database: Database
    gate: Gate
    changes: Changes
    limits: LimitBook
    clock: Clock
    options: ApiOptions = field(default_factory=ApiOptions)
    fetches: Fetches = field(default_factory=Fetches)
    media_dir: Path | None = None
    """Private folder of binary input that is too large for a frame; None: all goes in frames."""
    metrics: Metrics = field(default_factory=Metrics)
    bodies: InFlightBytes = field(default_factory=InFlightBytes)
    blob_dir: Path | None = None
    """Where pictures and films lie that callers fetch by URL."""
    webhook_keys: tuple[bytes, ...] = (b"",)
    """What secrets of webhooks are derived from: the installation's keys, the current one first."""
    providers: Mapping[str, Provider] = field(default_factory=dict[str, Provider])
    """OpenID Connect providers, by name."""
    sessions: Sessions = field(init=False)
    sign_in: SignIn = field(init=False)
    provider_sign_in: ProviderSignIn = field(init=False)
    command_sign_in: CommandSignIn = field(init=False)
    accounts: Accounts = field(init=False)
    teams: Teams = field(init=False)
    live: Live = field(init=False)
    blobs: Blobs = field(init=False)
    videos: VideoJobs = field(init=False)
    deliveries: Deliveries = field(init=False)
    webhooks: WebhookCalls = field(init=False)
    idempotency: IdempotencyKeys = field(init=False)
    voices: AddedVoices = field(init=False)

    def __post_init__(self) -> None:
        """Follow this installation's clock."""
        object.__setattr__(self, "live", Live(self.clock))
        self.changes.listen("prices", self.prices.hear)
        accounts = Accounts(self.database, self.changes, self.clock)
        object.__setattr__(self, "accounts", accounts)
        teams = Teams(self.database, self.changes, self.clock, accounts)
        object.__setattr__(self, "teams", teams)
        self._set_up_sign_in()
        folder = self.blob_dir or self.database.directory / "blobs"
        blobs = Blobs(folder, self.clock)
        object.__setattr__(self, "blobs", blobs)
        gateway = self.ledger.gateway
        videos = VideoJobs(self.database, self.gate, blobs, self.clock, gateway)
        object.__setattr__(self, "videos", videos)
        deliveries = Deliveries(self.database, blobs, self.clock, gateway, self.webhook_keys)
        object.__setattr__(self, "deliveries", deliveries)
        webhooks = WebhookCalls(self.database, blobs, deliveries, self.clock, gateway)
        object.__setattr__(self, "webhooks", webhooks)
        keys = IdempotencyKeys(self.database, self.ledger, self.clock)
        object.__setattr__(self, "idempotency", keys)
        object.__setattr__(self, "voices", AddedVoices(self.database, self.clock))

    def _set_up_sign_in(self) -> None:
        options = self.options
        sessions = Sessions(
            self.database,
            self.clock,
            idle_seconds=options.session_idle_seconds,
            seconds_max=options.session_seconds_max,
        )
        by_provider = ProviderSignIn(
            self.database, self.clock, sessions, self.providers, self.changes
        )
        object.__setattr__(self, "sessions", sessions)
        object.__setattr__(self, "sign_in", SignIn(self.database, self.clock, sessions))
        object.__setattr__(self, "provider_sign_in", by_provider)
        by_command = CommandSignIn(self.database, self.clock, self.tokens, self.changes)
        object.__setattr__(self, "command_sign_in", by_command)
