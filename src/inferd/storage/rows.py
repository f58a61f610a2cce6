"""What storage returns: its own Structs, one for each table."""

from __future__ import annotations

from typing import Literal

import msgspec

EntryStatus = Literal["succeeded", "cancelled", "failed"]
PriceSource = Literal["card", "admin"]


AccountKind = Literal["personal", "team"]
Role = Literal["admin", "member"]


class AccountRow(msgspec.Struct, frozen=True):
    """Who pays."""

    id: str
    name: str
    created_unix_ns: int
    credit_nanos: int | None
    """Prepaid credit; None: no budget is set, nothing is reserved."""
    kind: AccountKind = "personal"
    profile: str = "{}"
    """A JSON object: what its owner says of himself."""
    suspended: str | None = None
    """Why it may not spend at the moment."""
    deleted_unix_ns: int | None = None
    monthly_limit_nanos: int | None = None
    """What it may spend in a month of UTC; None: no limit."""


class TokenRow(msgspec.Struct, frozen=True):
    """An API token; the secret itself is nowhere."""

    id: str
    account_id: str
    name: str
    digest: bytes
    """Keyed BLAKE2b of the secret under the installation's key."""
    fragment: str
    """The secret's last five characters, for recognition."""
    scopes: tuple[str, ...]
    created_unix_ns: int
    revoked_unix_ns: int | None = None
    person_id: str | None = None
    """Whose it is; None: the account's."""
    expires_unix_ns: int | None = None
    allowed_ips: tuple[str, ...] | None = None
    """Networks that it may be used from; None: anywhere."""
    allowed_models: tuple[str, ...] | None = None
    sealed: bytes | None = None
    """The secret under the installation's key, for verifying JWTs; None: never used since 0005."""
    monthly_limit_nanos: int | None = None
    """What it may spend in a month of UTC; None: no limit."""


class PersonRow(msgspec.Struct, frozen=True):
    """Somebody who signs in."""

    id: str
    email: str | None
    """In lower case; None once the person has left."""
    email_verified: bool
    name: str
    picture: str | None
    created_unix_ns: int


class MemberRow(msgspec.Struct, frozen=True):
    """A person's part in an account."""

    account_id: str
    person_id: str
    role: Role
    created_unix_ns: int


class PriceRow(msgspec.Struct, frozen=True):
    """A version of a model's price; rates are nano-dollars per 1,000,000 units."""

    id: int
    model: str
    input_rate: int
    cached_rate: int
    output_rate: int
    valid_from_unix_ns: int
    valid_to_unix_ns: int | None = None
    priority_millionths: int | None = None
    """What everything is multiplied with in this tier; None: the model has none."""
    flex_millionths: int | None = None
    unit_rate: int = 0
    """Of the unit below."""
    unit: str | None = None
    """What is billed besides tokens; None: tokens alone."""
    discount_millionths: int = 0
    """What is taken off everything; it ends with the version."""
    source: PriceSource = "card"
    """Who set it. What an admin sets, a card does not replace."""
    set_unix_ns: int = 0
    """When it was set; a planned version begins later."""
    payer_account_id: str | None = None
    """Who pays the time that the model runs, where it is priced by uptime."""


class EntryRow(msgspec.Struct, frozen=True):
    """A settled request: one row for each, append-only."""

    request_id: str
    account_id: str
    token_id: str
    model: str
    task: str
    dialect: str
    streamed: bool
    status: EntryStatus
    stage: str
    """Where it ended: queued, loading, prefill, decode, done."""
    error_code: str | None
    end_user: str | None
    """The caller's own `user` field, for charging back."""
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    estimated: bool
    price_id: int
    cost_nanos: int
    created_unix_ns: int
    settled_unix_ns: int
    queue_ms: int
    first_event_ms: int | None
    runtime_ms: int
    tier: str = "default"
    """The service tier that was paid."""
    unit: str | None = None
    """The task's own unit; None: tokens alone."""
    quantity: int = 0
    """Millionths of it."""
    tag: str | None = None
    """The caller's own word for what the request belongs to."""
    jwt_id: str | None = None
    """The scoped JWT that was shown: it has a spending counter of its own."""


class ReservationRow(msgspec.Struct, frozen=True):
    """Money set aside for a request that runs. Rows of a dead process are released at start."""

    request_id: str
    account_id: str
    nanos: int
    created_unix_ns: int
    gateway: str = ""
    """Which gateway runs it; "": there is one alone."""


JobStatus = Literal["queued", "running", "succeeded", "failed"]


class JobRow(msgspec.Struct, frozen=True):
    """Work that outlives its request."""

    id: str
    account_id: str
    token_id: str
    request_id: str
    """Of its ledger entry: the same after a crash, so that it is billed once."""
    model: str
    request: bytes
    """The task's Request as msgpack."""
    status: JobStatus
    result: str | None
    """Name of a blob."""
    error: str | None
    """A sentence for the caller."""
    created_unix_ns: int
    ended_unix_ns: int | None
    end_user: str | None = None
    tag: str | None = None
    gateway: str = ""
    """Which gateway runs it; "": there is one alone."""
    jwt_id: str | None = None
    """Of the scoped JWT that asked for it."""
    tier: str = "default"
    """The service tier that was asked for."""
    jwt_limit_nanos: int | None = None
    """What may be spent with that JWT; None: no limit of its own."""
    price_id: int | None = None
    """The price version that it was admitted at; None: whichever applies."""


class Settle(msgspec.Struct, frozen=True, tag="settle"):
    """Write the entry, add its cost to its purses, drop its reservation, all in one transaction.

    Idempotent by request id: of an entry that is there already nothing is written.
    """

    entry: EntryRow
    held: bool = True
    """There is a reservation to drop."""
    gateway: str = ""
    """Whose leases pay."""
    leases: tuple[tuple[str, int], ...] = ()
    """Purse → nano-dollars to take off the gateway's lease of it."""


class Reserve(msgspec.Struct, frozen=True, tag="reserve"):
    """Write a reservation."""

    reservation: ReservationRow


class Release(msgspec.Struct, frozen=True, tag="release"):
    """Drop a reservation without an entry: the request never ran."""

    request_id: str


LedgerWrite = Settle | Reserve | Release
"""What the ledger's writer commits, in groups."""


class GrantRow(msgspec.Struct, frozen=True):
    """Credit that an admin gave, or took back: append-only."""

    id: str
    account_id: str
    nanos: int
    """Negative: taken back."""
    note: str
    granted_by: str
    """The token that did it; "": this machine's command line."""
    created_unix_ns: int
