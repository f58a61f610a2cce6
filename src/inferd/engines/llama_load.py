"""Starts a llama.cpp server in this process, with steps short enough for its neighbours."""

from __future__ import annotations

import secrets
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from inferd.catalog.card import ModelCard
from inferd.engines import llama_media
from inferd.engines.base import Resources
from inferd.engines.llama_media import SeeingServer
from inferd.engines.llama_tokens import LlamaListener
from inferd.errors import EngineFailed

if TYPE_CHECKING:
    from inferd.engines.llama_choice import Chunk, LlamaServer

STEP_SECONDS = 0.2
"""A cancel, or a neighbour's next token, waits for one step at most."""
BATCH_FIRST = 64
BATCH_MIN, BATCH_MAX = 16, 512
PROBE_TOKENS = 96

Pooling = Literal["none", "last"]
"""What becomes of the vectors of an input's tokens: all are given, or the last one.

llama.cpp's own mean is wrong for inputs of unlike length that are computed together: where it cuts
such a batch, it averages the last part only (seen with cosines of 0.97 to the right vector).
"""


class Loaded(NamedTuple):
    """A server and where it listens."""

    server: LlamaServer
    listener: LlamaListener


def load_server(card: ModelCard, resources: Resources, path: Path) -> Loaded:
    """Load and probe; load again if the steps are far from STEP_SECONDS. Raises EngineFailed."""
    listener = LlamaListener(
        Path(resources.runtime_dir) / f"{secrets.token_hex(4)}.sock", secrets.token_urlsafe(32)
    )
    server = _open(card, resources, path, BATCH_FIRST, listener)
    tokens_per_second = _probe(server)
    batch = _batch(tokens_per_second)
    if not BATCH_FIRST / 2 < batch < BATCH_FIRST * 2:
        del server
        listener.path.unlink(missing_ok=True)
        server = _open(card, resources, path, batch, listener)
    if "mmproj" in resources.files:
        server = SeeingServer(server)
    return Loaded(server, listener)


def _batch(tokens_per_second: float) -> int:
    """The power of two whose step stays within STEP_SECONDS."""
    batch = BATCH_MIN
    while batch < BATCH_MAX and 2 * batch <= tokens_per_second * STEP_SECONDS:
        batch *= 2
    return batch


def load_hidden(card: ModelCard, resources: Resources, path: Path, pooling: Pooling) -> Loaded:
    """Load a model that gives vectors instead of text. Raises EngineFailed.

    Each input is one step: llama.cpp does not cut what it pools.
    """
    listener = LlamaListener(
        Path(resources.runtime_dir) / f"{secrets.token_hex(4)}.sock", secrets.token_urlsafe(32)
    )
    parameters, xllamacpp = _parameters(card, resources, path, card.context_length, listener)
    parameters.embedding = True
    # Tokens from the cache would be missing in what is pooled.
    parameters.cache_prompt = False
    parameters.pooling_type = getattr(
        xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{pooling.upper()}"
    )
    return Loaded(_start(parameters, xllamacpp), listener)


def _open(
    card: ModelCard, resources: Resources, path: Path, batch: int, listener: LlamaListener
) -> LlamaServer:
    return _start(*_parameters(card, resources, path, batch, listener))


def _parameters(
    card: ModelCard, resources: Resources, path: Path, batch: int, listener: LlamaListener
) -> tuple[Any, Any]:
    """The parameters of a server, and the library."""
    # Engine libraries are imported by the worker that uses them, never by the gateway.
    # By name: the package has no types.
    xllamacpp: Any = import_module("xllamacpp")

    parameters: Any = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_parallel = card.slots
    parameters.n_ctx = card.slots * card.context_length
    parameters.kv_unified = False
    parameters.n_batch = parameters.n_ubatch = batch
    parameters.cpuparams.n_threads = resources.threads
    parameters.cpuparams_batch.n_threads = resources.threads
    # Without a socket path it opens a TCP port without a key.
    parameters.hostnames = [str(listener.path)]
    parameters.api_keys = [listener.key]
    parameters.cache_prompt = True
    parameters.cache_ram_mib = 0
    parameters.ctx_shift = False
    parameters.endpoint_slots = parameters.endpoint_metrics = parameters.endpoint_props = False
    # The probe warms up; llama.cpp's own warm-up takes as long as the load.
    parameters.warmup = False
    # It would shrink the context without a word when memory is short.
    parameters.fit_params = False
    if "mmproj" in resources.files:
        see(parameters, card, resources.path("mmproj"))
    if card.kv_cache == "q8_0":
        parameters.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_Q8_0
        parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
    parameters.verbosity = -1
    return parameters, xllamacpp


def see(parameters: Any, card: ModelCard, projector: Path) -> None:
    """Take pictures as well. The tower runs where the layers do; without a GPU, on the CPU."""
    parameters.mmproj.path = str(projector)
    parameters.mmproj_use_gpu = parameters.n_gpu_layers != 0
    parameters.chat_template = llama_media.TEMPLATE
    parameters.use_jinja = True
    if "media_tokens_max" in card.options:
        # Of models whose pictures take more tokens the larger they are.
        parameters.image_max_tokens = card.media_tokens_max()


def _start(parameters: Any, xllamacpp: Any) -> LlamaServer:
    try:
        server: LlamaServer = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise EngineFailed(
            "llama.cpp could not load the model file; its log says why.", detail=str(error)
        ) from error
    return server


def _probe(server: LlamaServer) -> float:
    """Prompt tokens per second, as a slot sees them."""
    began = time.perf_counter()
    body: Chunk = {
        "prompt": "a " * PROBE_TOKENS,
        "max_tokens": 1,
        "stream": True,
        "cache_prompt": False,
        "return_progress": True,
    }
    seen: list[int] = []

    def note(chunk: Chunk) -> bool:
        if "prompt_progress" in chunk:
            seen.append(int(chunk["prompt_progress"]["processed"]))
        return False

    server.handle_completions(body, note)
    return max(seen, default=PROBE_TOKENS) / max(time.perf_counter() - began, 1e-6)
