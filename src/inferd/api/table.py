"""All routes of the gateway. The default-deny test walks this list."""

from __future__ import annotations

from inferd.api.anthropic.count_tokens import count_tokens
from inferd.api.anthropic.messages import messages
from inferd.api.anthropic.wire import CountTokensIn, CountTokensOut, MessagesIn, MessagesOut
from inferd.api.live import LiveFigures
from inferd.api.manage import account, server, usage
from inferd.api.manage.accounts import account_routes
from inferd.api.manage.audit import audit_routes
from inferd.api.manage.credit import credit_routes
from inferd.api.manage.gateways import gateway_routes
from inferd.api.manage.invoices import invoice_routes
from inferd.api.manage.limits import limit_routes
from inferd.api.manage.me import me_routes
from inferd.api.manage.payment import payment_routes
from inferd.api.manage.payment_usage import payment_usage_routes
from inferd.api.manage.prices import price_routes
from inferd.api.manage.scoped_jwt import scoped_jwt_routes
from inferd.api.manage.sign_in import sign_in_routes
from inferd.api.manage.sign_in_pages import sign_in_page_routes
from inferd.api.manage.teams import team_routes
from inferd.api.manage.tokens import token_routes
from inferd.api.manage.webhooks import webhook_routes
from inferd.api.native import models as native_models
from inferd.api.native.inference import inference
from inferd.api.native.text_generation import TextGenerationIn, TextGenerationOut
from inferd.api.openai import models as openai_models
from inferd.api.openai.chat import ChatIn, chat
from inferd.api.openai.chat_answer import ChatOut
from inferd.api.openai.completions import CompletionIn, CompletionOut, completions
from inferd.api.openai.responses import create_response, stored_response
from inferd.api.openai.responses_in import ResponseIn
from inferd.api.openai.responses_out import ResponseOut
from inferd.api.routes import Access, Route, both
from inferd.api.task_routes import task_routes
from inferd.api.tokenization import (
    DetokenizeIn,
    DetokenizeOut,
    TokenizeIn,
    TokenizeOut,
    detokenize,
    tokenize,
)

_EMPTY_LISTS: list[tuple[str, Access, str]] = [
    ("featured", "catalogue", "Featured models: none"),
    ("lora/list", "catalogue", "Adapters: none"),
    ("private/list", "inference", "The account's own models: none"),
    ("deployment/list", "inference", "Models of the account's deployments: none"),
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
        *(
            Route("GET", f"/models/{name}", native_models.no_models, access, "native", summary)
            for name, access, summary in _EMPTY_LISTS
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


def _responses() -> list[Route]:
    summary = "Answer as a response object, which is not stored"
    routes = both("POST", "/responses", create_response, summary, ResponseIn, ResponseOut)
    for prefix in ("/v1/openai", "/v1"):
        path = f"{prefix}/responses/{{rest}}"
        for method in ("GET", "DELETE"):
            summary = "Always 404: responses are not stored"
            routes.append(Route(method, path, stored_response, "inference", "openai", summary))
    return routes


def _server() -> list[Route]:
    admin = "admin"
    return [
        Route(
            "GET",
            "/cli/version",
            account.cli_version,
            "public",
            "native",
            "Which command line tools are welcome",
            gives=account.CliVersion,
        ),
        Route(
            "GET",
            "/v1/metrics/live",
            account.live,
            "token",
            "native",
            "Figures of the last minute",
            gives=LiveFigures,
        ),
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
        Route(
            "POST",
            "/v1/request-costs",
            account.request_costs,
            "token",
            "native",
            "What single requests of the account cost",
            account.RequestCostsIn,
            account.RequestCostsOut,
        ),
        Route(
            "GET",
            "/v1/usage",
            usage.usage_of,
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


def _tokenizer() -> list[Route]:
    return [
        Route(
            "POST",
            f"/v1/{name}",
            endpoint,
            "inference",
            "openai",
            summary,
            takes,
            gives,
        )
        for name, endpoint, summary, takes, gives in (
            ("tokenize", tokenize, "Tokens of a prompt", TokenizeIn, TokenizeOut),
            ("detokenize", detokenize, "Text of tokens", DetokenizeIn, DetokenizeOut),
        )
    ]


def _anthropic() -> list[Route]:
    path, shape = "/anthropic/v1/messages", "anthropic"
    summary = "Chat with a model, as Anthropic's clients do"
    return [
        Route("POST", path, messages, "inference", shape, summary, MessagesIn, MessagesOut),
        Route(
            "POST",
            f"{path}/count_tokens",
            count_tokens,
            "inference",
            shape,
            "Count the tokens of a prompt",
            CountTokensIn,
            CountTokensOut,
        ),
    ]


def _all() -> list[Route]:
    routes = [
        *both("POST", "/chat/completions", chat, "Chat with a model", ChatIn, ChatOut),
        *both("POST", "/completions", completions, "Continue text", CompletionIn, CompletionOut),
        Route(
            "POST",
            "/v1/inference/{rest}",
            inference,
            "inference",
            "native",
            "Call a model natively, whatever its task; the schema shown is text generation's",
            TextGenerationIn,
            TextGenerationOut,
        ),
        *task_routes(),
        *_anthropic(),
        *_responses(),
        *_tokenizer(),
        *_catalogue(),
        *_server(),
        *_account(),
        *token_routes(),
        *me_routes(),
        *team_routes(),
        *account_routes(),
        *scoped_jwt_routes(),
        *audit_routes(),
        *sign_in_routes(),
        *sign_in_page_routes(),
        *limit_routes(),
        *price_routes(),
        *gateway_routes(),
        *credit_routes(),
        *payment_routes(),
        *payment_usage_routes(),
        *invoice_routes(),
        *webhook_routes(),
    ]
    documents = server.Documents(routes)
    routes += [
        Route("GET", "/openapi.json", documents.openapi, "token", "native", "This document"),
        Route("GET", "/docs", documents.page, "token", "native", "This document as a page"),
    ]
    return routes


ROUTES: list[Route] = _all()
