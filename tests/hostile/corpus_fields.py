"""Numbers, lists and names out of their bounds; fields that belong to engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.hostile.attack import (
    BASES,
    CHAT,
    COMPLETIONS,
    COSTS,
    COUNT,
    DETOKENIZE,
    MESSAGES,
    NATIVE,
    RESPONSES,
    TOKENIZE,
    Attack,
    attack,
    chat,
    refusal_status,
    with_text,
)

NUMBERS: dict[str, tuple[str, ...]] = {
    CHAT: (
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "min_p",
        "top_k",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "n",
        "top_logprobs",
    ),
    COMPLETIONS: ("max_tokens", "temperature", "n", "logprobs", "best_of"),
    RESPONSES: ("max_output_tokens", "temperature", "top_p", "top_k", "top_logprobs"),
    MESSAGES: ("max_tokens", "temperature", "top_p", "top_k"),
    NATIVE: (
        "max_new_tokens",
        "temperature",
        "top_p",
        "min_p",
        "top_k",
        "repetition_penalty",
        "presence_penalty",
        "num_responses",
    ),
}
NO_JSON = ("NaN", "-Infinity", "1_000", "+1", "١")
OUT_OF_BOUNDS = (
    "1e309",
    "-1E400",
    "-1000000000",
    "1000000000000",
    "9" * 5000,
    '"1"',
    "[1]",
    "{}",
    "true",
)


def _numbers() -> Iterator[Attack]:
    for path, fields in NUMBERS.items():
        for field in fields:
            for text in NO_JSON:
                body = with_text(path, field, text)
                yield attack(f"{path} {field}={text}", path, body, 400)
            for text in OUT_OF_BOUNDS:
                body = with_text(path, field, text)
                name = f"{path} {field}={text[:16]}"
                yield attack(name, path, body, refusal_status(path))


def _edges() -> Iterator[Attack]:
    bounds: dict[str, tuple[Any, ...]] = {
        "n": (0, 5, 1_000_000_000),
        "max_tokens": (0, -1, 10_000_001),
        "temperature": (-0.001, 2.001),
        "top_p": (0, 1.001),
        "min_p": (-0.001, 1.001),
        "top_k": (-1, 1000),
        "presence_penalty": (-2.001, 2.001),
        "frequency_penalty": (-2.001, 2.001),
        "repetition_penalty": (0, 0.009, 5.001),
        "seed": (-(2**63) - 1, 2**64 + 1, 1.5, "1"),
        "logit_bias": (
            {"a": 1},
            {"-1": 1},
            {"1.5": 1},
            {"": 1},
            {"٣": 1},
            {"0x1": 1},
            {"99999999999": 1},
            {"1": 101},
            {"1": -101},
            {"1": "1"},
            {"1": None},
            [],
            {str(index): 1 for index in range(1025)},
        ),
        "stop": ("", [""], ["a"] * 17, ["a"] * 1_000_000, "a" * 1025, [1], {}, [["a"]], [None]),
        "stop_token_ids": ([-1], [2**31], [1] * 17, ["1"], [1.5], 1, [[1]]),
        "user": ("u" * 257, 1, ["u"], {}),
        "models": (["a"] * 5, [""], ["deploy_id:x"], ["a:v1"], "a", [1], ["m" * 513]),
        "service_tier": ("free", "", "PRIORITY", 1),
        "stream": ("true", 1, []),
        "stream_options": ({"include_usage": "yes"}, [], "x", {"include_usage": True}),
        "prompt_cache_key": ("k" * 257, 1),
        "prompt_cache_options": ({"mode": "explicit"}, {"mode": "x"}, {"ttl": "9h"}, 1),
        "reasoning_effort": ("extreme", 1, ""),
        "reasoning": ({"effort": "extreme"}, {"effort": 1}, "high"),
        "logprobs": (2, "true"),
        "top_logprobs": (21, -1, 5),
        "functions": ([{"name": "f"}],),
        "function_call": ("auto",),
    }
    for field, values in bounds.items():
        for index, value in enumerate(values):
            yield chat(f"{field} #{index}", 400, **{field: value})


def _ids_of_tokens() -> Iterator[Attack]:
    huge = [0] * 100_001
    prompts: dict[str, Any] = {
        "negative": [-1],
        "huge": [2**31],
        "of 64 bits": [2**63],
        "fraction": [1.5],
        "text and id": ["a", 1],
        "two texts": ["a", "b"],
        "two lists": [[1], [2]],
        "nested": [[[1]]],
        "null": [None],
        "empty": [],
        "empty inside": [[]],
        "bool": [True],
        "100 001 of them": huge,
        "object": {"ids": [1]},
        "number": 1,
        "no text": None,
    }
    for name, prompt in prompts.items():
        yield attack(f"ids: {name}", COMPLETIONS, {**BASES[COMPLETIONS], "prompt": prompt})
    body = {**BASES[COMPLETIONS], "prompt": [2**31 - 1]}
    yield attack("ids: outside of the vocabulary", COMPLETIONS, body)
    body = {**BASES[COMPLETIONS], "prompt": [[1] * 1_000_000]}
    yield attack("ids: a million in a list", COMPLETIONS, body)
    yield chat("logit_bias outside of the vocabulary", logit_bias={"4000000000": 1})
    yield chat("stop_token_ids outside of the vocabulary", stop_token_ids=[2**31 - 1], echo=0)


def _ids_elsewhere() -> Iterator[Attack]:
    for name, tokens in {
        "negative": [-1],
        "huge": [2**31],
        "text": ["1"],
        "nested": [[1]],
        "1 000 001 of them": [0] * 1_000_001,
        "null": None,
    }.items():
        body = {**BASES[DETOKENIZE], "tokens": tokens}
        yield attack(f"detokenize: {name}", DETOKENIZE, body, refusal_status(DETOKENIZE))
    body = {**BASES[DETOKENIZE], "tokens": [2**31 - 1]}
    yield attack("detokenize: outside of the vocabulary", DETOKENIZE, body)
    for name, fields in {
        "neither": {"prompt": None},
        "both": {"messages": BASES[CHAT]["messages"]},
    }.items():
        yield attack(f"tokenize: {name}", TOKENIZE, {**BASES[TOKENIZE], **fields})
    for name, fields in {
        "messages of numbers": {"prompt": None, "messages": [1]},
        "a number": {"prompt": 1},
        "tools of text": {"prompt": None, "messages": BASES[CHAT]["messages"], "tools": ["x"]},
    }.items():
        body = {**BASES[TOKENIZE], **fields}
        yield attack(f"tokenize: {name}", TOKENIZE, body, refusal_status(TOKENIZE))
    costs: dict[str, Any] = {
        "a number": 1,
        "numbers": [1],
        "null": None,
        "objects": [{}],
        "long": ["R" * 65],
    }
    for name, ids in costs.items():
        body = {"requestIds": ids}
        yield attack(f"request-costs: {name}", COSTS, body, refusal_status(COSTS))
    body = {"requestIds": ["R" * 24] * 300_000}
    yield attack("request-costs: 300 000", COSTS, body, refusal_status(COSTS))
    for name in ("' OR 1=1 --", "%", "R\u0000", "../../x", "R" * 64):
        yield attack(f"request-costs: {name[:12]!r}", COSTS, {"requestIds": [name]}, 200)


PRIVATE: dict[str, Any] = {
    "n_discard": -1,
    "id_slot": 999_999,
    "cache_prompt": True,
    "grammar": 'root ::= "HACKED"',
    "json_schema": {"type": "string"},
    "samplers": ["nonsense"],
    "lora": [{"id": 0, "scale": 1e30}],
    "n_predict": -1,
    "n_keep": -1,
    "n_probs": 1_000_000,
    "n_indent": 1 << 30,
    "t_max_predict_ms": -1,
    "return_progress": False,
    "timings_per_token": False,
    "post_sampling_probs": True,
    "speculative.n_max": 1 << 30,
    "request_id": "R" + "0" * 23,
    "priority": -1,
    "prompt_embeds": "AAAA",
    "use_beam_search": True,
    "guided_json": {"type": "string"},
    "guided_regex": "(a+)+$",
    "chat_template": "{% for i in range(10**9) %}x{% endfor %}",
    "add_generation_prompt": False,
    "cache_salt": "other account",
    "cache_scope": "other account",
    "kv_transfer_params": {"do_remote_prefill": True},
    "account_id": "acc_other",
    "__proto__": {"admin": True},
    "constructor": {"prototype": {}},
    "dry_multiplier": 1e30,
    "mirostat": 99,
    "typical_p": -1,
    "xtc_probability": 2,
    "dynatemp_range": -5,
}
"""Fields of engines. They are outside of the contract, so they are ignored."""


def _private() -> Iterator[Attack]:
    for path in (CHAT, COMPLETIONS, RESPONSES, MESSAGES, NATIVE):
        yield attack(f"{path} all private fields", path, {**PRIVATE, **BASES[path]}, 200)
    for field, value in PRIVATE.items():
        yield chat(f"private {field}", 200, **{field: value})


TEMPLATE_KWARGS: list[Any] = [
    {"tokenize": True},
    {"chat_template": "{{ 7 * 7 }}"},
    {"messages": []},
    {"add_generation_prompt": False},
    {"bos_token": "x"},
    {"eos_token": ""},
    {"raise_exception": 1},
    {"strftime_now": 1},
    {"self": 1},
    {"environment": 1},
    {"__class__": 1},
    {"return_dict": True},
    {"continue_final_message": True},
    {"documents": [{}] * 10},
    {f"k{index}": 1 for index in range(17)},
    {"enable_thinking" + " " * 100_000: 1},
    [],
    "enable_thinking",
]


def _templates() -> Iterator[Attack]:
    for index, kwargs in enumerate(TEMPLATE_KWARGS):
        yield chat(f"chat_template_kwargs #{index}", chat_template_kwargs=kwargs)
    for value in ("[1]", '{"a": {}}', "1e400", "NaN", "1.5"):
        body = with_text(CHAT, "chat_template_kwargs", f'{{"enable_thinking": {value}}}')
        yield attack(f"chat_template_kwargs value {value}", CHAT, body, 400)
    body = {**BASES[RESPONSES], "chat_template_kwargs": {"tokenize": True}}
    yield attack("responses: chat_template_kwargs", RESPONSES, body)


def _names_of_models() -> Iterator[Attack]:
    names = (
        "../../etc/passwd",
        "/etc/passwd",
        "..\\..\\windows",
        "test/model\u0000.gguf",
        "test/model%00",
        "%2e%2e/%2e%2e",
        "test\u2215model",
        "TEST/MODEL",
        "test/model ",
        "test/model:latest",
        "'; DROP TABLE entries; --",
        "x' UNION SELECT digest FROM tokens --",
        "<script>alert(1)</script>",
        "{{7*7}}",
        "${jndi:ldap://127.0.0.1/x}",
        "$(reboot)",
        "http://169.254.169.254/latest",
        "file:///proc/self/environ",
        "m" * 512,
        "\u202emodel",
        "\r\nset-cookie: x=1",
    )
    for name in names:
        yield chat(f"model {name[:24]!r}", 404, model=name)
    wrong: tuple[Any, ...] = (1, None, [], {}, "", "m" * 513, "m" * 1_000_000)
    for name in wrong:
        yield chat(f"model {str(name)[:12]!r}", 400, model=name)
    for path in (COMPLETIONS, RESPONSES, MESSAGES, COUNT, TOKENIZE, DETOKENIZE):
        body = {**BASES[path], "model": names[0]}
        yield attack(f"{path} model {names[0]}", path, body, 404)


FIELDS: dict[str, list[Attack]] = {
    "numbers": list(_numbers()),
    "edges": list(_edges()),
    "token ids": [*_ids_of_tokens(), *_ids_elsewhere()],
    "private fields": list(_private()),
    "templates": list(_templates()),
    "names of models": list(_names_of_models()),
}
