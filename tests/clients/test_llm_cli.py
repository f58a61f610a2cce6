"""The command line tool llm, with the server's models in its extra-openai-models.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.support import WEATHER, openai_base, package
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

pytestmark = [pytest.mark.clients, pytest.mark.engine]

SECONDS_MAX = 60
SHORT = ["-o", "max_tokens", "16"]
KINDS: dict[str, dict[str, Any]] = {
    "chat": {"supports_schema": True, "supports_tools": True},
    "words": {"completion": True},
    "responses": {"responses": True, "supports_schema": True, "supports_tools": True},
}


@pytest.fixture
def home(server: InferdProcess, tmp_path: Path) -> Path:
    """Its folder. JSON is YAML too."""
    package("llm")
    same = {"model_name": SMOLLM2, "api_base": openai_base(server), "api_key_name": "inferd"}
    models = [{"model_id": kind, **same, **can} for kind, can in KINDS.items()]
    models.append({"model_id": "missing", **same, "model_name": "no/such"})
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))
    (tmp_path / "keys.json").write_text(json.dumps({"inferd": TOKEN}))
    return tmp_path


def llm(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LLM_USER_PATH": str(home)}
    command = [sys.executable, "-m", "llm", *arguments]
    return subprocess.run(
        command,
        env=environment,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


@pytest.mark.parametrize("kind", ["chat", "responses"])
@pytest.mark.parametrize("more", [[], ["--no-stream"]], ids=["streamed", "plain"])
def test_a_prompt_is_answered(home: Path, kind: str, more: list[str]) -> None:
    told = llm(home, "What is the capital of France?", "-m", kind, *SHORT, *more)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip()


def test_a_completion_is_printed(home: Path) -> None:
    told = llm(home, "The capital of France is", "-m", "words", *SHORT)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip()


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_schema_binds_the_text(home: Path, kind: str) -> None:
    told = llm(home, "Paris", "-m", kind, "--schema", json.dumps(WEATHER))
    assert told.returncode == 0, told.stderr
    assert list(json.loads(told.stdout)) == ["city"]


def test_tools_are_offered(home: Path) -> None:
    functions = 'def get_weather(city: str) -> str:\n    "The weather."\n    return "Sunny"\n'
    told = llm(home, "The weather in Paris?", "-m", "chat", "--functions", functions, *SHORT)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip()


def test_a_refusal_is_told(home: Path) -> None:
    told = llm(home, "Hello", "-m", "missing")
    assert told.returncode != 0
    assert "no/such" in told.stderr
