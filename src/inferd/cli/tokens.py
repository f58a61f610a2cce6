"""`inferd token`: API tokens of the admin's account, or of another one."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from inferd.access.caller import ADMIN, INFERENCE_RUN
from inferd.cli.calls import call
from inferd.cli.flags import Config, DataDir
from inferd.errors import BadRequest
from inferd.settings import load

app = typer.Typer(no_args_is_help=True)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Account = Annotated[str | None, typer.Option(help="An account's id. Default: the admin's.")]


@app.command("create")
def create(  # noqa: PLR0913 everything that a token may be held to
    name: str,
    admin: Annotated[bool, typer.Option("--admin", help="May manage as well.")] = False,  # noqa: FBT002 a flag
    scope: Annotated[list[str] | None, typer.Option(help="Instead of inference:run.")] = None,
    expires: Annotated[str | None, typer.Option(help="After so long: 12h, 90d.")] = None,
    allow_ip: Annotated[list[str] | None, typer.Option(help="Only from there: 10.0.0.0/8.")] = None,
    allow_model: Annotated[list[str] | None, typer.Option(help="Only this model.")] = None,
    monthly_limit: Annotated[float | None, typer.Option(min=0, help="Dollars a month.")] = None,
    account: Account = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make a token; its secret is printed once. Options that are lists may be repeated."""
    settings = load({"data_dir": data_dir}, config=config)
    wish = {
        "name": name,
        "scopes": scope or [ADMIN if admin else INFERENCE_RUN],
        "expires_delta": None if expires is None else _seconds(expires),
        "allowed_ips": allow_ip or None,
        "allowed_models": allow_model or None,
        "monthly_limit": monthly_limit,
    }
    typer.echo(call(settings, "POST", _tokens_of(account), wish)["token"])


@app.command("list")
def list_tokens(account: Account = None, data_dir: DataDir = None, config: Config = None) -> None:
    """Live tokens: id, end of the secret, scopes, what they are held to, name."""
    settings = load({"data_dir": data_dir}, config=config)
    for token in call(settings, "GET", _tokens_of(account)):
        scopes = ",".join(token["scopes"])
        shown = f"{token['token_id']}  …{token['fragment']}  {scopes:14}"
        typer.echo("  ".join([shown, *_held_to(token), token["name"]]))


@app.command("revoke")
def revoke(token_id: str, data_dir: DataDir = None, config: Config = None) -> None:
    """End a token of any account and the JWTs that it signed, at once."""
    settings = load({"data_dir": data_dir}, config=config)
    call(settings, "DELETE", f"/v1/admin/tokens/{token_id}")
    typer.echo("Revoked.")


def _tokens_of(account: str | None) -> str:
    return "/v1/api-tokens" if account is None else f"/v1/admin/accounts/{account}/tokens"


def _held_to(token: dict[str, Any]) -> list[str]:
    names = ("expires_at", "allowed_ips", "allowed_models", "monthly_limit", "person_id")
    held: list[str] = []
    for name in names:
        value: list[str] | float | str | None = token[name]
        if value is not None:
            held.append(f"{name}={','.join(value) if isinstance(value, list) else value}")
    return held


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    if found is None:
        raise BadRequest(f"{text!r} is no time such as 12h or 90d.")
    return int(found[1]) * _UNITS[found[2] or "s"]
