"""What a request means to llama.cpp: its prompt, its grammar, its JSON body."""

from __future__ import annotations

import msgspec

from inferd.catalog.gguf_header import GgufHeader
from inferd.catalog.gguf_types import Array
from inferd.engines import llama_media
from inferd.engines.budget import context_exceeded
from inferd.engines.chat_template import ChatTemplate
from inferd.engines.grammar import Grammars, assemble, constraint_rule, tools_rules
from inferd.engines.llama_choice import Chunk
from inferd.engines.llama_media import Sight
from inferd.errors import BadRequest
from inferd.tasks.media import Media
from inferd.tasks.text_generation import (
    ChatPrompt,
    Prompt,
    Sampling,
    TextGenerationRequest,
    TokenPrompt,
    ToolUse,
    media_count,
)

TOKEN_BYTES_MAX = 256
"""No vocabulary seen has a longer token; runs of white space have the longest."""
REPEAT_LAST_N = 1 << 20
_ANY = r"/(.|\n)*/"
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


class Prepared(msgspec.Struct, frozen=True):
    """A request, ready to be computed."""

    prompt: str | tuple[int, ...]
    grammar: str = ""
    in_thought: bool = False
    pictures: tuple[tuple[str, ...], ...] = ()
    """Data URLs of each picture or film; `prompt` holds a mark for each of these."""


class LlamaPrompts:
    """Prepares requests for one model."""

    def __init__(
        self, header: GgufHeader, context_length: int, *, sight: Sight | None = None
    ) -> None:
        self._context_length = context_length
        self._sight = sight
        """None: the model does not see."""
        bos, eos = header.bos_text or "", header.eos_text or ""
        adds_bos = header.add_bos
        if adds_bos is None:
            adds_bos = header.text("tokenizer.ggml.model") == "llama"
        self.bos = bos if adds_bos else ""
        self._marks = tuple({mark for mark in (bos, eos) if mark})
        """Each is one token wherever it stands."""
        self.template = ChatTemplate(header.chat_template, bos_token=bos, eos_token=eos)
        tokens = header.value("tokenizer.ggml.tokens")
        self.vocabulary_size = tokens.length if isinstance(tokens, Array) else 0
        found = (header.count(f"tokenizer.ggml.{key}") for key in _END_KEYS)
        self._ends = tuple(dict.fromkeys(end for end in found if end is not None))
        self._grammars = Grammars()

    def prepare(self, request: TextGenerationRequest) -> Prepared:
        """Render, and compile the grammar. Blocks; raises BadRequest."""
        asked, media = self._marked(request)
        prompt, in_thought = self.render(asked)
        if not prompt:
            raise BadRequest("The prompt is empty.", param="prompt")
        self.check_size(prompt)
        self._check_ids(request)
        grammar = self._grammar(request, in_thought=in_thought)
        if grammar and request.ignore_eos:
            raise BadRequest("ignore_eos does not go with a format.", param="ignore_eos")
        if grammar:
            param = "response_format" if request.constraint else "tools"
            self._grammars.check(grammar, scope=request.cache_scope, param=param)
        if media and self._sight is not None:
            pictures = llama_media.data_urls(media, self._sight)
            return Prepared(prompt, grammar, in_thought, pictures)
        return Prepared(prompt, grammar, in_thought)

    def _marked(self, request: TextGenerationRequest) -> tuple[Prompt, tuple[Media, ...]]:
        prompt = request.prompt
        if self._sight is not None:
            # llama.cpp reads nothing but text and pictures once it sees.
            if isinstance(prompt, TokenPrompt):
                raise BadRequest("This model takes no prompts of token ids.", param="prompt")
            if request.echo and request.logprobs is not None:
                raise BadRequest("This model does not score its prompt.", param="echo")
        if not isinstance(prompt, ChatPrompt) or not media_count(prompt):
            return prompt, ()
        if self._sight is None:
            raise BadRequest("This model takes text only.", param="messages")
        return llama_media.marked(prompt)

    def render(self, prompt: Prompt) -> tuple[str | tuple[int, ...], bool]:
        """The raw prompt, and whether it ends inside the model's thinking."""
        if isinstance(prompt, TokenPrompt):
            return prompt.ids, False
        if not isinstance(prompt, ChatPrompt):
            return prompt.text, False
        rendered = self.template.render(prompt)
        # llama.cpp adds the begin token itself; templates write it as well.
        text = rendered.text.removeprefix(self.bos) if self.bos else rendered.text
        return text, rendered.in_thought

    def check_size(self, prompt: str | tuple[int, ...]) -> None:
        """Refuse what cannot fit, before it is cut into tokens. Raises ContextLengthExceeded."""
        if isinstance(prompt, str):
            marks = sum(prompt.count(mark) for mark in self._marks)
            least = max(marks, len(prompt.encode("utf-8", "replace")) // TOKEN_BYTES_MAX)
        else:
            least = len(prompt)
        if least > self._context_length:
            raise context_exceeded(self._context_length, least, None)

    def _check_ids(self, request: TextGenerationRequest) -> None:
        groups = {
            "logit_bias": tuple(token for token, _ in request.logit_bias),
            "stop_token_ids": request.stop_token_ids,
            "prompt": request.prompt.ids if isinstance(request.prompt, TokenPrompt) else (),
        }
        for param, ids in groups.items():
            for token in ids:
                if not 0 <= token < self.vocabulary_size:
                    raise BadRequest(
                        f"The token id {token} is outside of this model's vocabulary of "
                        f"{self.vocabulary_size} tokens.",
                        param=param,
                    )

    def _grammar(self, request: TextGenerationRequest, *, in_thought: bool) -> str:
        prompt = request.prompt
        use = prompt.tool_use if isinstance(prompt, ChatPrompt) else None
        if request.constraint is None and use is None:
            return ""
        rules: list[str] = []
        bodies: list[str] = []
        if request.constraint is not None:
            bodies.append("format")
            rules.append(f"format: {constraint_rule(request.constraint)}")
        if use is not None:
            body, own = self._calls(use, plain=request.constraint is None)
            rules += own
            bodies = [body] if use.required else [*bodies, body]
        start = " | ".join(bodies)
        if self.template.thinks and isinstance(prompt, ChatPrompt):
            rules += [f'thought[suffix="</think>"]: {_ANY}', r"space: /\s*/"]
            opening = "thought space" if in_thought else '("<think>" thought space)?'
            start = f"{opening} ({start})"
        return assemble(start, "\n".join(rules), ends=self._ends)

    def _calls(self, use: ToolUse, *, plain: bool) -> tuple[str, list[str]]:
        several = self.template.knows_tools if use.parallel is None else use.parallel
        more = r' ("\n<tool_call>\n" call)*' if several else ""
        rules = [tools_rules(use.tools)]
        if use.required or not plain:
            return rf'"<tool_call>\n" call{more}', rules
        rules += [f"plain: {_ANY}", rf'before[suffix="<tool_call>\n"]: {_ANY}']
        return f"plain | before call{more}", rules


def sampling_fields(sampling: Sampling, temperature: float, seed: int) -> Chunk:
    """Every field that llama.cpp would otherwise fill with a default of its own.

    `temperature` is the model's own, for who names none.
    """
    return {
        "temperature": temperature if sampling.temperature is None else sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        # The whole context, as others count it; llama.cpp would look at 64 tokens.
        "repeat_last_n": REPEAT_LAST_N,
        "seed": seed,
        "typical_p": 1.0,
        "top_n_sigma": -1.0,
        "xtc_probability": 0.0,
        "dry_multiplier": 0.0,
        "dynatemp_range": 0.0,
        "mirostat": 0,
    }
