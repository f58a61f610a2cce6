"""The caller's account: what it is, what it says of itself, its end (deepinfra-api 9.1)."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

import msgspec
from msgspec import UNSET, Meta, UnsetType

from inferd.access.caller import ADMIN, Caller
from inferd.api import inference
from inferd.api.errors import FieldInvalid
from inferd.api.exchange import Exchange
from inferd.api.manage.payment import Checklist, checklist_of
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import Conflict, Unprocessable
from inferd.storage import people
from inferd.storage.people import Teammate
from inferd.storage.rows import AccountRow

NAME_PATTERN = r"^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$"
EMAIL_PATTERN = r"^[^@\s\x00-\x1f]{1,64}@[A-Za-z0-9.-]{1,190}$"

DisplayName = Annotated[str, Meta(min_length=1, max_length=39, pattern=NAME_PATTERN)]
Email = Annotated[str, Meta(min_length=3, max_length=254, pattern=EMAIL_PATTERN)]
Short = Annotated[str, Meta(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
Long = Annotated[str, Meta(max_length=2048)]
Website = Annotated[str, Meta(max_length=300, pattern=r"^(https?://[^\s\x00-\x1f]+)?$")]


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an account says of itself."""

    name: Short | None = None
    first_name: Short | None = None
    last_name: Short | None = None
    country: Short | None = None
    country_code: Annotated[str, Meta(pattern=r"^[A-Za-z]{2}$")] | None = None
    email: Email | None = None
    is_business_account: bool | None = None
    company: Short | None = None
    website: Website | None = None
    title: Short | None = None
    use_case: Long | None = None
    attribution: Long | None = None
    marketing_emails: bool | None = None


class MeIn(msgspec.Struct, frozen=True):
    """The request body; what is absent stays as it is, null clears it."""

    name: Short | UnsetType | None = UNSET
    first_name: Short | UnsetType | None = UNSET
    last_name: Short | UnsetType | None = UNSET
    country: Short | UnsetType | None = UNSET
    country_code: Annotated[str, Meta(pattern=r"^[A-Za-z]{2}$")] | UnsetType | None = UNSET
    email: Email | UnsetType | None = UNSET
    is_business_account: bool | UnsetType | None = UNSET
    company: Short | UnsetType | None = UNSET
    website: Website | UnsetType | None = UNSET
    title: Short | UnsetType | None = UNSET
    use_case: Long | UnsetType | None = UNSET
    attribution: Long | UnsetType | None = UNSET
    marketing_emails: bool | UnsetType | None = UNSET
    display_name: DisplayName | UnsetType | None = UNSET
    """An account always has one: null leaves it."""


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """The account of the credential. What an installation of one's own does not know is null."""

    uid: str
    email: str | None
    email_verified: bool
    account_setup: bool = True
    display_name: str
    provider: str = "inferd"
    picture: str | None
    is_admin: bool
    """The credential manages the installation."""
    name: str | None
    first_name: str | None
    last_name: str | None
    country: str | None
    is_business_account: bool
    company: str | None
    website: str | None
    title: str | None
    root_uid: str
    require_email_verified: bool = False
    can_access_agents: bool = False
    can_access_sandboxes: bool = False
    is_team_account: bool
    is_team_owner: bool
    team_role: str | None
    """Of the credential's person."""
    team_display_name: str | None
    is_team_upgrade_enabled: bool = False
    vercel_connection: None = None
    google_linked: bool = False
    mfa_enabled: bool = False
    mfa_available: bool = False
    show_signup_form: bool = False
    suspended: str | None
    """Why it may not spend at the moment."""
    checklist: Checklist | None = None


class Emails(msgspec.Struct, frozen=True):
    """The addresses of the account's people."""

    emails: list[str]


class TeamNameIn(msgspec.Struct, frozen=True):
    """The request body."""

    display_name: DisplayName


_CHANGES = msgspec.json.Decoder(MeIn)
_NAMES = msgspec.json.Decoder(TeamNameIn)
_PROFILES = msgspec.json.Decoder(Profile)


async def show_me(exchange: Exchange, services: Services) -> None:
    """GET /v1/me[?checklist=true]; suspended accounts too."""
    query = parse_qs(exchange.query.decode("latin-1"))
    body = await _me(exchange.caller, services)
    if query.get("checklist", ["false"])[0].lower() in ("true", "1"):
        checklist = await checklist_of(exchange, services)
        body = msgspec.structs.replace(body, checklist=checklist)
    await exchange.respond(200, msgspec.json.encode(body))


