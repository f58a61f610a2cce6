"""Everything inferd may say no with: one tree, drawn here in the order of definition.

InferdError
├── BadRequest 400            a value is wrong; `param` names the field
│   ├── UnsupportedField      the contract has the field, this version does not honour it
│   ├── ContextLengthExceeded prompt + max_tokens do not fit the model
│   ├── UrlNotAllowed         a URL that is not fetched, or an address that is not public
│   └── UrlUnreadable         a URL behind which nothing could be read
├── Unauthorized 401          no credential, or a wrong one
├── PaymentRequired 402       the budget is spent
├── Forbidden 403             a valid credential without the right
├── NotFound 404              no such thing (or not yours)
│   └── ModelNotFound
├── MethodNotAllowed 405
├── FetchTimedOut 408         a URL took too long
├── Conflict 409
│   ├── IdempotencyKeyInUse   the first call of the key runs; carries Retry-After
│   └── AnswerNotKept         the first call was answered, its answer is gone
├── Gone 410                  a form of the contract that is no longer answered
├── PayloadTooLarge 413
├── UnsupportedMediaType 415
├── Unprocessable 422         a value of an account that is wrong
├── IdempotencyKeyReused 422  the key was used for another request
├── TooManyRequests 429       a limit was hit, or the queue is full; carries Retry-After
├── EngineFailed 500          the engine broke while it worked
├── UpstreamFailed 502        a model server answered with an error
├── Unavailable 503           draining, loading for too long, cannot load; carries Retry-After
└── ClientGone 499            never rendered: the client left

An error knows its code, its status and the sentence that callers may read. `detail` is for
the log alone. Rooms raise, `api/errors.py` renders per dialect.
"""

from __future__ import annotations

from typing import ClassVar


class InferdError(Exception):
    """The root. `str(error)` is the public sentence."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    kind: ClassVar[str] = "server_error"
    """OpenAI's `error.type`."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_seconds: float | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        self.detail = detail


class BadRequest(InferdError):
    """A value is wrong. `param` names the field with a dotted path."""

    status, code, kind = 400, "bad_request", "invalid_request_error"


class UnsupportedField(BadRequest):
    """The contract knows the field; this version does not honour it, and says so."""

    code = "unsupported_field"


class ContextLengthExceeded(BadRequest):
    """Prompt and `max_tokens` do not fit the context."""

    code = "context_length_exceeded"


class UrlNotAllowed(BadRequest):
    """A URL that is not plain, or that leads to an address that is not public."""

    code = "url_not_allowed"


class UrlUnreadable(BadRequest):
    """Behind a URL there was nothing to read."""

    code = "url_unreadable"


class Unauthorized(InferdError):
    """No credential, or one that is wrong, revoked or expired."""

    status, code, kind = 401, "invalid_api_key", "invalid_request_error"


class PaymentRequired(InferdError):
    """The budget does not cover the most that the request can cost."""

    status, code, kind = 402, "insufficient_balance", "insufficient_quota"


class Forbidden(InferdError):
    """The credential is valid and does not carry this right."""

    status, code, kind = 403, "forbidden", "invalid_request_error"


class NotFound(InferdError):
    """No such thing, or it belongs to somebody else."""

    status, code, kind = 404, "not_found", "invalid_request_error"


class ModelNotFound(NotFound):
    """No model of this name is in the catalogue."""

    code = "model_not_found"


class MethodNotAllowed(InferdError):
    """The path exists, the method does not."""

    status, code, kind = 405, "method_not_allowed", "invalid_request_error"


class FetchTimedOut(InferdError):
    """What a URL leads to did not come in time."""

    status, code, kind = 408, "url_timeout", "invalid_request_error"


class Conflict(InferdError):
    """The name is taken, or the state forbids it."""

    status, code, kind = 409, "conflict", "invalid_request_error"


class IdempotencyKeyInUse(Conflict):
    """The first call of this Idempotency-Key has not come to its end."""

    code = "idempotency_key_in_use"


class AnswerNotKept(Conflict):
    """The first call of this Idempotency-Key was answered and billed; its answer is gone."""

    code = "idempotent_answer_not_kept"


class Gone(InferdError):
    """A form of the contract that is no longer answered; the message says what to call instead."""

    status, code, kind = 410, "gone", "invalid_request_error"


class PayloadTooLarge(InferdError):
    """The body is over its cap, compressed or not."""

    status, code, kind = 413, "payload_too_large", "invalid_request_error"


class UnsupportedMediaType(InferdError):
    """A content type or encoding that is not accepted."""

    status, code, kind = 415, "unsupported_media_type", "invalid_request_error"


class Unprocessable(InferdError):
    """A value of an account that is wrong, where the contract wants 422 and one sentence."""

    status, code, kind = 422, "unprocessable", "invalid_request_error"


class IdempotencyKeyReused(InferdError):
    """The same Idempotency-Key with another request."""

    status, code, kind = 422, "idempotency_key_reused", "invalid_request_error"


class TooManyRequests(InferdError):
    """A limit was hit or the queue is full. The message names which."""

    status, code, kind = 429, "rate_limit_exceeded", "rate_limit_error"


class EngineFailed(InferdError):
    """The engine broke while it worked."""

    status, code = 500, "engine_failed"


class UpstreamFailed(InferdError):
    """A model server answered with an error or went away."""

    status, code = 502, "upstream_failed"


class Unavailable(InferdError):
    """Not now: draining, loading, out of memory, storage full."""

    status, code = 503, "unavailable"


class ClientGone(InferdError):
    """The client left. Raised inside, never rendered."""

    status, code = 499, "client_gone"


def _leaves(root: type[InferdError]) -> dict[str, type[InferdError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _leaves(child)
    return found


BY_CODE: dict[str, type[InferdError]] = _leaves(InferdError)
"""code → class: how an error crosses a process border and is itself again."""
