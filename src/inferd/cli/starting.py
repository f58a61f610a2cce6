"""What every start of a server needs: logs, TLS, the first admin, the greeting."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from inferd import __version__
from inferd.settings import Settings

if TYPE_CHECKING:
    from inferd.api.services import Services
    from inferd.api.tls import Tls

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


_GREETING = """inferd {version} serves on {url}

Your API token, shown this once:

    {secret}
{sign_in}
Three calls to try (the first one fetches the model, about 90 MB):

curl {url}/v1/openai/chat/completions \\
  -H "Authorization: Bearer {secret}" -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "max_tokens": 64,
       "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'

curl {url}/v1/inference/{model} \\
  -H "Authorization: Bearer {secret}" -H "Content-Type: application/json" \\
  -d '{{"input": "The capital of France is", "max_new_tokens": 8}}'

python - <<'END'        # pip install openai
from openai import OpenAI
client = OpenAI(base_url="{url}/v1/openai", api_key="{secret}")
answer = client.chat.completions.create(
    model="{model}", max_tokens=64,
    messages=[{{"role": "user", "content": "Hello"}}])
print(answer.choices[0].message.content)
END

From the terminal: {command} run {model} "Hello"; {command} models list; {command} usage.
"""


_SIGN_IN = """
People sign in at {url}/sign-in with the name admin and the password, shown this once:

    {password}
"""


def set_up_logs(settings: Settings) -> None:
    """Records go to standard error."""
    layout = "%(message)s" if settings.log_format == "json" else "%(asctime)s %(name)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=layout, stream=sys.stderr)
    # Nothing in our format shows threads, processes or source lines; looking them up costs more
    # than the rest of a record (docs.python.org/3/howto/logging.html#optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # type: ignore[attr-defined]  # pyright: ignore
    for chatty in ("uvicorn", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


async def first_start(
    services: Services, settings: Settings, local: str | None = None
) -> tuple[str, str | None, str | None]:
    """The local command line's secret, and at the first start the admin's secret and password."""
    secret = await services.tokens.ensure_admin(settings.bootstrap_token or None)
    local = await services.tokens.local_admin(local)
    if secret is None:
        return local, None, None
    admin = await services.tokens.authenticate(local)
    return local, secret, await services.sign_in.first_password(admin)


def tls_of(settings: Settings) -> Tls | None:
    """The certificate that is set, once it can be used. Raises BadRequest."""
    from inferd.api.tls import Tls

    if not settings.tls_certificate:
        return None
    tls = Tls(Path(settings.tls_certificate).expanduser(), Path(settings.tls_key).expanduser())
    tls.check()
    return tls


def url_of(host: str, port: int, scheme: str) -> str:
    """How this machine reaches the server."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return (
        f"{scheme}://[{shown}]:{port}"
        if ":" in shown and "[" not in shown
        else f"{scheme}://{shown}:{port}"
    )


def greet(url: str, secret: str | None, password: str | None) -> None:
    """The first line says that it serves; the first start shows what is shown once."""
    if secret is None:
        sys.stdout.write(f"inferd {__version__} serves on {url}\n")
        sys.stdout.flush()
        return
    sign_in = _SIGN_IN.format(url=url, password=password) if password else ""
    # `make serve` installs it where no shell looks for it.
    command = "inferd" if shutil.which("inferd") else sys.argv[0]
    filled = {
        "version": __version__,
        "url": url,
        "secret": secret,
        "model": MODEL,
        "command": command,
    }
    sys.stdout.write(_GREETING.format(sign_in=sign_in, **filled))
    sys.stdout.flush()