async def change_me(exchange: Exchange, services: Services) -> None:
    """PATCH /v1/me. Here alone a wrong value is 422 with one sentence."""
    try:
        wire = await inference.read(exchange, services, _CHANGES)
    except FieldInvalid as error:
        raise Unprocessable(error.message, param=error.param) from None
    row = await services.accounts.get(exchange.caller.account_id)
    told = {name: one for name, one in msgspec.structs.asdict(wire).items() if one is not UNSET}
    name = told.pop("display_name", None) or row.name
    merged = msgspec.structs.replace(_PROFILES.decode(row.profile), **told)
    profile = msgspec.json.encode(merged).decode()
    await services.accounts.describe(exchange.caller, row, name, profile)
    await exchange.respond(200, b"{}")


async def delete_me(exchange: Exchange, services: Services) -> None:
    """DELETE /v1/me: the account ends, its tokens at once; what it spent stays on record."""
    body = await _me(exchange.caller, services)
    await services.accounts.delete(exchange.caller, exchange.caller.account_id)
    await exchange.respond(200, msgspec.json.encode(body))


async def emails(exchange: Exchange, services: Services) -> None:
    """GET /v1/me/emails."""
    row = await services.accounts.get(exchange.caller.account_id)
    team = await services.teams.members(row.id)
    own = [mate.person.email for mate in team if mate.person.email is not None]
    told = _PROFILES.decode(row.profile).email
    if told is not None and told not in own:
        own.append(told)
    await exchange.respond(200, msgspec.json.encode(Emails(own)))


async def set_team_name(exchange: Exchange, services: Services) -> None:
    """POST /v1/me/team_display_name."""
    wire = await inference.read(exchange, services, _NAMES)
    row = await services.accounts.get(exchange.caller.account_id)
    if row.kind != "team":
        raise Conflict("This account is no team.")
    await services.accounts.describe(exchange.caller, row, wire.display_name, row.profile)
    await exchange.respond(200, b"{}")


async def _me(caller: Caller, services: Services) -> Me:
    row = await services.accounts.get(caller.account_id)
    profile = _PROFILES.decode(row.profile)
    mate = await _mate(caller, services, row)
    person = None if mate is None else mate.person
    is_team = row.kind == "team"
    email = (person.email if person is not None else None) or profile.email
    verified = person is not None and person.email_verified and email == person.email
    return Me(
        uid=row.id,
        email=email,
        email_verified=verified,
        display_name=row.name,
        picture=None if person is None else person.picture,
        is_admin=caller.may(ADMIN),
        name=profile.name or (person.name if person is not None else row.name),
        first_name=profile.first_name,
        last_name=profile.last_name,
        country=profile.country,
        is_business_account=bool(profile.is_business_account),
        company=profile.company,
        website=profile.website,
        title=profile.title,
        root_uid=row.id,
        is_team_account=is_team,
        is_team_owner=is_team and mate is not None and mate.role == "admin",
        team_role=mate.role if is_team and mate is not None else None,
        team_display_name=row.name if is_team else None,
        suspended=row.suspended,
    )


async def _mate(caller: Caller, services: Services, row: AccountRow) -> Teammate | None:
    """The credential's person in the account; of a personal account its owner."""
    async with services.database.reading() as connection:
        team = await people.team(connection, row.id)
    if caller.person_id is None:
        return team[0] if row.kind == "personal" and len(team) == 1 else None
    return next((mate for mate in team if mate.person.id == caller.person_id), None)


def me_routes() -> list[Route]:
    """What `table.ROUTES` takes over."""
    at, shape, manage = "/v1/me", "native", "account-admin"
    named = f"{at}/team_display_name"
    return [
        Route("GET", at, show_me, "token", shape, "Who am I?", gives=Me),
        Route("PATCH", at, change_me, manage, shape, "Describe the account", MeIn),
        Route("DELETE", at, delete_me, manage, shape, "Delete the account", gives=Me),
        Route(
            "GET", f"{at}/emails", emails, "token", shape, "The account's addresses", gives=Emails
        ),
        Route("POST", named, set_team_name, manage, shape, "Rename the team", TeamNameIn),
    ]
