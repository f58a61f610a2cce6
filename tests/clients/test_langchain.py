"""langchain-openai under LangChain's standard tests of a chat model."""

# The base classes come from a package that the tools of development do not have.
# pyright: reportUntypedBaseClass=false, reportUnknownMemberType=false

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.support import openai_base, package
from tests.process import TOKEN, InferdProcess
from tests.weights import SMOLLM2

# Its own dependencies warn about each other.
pytestmark = [
    pytest.mark.clients,
    pytest.mark.engine,
    # One loop for all tests: ChatOpenAI keeps its connections from one test to the next.
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
]

_OPENAI: Any = package("langchain_openai")
_UNIT: Any = package("langchain_tests.unit_tests").ChatModelUnitTests
_INTEGRATION: Any = package("langchain_tests.integration_tests").ChatModelIntegrationTests


class Capabilities:
    """What SmolLM2 can take: it reads text alone, so LangChain's tests of images, audio and PDF
    stay off, as they are by default."""

    base_url = "http://127.0.0.1:9/v1/openai"

    @property
    def chat_model_class(self) -> Any:
        return _OPENAI.ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": SMOLLM2,
            "base_url": self.base_url,
            "api_key": TOKEN,
            "temperature": 0,
            # Else so small a model repeats itself in a free string until the tokens are spent.
            "frequency_penalty": 0.6,
        }

    @property
    def supports_image_inputs(self) -> bool:
        return False

    @property
    def supports_image_urls(self) -> bool:
        return False

    @property
    def supports_pdf_inputs(self) -> bool:
        return False

    @property
    def supports_audio_inputs(self) -> bool:
        return False

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "t/echo"


class TestUnit(Capabilities, _UNIT):
    """What needs no server."""

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        environment = {"OPENAI_API_KEY": TOKEN, "OPENAI_API_BASE": self.base_url}
        expected = {"openai_api_key": TOKEN, "openai_api_base": self.base_url}
        return environment, {"model": SMOLLM2}, expected


class TestIntegration(Capabilities, _INTEGRATION):
    """What needs one."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return super().chat_model_params | {"max_tokens": 200}

    @pytest.fixture(autouse=True, scope="class")
    def _serve(self, server: InferdProcess) -> None:
        TestIntegration.base_url = openai_base(server)

    @pytest.mark.xfail(reason="it leaves out a key that only the prompt asks for", strict=False)
    def test_json_mode(self, model: Any) -> None:
        super().test_json_mode(model)

    @pytest.mark.xfail(reason="it answers in words where a call is free to make", strict=False)
    def test_agent_loop(self, model: Any) -> None:
        super().test_agent_loop(model)

    @pytest.mark.xfail(reason="it calls with another Japanese name than it was told", strict=False)
    def test_unicode_tool_call_integration(self, model: Any) -> None:
        super().test_unicode_tool_call_integration(model)
