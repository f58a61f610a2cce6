"""`inferd token`: API tokens of the admin's account."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inferd.access.caller import ADMIN, INFERENCE_RUN
from inferd.cli import data_dir
from inferd.cli.flags import Config, DataDir
from inferd.cli.server_client import ServerClient
from inferd.settings import Settings, load

app = typer.Typer(no_args_is_help=True)


@app.command("create")
def create(
    name: str,
    admin: Annotated[bool, typer.Option("--admin", help="May manage as well.")] = False,  # noqa: FBT002 a flag
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make a token; its secret is printed once."""
    settings = load({"data_dir": data_dir}, config=config)
    scopes = [ADMIN] if admin else [INFERENCE_RUN]
    told = _call(settings, "create", {"name": name, "scopes": scopes})
    typer.echo(told["token"])


@app.command("list")
def list_tokens(data_dir: DataDir = None, config: Config = None) -> None:
    """Live tokens."""
    settings = load({"data_dir": data_dir}, config=config)
    for token in _call(settings, "list", {}):
        scopes = ",".join(token["scopes"])
        typer.echo(f"{token['token_id']}  …{token['fragment']}  {scopes:14}  {token['name']}")


@app.command("revoke")
def revoke(token_id: str, data_dir: DataDir = None, config: Config = None) -> None:
    """End a token, at once."""
    settings = load({"data_dir": data_dir}, config=config)
    _call(settings, "revoke", {"token_id": token_id})
    typer.echo("Revoked.")


def _call(settings: Settings, verb: str, fields: dict[str, Any]) -> Any:
    server = data_dir.running_server(settings)
    if server is None:
        return _offline(settings, verb, fields)
    client = ServerClient(server)
    if verb == "create":
        return client.call("POST", "/v1/api-tokens", fields)
    if verb == "list":
        return client.call("GET", "/v1/api-tokens")
    return client.call("DELETE", f"/v1/api-tokens/id/{fields['token_id']}")


def _offline(settings: Settings, verb: str, fields: dict[str, Any]) -> Any:
    from inferd.cli import wiring
    from inferd.storage.rows import TokenRow

    def shown(row: TokenRow) -> dict[str, Any]:
        return {
            "token_id": row.id,
            "fragment": row.fragment,
            "scopes": list(row.scopes),
            "name": row.name,
        }

    async def act() -> Any:
        async with wiring.rooms(settings, lambda _: None) as services:
            tokens = services.tokens
            await tokens.ensure_admin(settings.bootstrap_token or None)
            caller = await tokens.authenticate(await tokens.local_admin())
            if verb == "create":
                scopes = tuple(fields["scopes"])
                row, secret = await tokens.create(caller.account_id, fields["name"], scopes)
                return {**shown(row), "token": secret}
            if verb == "list":
                return [shown(row) for row in await tokens.list(caller.account_id)]
            return await tokens.revoke(caller.account_id, fields["token_id"])

    with data_dir.locked(data_dir.prepare(settings)):
        return wiring.run_async(act())
