"""`inferd keys`: the installation's key, which tokens are found and sealed with."""

from __future__ import annotations

import typer

from inferd.cli import data_dir
from inferd.cli.flags import Config, DataDir
from inferd.settings import Settings, load

app = typer.Typer(no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Replace the installation's key."""


@app.command("rotate")
def rotate(data_dir: DataDir = None, config: Config = None) -> None:
    """Make a new key and move all tokens to it. Stop the server first; every token stays valid."""
    settings = load({"data_dir": data_dir}, config=config)
    moved, later = _rotated(settings)
    typer.echo(f"{moved} tokens lie under the new key now.")
    if later:
        typer.echo(
            f"{later} are from an older version and move at their next use; until then the "
            "retired key stays in secret.key.retired. Revoke them if the old key was stolen."
        )
    if settings.installation_key_file:
        typer.echo("Put the new secret.key where installation_key_file points.")
    if settings.is_clustered:
        typer.echo(
            "Copy secret.key and secret.key.retired to every gateway before you start them again."
        )


def _rotated(settings: Settings) -> tuple[int, int]:
    from inferd.access import installation, shared_key
    from inferd.access.rotation import Moved, move_tokens
    from inferd.access.token_secrets import TokenSecrets
    from inferd.cli.wiring import run_async
    from inferd.storage.database import Database, migrate

    root = data_dir.prepare(settings)
    where = settings.database_location

    async def act() -> Moved:
        keys = installation.rotate(root)
        database = Database(where, directory=root, power_safe=True)
        try:
            moved = await move_tokens(database, TokenSecrets(*keys))
            if settings.is_clustered:
                await shared_key.replaced(database, keys.current)
            return moved
        finally:
            await database.close()

    with data_dir.locked(root):
        migrate(where)
        moved = run_async(act())
        if not moved.later:
            installation.forget_retired(root)
    return moved
