"""All routes of the gateway. The default-deny test walks this list."""

from __future__ import annotations

from inferd.api.manage import server, tokens, usage
from inferd.api.native import models as native_models
from inferd.api.native.inference import inference
from inferd.api.native.text_generation import TextGenerationIn, TextGenerationOut
from inferd.api.openai import models as openai_models
from inferd.api.openai.chat import ChatIn, ChatOut, chat
from inferd.api.openai.completions import CompletionIn, CompletionOut, completions
from inferd.api.routes import Endpoint, Route


def _both(
    method: str, path: str, endpoint: Endpoint, summary: str, takes: type, gives: type
) -> list[Route]:
    """OpenAI routes stand under two prefixes (deepinfra-api 1.1)."""
    return [
        Route(method, prefix + path, endpoint, "token", "openai", summary, takes, gives)
        for prefix in ("/v1/openai", "/v1")
    ]


def _catalogue() -> list[Route]:
    routes: list[Route] = []
    for prefix in ("/v1/openai", "/v1"):
        routes += [
            Route(
                "GET",
                f"{prefix}/models",
                openai_models.models,
                "catalogue",
                "openai",
                "All models",
                gives=openai_models.ModelList,
            ),
            Route(
                "GET",
                f"{prefix}/models/{{rest}}",
                openai_models.model,
                "catalogue",
                "openai",
                "One model",
                gives=openai_models.ModelEntry,
            ),
        ]
    routes += [
        Route(
            "GET",
            "/models/list",
            native_models.model_list,
            "catalogue",
            "native",
            "All models with prices",
        ),
        Route(
            "GET",
            "/models/{rest}",
            native_models.model_details,
            "catalogue",
            "native",
            "One model with schemas and examples",
            gives=native_models.ModelDetails,
        ),
    ]
    return routes


def _server() -> list[Route]:
    admin = "admin"
    return [
        Route("GET", "/health", server.health, "public", "native", "Alive?", gives=server.Health),
        Route("GET", "/metrics", server.metrics, admin, "native", "Prometheus metrics"),
        Route(
            "GET",
            "/v1/status",
            server.status,
            admin,
            "native",
            "Replicas and queues",
            gives=server.ServerStatus,
        ),
    ]


def _account() -> list[Route]:
    admin = "admin"
    return [
        Route("GET", "/v1/api-tokens", tokens.list_tokens, admin, "native", "API tokens, masked"),
        Route(
            "POST",
            "/v1/api-tokens",
            tokens.create_token,
            admin,
            "native",
            "Create an API token",
            tokens.TokenIn,
            tokens.TokenOut,
        ),
        Route(
            "GET",
            "/v1/api-tokens/id/{rest}",
            tokens.show_token,
            admin,
            "native",
            "One API token, masked",
            gives=tokens.TokenOut,
        ),
        Route(
            "DELETE",
            "/v1/api-tokens/id/{rest}",
            tokens.revoke_token,
            admin,
            "native",
            "Revoke an API token, at once",
        ),
        Route(
            "GET",
            "/v1/usage",
            usage.usage_report,
            "token",
            "native",
            "Usage and cost of the account, by model, token, day, month or end user",
            gives=usage.UsageReport,
        ),
        Route(
            "POST",
            "/v1/usage/verify",
            usage.verify_usage,
            admin,
            "native",
            "Recompute the ledger",
            gives=usage.VerificationOut,
        ),
    ]


def _all() -> list[Route]:
    routes = [
        *_both("POST", "/chat/completions", chat, "Chat with a model", ChatIn, ChatOut),
        *_both("POST", "/completions", completions, "Continue text", CompletionIn, CompletionOut),
        Route(
            "POST",
            "/v1/inference/{rest}",
            inference,
            "token",
            "native",
            "Call a model natively (text generation)",
            TextGenerationIn,
            TextGenerationOut,
        ),
        *_catalogue(),
        *_server(),
        *_account(),
    ]
    documents = server.Documents(routes)
    routes += [
        Route("GET", "/openapi.json", documents.openapi, "token", "native", "This document"),
        Route("GET", "/docs", documents.page, "token", "native", "This document as a page"),
    ]
    return routes


ROUTES: list[Route] = _all()
