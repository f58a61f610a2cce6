"""Ten million entries of one month, made inside the database: SQLite or PostgreSQL.

Costs are exact at the one price there is, so `usage verify` finds nothing wrong with them.
"""

from __future__ import annotations

DAY_NS = 86_400_000_000_000
ACCOUNTS, TOKENS_EACH, MODELS, END_USERS = 200, 5, 12, 2000
INPUT, CACHED, OUTPUT = 20, 10, 40
"""Nano-dollars for each token."""

# Spread by multiplications with primes. Every fifth request is of account 0, token 0 to 4.
_TOKEN = "(CASE WHEN i % 5 = 0 THEN (i / 5) % 5 ELSE (i * 7919 + i / 1000) % 1000 END)"
_INPUT, _CACHED, _OUTPUT = "(200 + i % 800)", "(i % 150)", "(50 + i % 300)"
_TIER = "(CASE WHEN i % 10 = 3 THEN 'flex' ELSE 'default' END)"
_FULL = f"(({_INPUT} - {_CACHED}) * {INPUT} + {_CACHED} * {CACHED} + {_OUTPUT} * {OUTPUT})"
_SHARE = "(CASE WHEN i % 10 = 3 THEN 8 ELSE 10 END)"

COLUMNS = {
    "request_id": "{id}",
    "account_id": f"'acc_' || ({_TOKEN} / {TOKENS_EACH})",
    "token_id": f"'tok_' || {_TOKEN}",
    "model": f"'org/model-' || (({_TOKEN} + (i / 7) % 3) % {MODELS})",
    "task": "'text-generation'",
    "dialect": "'openai'",
    "streamed": "(i % 2 = 0)",
    "status": "'succeeded'",
    "stage": "'done'",
    "end_user": f"(CASE WHEN i % 4 = 0 THEN 'user-' || (i / 4 % {END_USERS}) END)",
    "input_tokens": _INPUT,
    "cached_tokens": _CACHED,
    "output_tokens": _OUTPUT,
    "estimated": "(1 = 0)",
    "price_id": f"1000 + ({_TOKEN} + (i / 7) % 3) % {MODELS}",
    "cost_nanos": f"{_FULL} * {_SHARE} / 10",
    "created_unix_ns": "{start} + i * {step}",
    "settled_unix_ns": "{start} + i * {step} + 900000000",
    "queue_ms": "3",
    "first_event_ms": "40",
    "runtime_ms": "800",
    "tier": _TIER,
    "quantity": "0",
    "tag": "(CASE WHEN i % 3 = 0 THEN 'shop' END)",
}


def setup() -> list[str]:
    """Accounts, tokens and prices that the entries belong to."""
    statements = [
        f"INSERT INTO accounts (id, name, created_unix_ns) VALUES ('acc_{n}', 'team {n}', 1)"
        for n in range(ACCOUNTS)
    ]
    statements += [
        "INSERT INTO tokens (id, account_id, name, digest, fragment, scopes, created_unix_ns) "
        f"VALUES ('tok_{n}', 'acc_{n // TOKENS_EACH}', 'token {n}', {digest(n)}, 'xxxxx', '', 1)"
        for n in range(ACCOUNTS * TOKENS_EACH)
    ]
    rates = f"{INPUT * 10**6}, {CACHED * 10**6}, {OUTPUT * 10**6}"
    statements += [
        "INSERT INTO prices (id, model, input_rate, cached_rate, output_rate, valid_from_unix_ns, "
        f"flex_millionths) VALUES ({1000 + n}, 'org/model-{n}', {rates}, 1, 800000)"
        for n in range(MODELS)
    ]
    return statements


def digest(number: int) -> str:
    """A literal that both databases read as bytes; nobody calls with it."""
    return f"'{number:032d}'"


def entries(dialect: str, first: int, count: int, total: int, start_unix_ns: int) -> str:
    """One statement that inserts `count` of `total` entries, spread over thirty days."""
    number = "'00000000000000000000000' || i"
    padded = f"substr({number}, -23)" if dialect == "sqlite" else f"right({number}, 23)"
    named = {
        "id": f"'R' || {padded}",
        "start": str(start_unix_ns),
        "step": str(30 * DAY_NS // total),
    }
    values = ", ".join(value.format(**named) for value in COLUMNS.values())
    last = first + count - 1
    source = (
        f"(WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) "
        "SELECT i FROM n)"
        if dialect == "sqlite"
        else f"(SELECT i FROM generate_series({first}::bigint, {last}::bigint) AS g(i)) AS n"
    )
    return f"INSERT INTO entries ({', '.join(COLUMNS)}) SELECT {values} FROM {source}"


def purses() -> list[str]:
    """What was spent of each budget, of entries that lie in one month."""
    into = "INSERT INTO purses (key, spent_nanos) SELECT"
    return [
        f"{into} 'credit:' || account_id, SUM(cost_nanos) FROM entries GROUP BY 1",
        f"{into} 'month:' || account_id || ':{{month}}', SUM(cost_nanos) FROM entries GROUP BY 1",
        f"{into} 'token:' || token_id || ':{{month}}', SUM(cost_nanos) FROM entries GROUP BY 1",
    ]
