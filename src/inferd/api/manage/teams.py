"""Teams: the accounts of a person, and the people of an account."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from inferd.access.caller import ACCOUNT_ADMIN
from inferd.api import inference
from inferd.api.exchange import Exchange
from inferd.api.manage.me import DisplayName, Email, Short
from inferd.api.routes import Route
from inferd.api.services import Services
from inferd.errors import Forbidden
from inferd.storage.people import Membership, Teammate

Role = Literal["admin", "member"]


class TeamIn(msgspec.Struct, frozen=True):
    """A team to be made."""

    display_name: DisplayName


class PlaceOut(msgspec.Struct, frozen=True):
    """An account that the caller's person works in."""

    uid: str
    display_name: str
    kind: Literal["personal", "team"]
    role: Role
    suspended: str | None


class PlaceList(msgspec.Struct, frozen=True):
    """The person's own account first."""

    teams: list[PlaceOut]


class MemberIn(msgspec.Struct, frozen=True):
    """Somebody to be a member: whoever signs in with this verified address."""

    email: Email
    role: Role = "member"
    name: Short = ""


class MemberChange(msgspec.Struct, frozen=True):
    """A member's new role."""

    role: Role


class MemberOut(msgspec.Struct, frozen=True):
    """A person of the account."""

    person_id: str
    email: str | None
    email_verified: bool
    """False: nobody has signed in with it yet."""
    name: str
    role: Role
    since: str


class TeamOut(msgspec.Struct, frozen=True):
    """The caller's account and its people."""

    uid: str
    display_name: str
    kind: Literal["personal", "team"]
    members: Annotated[list[MemberOut], Meta(description="Oldest first.")]


_TEAMS = msgspec.json.Decoder(TeamIn)
_MEMBERS = msgspec.json.Decoder(MemberIn)
_CHANGES = msgspec.json.Decoder(MemberChange)


async def list_teams(exchange: Exchange, services: Services) -> None:
    """GET /v1/teams."""
    places = await services.teams.of_person(exchange.caller)
    body = PlaceList([_place(place) for place in places])
    await exchange.respond(200, msgspec.json.encode(body))


async def create_team(exchange: Exchange, services: Services) -> None:
    """POST /v1/teams."""
    wire = await inference.read(exchange, services, _TEAMS)
    row = await services.teams.create(exchange.caller, wire.display_name)
    body = _place(Membership(row, "admin"))
    await exchange.respond(200, msgspec.json.encode(body))


async def show_team(exchange: Exchange, services: Services) -> None:
    """GET /v1/team."""
    row = await services.accounts.get(exchange.caller.account_id)
    mates = await services.teams.members(row.id)
    body = TeamOut(row.id, row.name, row.kind, [_member(mate) for mate in mates])
    await exchange.respond(200, msgspec.json.encode(body))


async def add_member(exchange: Exchange, services: Services) -> None:
    """POST /v1/team/members."""
    wire = await inference.read(exchange, services, _MEMBERS)
    mate = await services.teams.add(exchange.caller, wire.email, wire.role, wire.name)
    await exchange.respond(200, msgspec.json.encode(_member(mate)))


async def change_member(exchange: Exchange, services: Services) -> None:
    """PATCH /v1/team/members/{person_id}."""
    wire = await inference.read(exchange, services, _CHANGES)
    await services.teams.set_role(exchange.caller, exchange.rest, wire.role)
    await exchange.respond(200, b"{}")


async def remove_member(exchange: Exchange, services: Services) -> None:
    """DELETE /v1/team/members/{person_id}; a member removes himself alone."""
    caller = exchange.caller
    if exchange.rest != caller.person_id and not caller.may(ACCOUNT_ADMIN):
        raise Forbidden("Only an admin of the team removes others.")
    await services.teams.remove(caller, exchange.rest)
    await exchange.respond(200, b"{}")


def _place(membership: Membership) -> PlaceOut:
    row = membership.account
    return PlaceOut(row.id, row.name, row.kind, membership.role, row.suspended)


def _member(mate: Teammate) -> MemberOut:
    person = mate.person
    since = datetime.fromtimestamp(mate.since_unix_ns / 1e9, UTC).isoformat(timespec="seconds")
    return MemberOut(person.id, person.email, person.email_verified, person.name, mate.role, since)


def team_routes() -> list[Route]:
    """What `table.ROUTES` takes over."""
    shape, manage = "native", "account-admin"
    members, one = "/v1/team/members", "/v1/team/members/{rest}"
    mine, team = "Accounts that I work in", "The account and its people"
    return [
        Route("GET", "/v1/teams", list_teams, "member", shape, mine, gives=PlaceList),
        Route("POST", "/v1/teams", create_team, "member", shape, "A new team", TeamIn, PlaceOut),
        Route("GET", "/v1/team", show_team, "member", shape, team, gives=TeamOut),
        Route("POST", members, add_member, manage, shape, "A new member", MemberIn, MemberOut),
        Route("PATCH", one, change_member, manage, shape, "A member's role", MemberChange),
        Route("DELETE", one, remove_member, "member", shape, "Remove a member, or leave"),
    ]
