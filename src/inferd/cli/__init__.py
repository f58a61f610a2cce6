"""The command line. Builds everything from settings and passes it on."""

from __future__ import annotations

import sys

import typer

from inferd.cli import (
    accounts,
    audit,
    backup,
    credit,
    doctor,
    gateway_list,
    keys,
    limits,
    models,
    prices,
    run,
    serve,
    tokens,
    usage,
)
from inferd.errors import InferdError

app = typer.Typer(
    name="inferd",
    help="An open, self-hostable inference cloud.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve", help="Serve the API until Ctrl-C.")(serve.serve)
app.command("run", help="Ask a model once; the answer streams to the terminal.")(run.run)
app.command("doctor", help="Say what is missing, a sentence each.")(doctor.doctor)
app.command("audit", help="Who did what, newest first.")(audit.audit)
app.command("backup", help="Save everything but the models in one file.")(backup.backup)
app.command("restore", help="Put a backup into the data directory.")(backup.restore)
app.command("version", help="Print the version.")(serve.version)
app.add_typer(accounts.app, name="account", help="Make, suspend, delete accounts; grant credit.")
accounts.app.command("credit")(credit.credit)
app.add_typer(gateway_list.app, name="gateways", help="Gateways that share a database.")
app.add_typer(keys.app, name="keys", help="Replace the installation's key.")
app.add_typer(limits.app, name="limits", help="How much accounts, tokens and models may do.")
app.add_typer(models.app, name="models", help="List, show, pull and remove models.")
app.add_typer(prices.app, name="prices", help="What models cost; set it, now or for later.")
app.add_typer(tokens.app, name="token", help="Create, list and revoke API tokens.")
app.add_typer(usage.app, name="usage", help="Usage and cost; `usage verify` checks the ledger.")


def main() -> None:
    """Run a command; expected errors are a sentence and exit code 1, never a traceback."""
    try:
        app()
    except InferdError as error:
        sys.stderr.write(f"inferd: {error.message}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has enough (`inferd … | head`).
        sys.exit(0)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        sys.stderr.write(f"inferd: {error.strerror or error}{place}.\n")
        sys.exit(1)
