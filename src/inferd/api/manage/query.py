"""The query of a management route, read strictly: what is unknown in form is a 400."""

from __future__ import annotations

from urllib.parse import parse_qs

from inferd.access.caller import ACCOUNT_ADMIN, ADMIN, Caller
from inferd.errors import BadRequest, Forbidden
from inferd.metering.periods import Month, read_month
from inferd.storage.rollups import View

TEXT_MAX = 256


class Query:
    """Named values; the first of each name counts."""

    def __init__(self, raw: bytes) -> None:
        try:
            self._values = parse_qs(raw.decode("latin-1"), max_num_fields=64)
        except ValueError:
            raise BadRequest("The query has too many fields.") from None

    def text(self, name: str) -> str | None:
        """A word of at most TEXT_MAX characters."""
        given = self._values.get(name, [None])[0]
        if given is not None and len(given) > TEXT_MAX:
            raise BadRequest(f"{name} is over {TEXT_MAX} characters.", param=name)
        return given

    def whole(self, name: str, default: int, largest: int, least: int = 0) -> int:
        """A whole number within bounds."""
        given = self.text(name)
        if given is None:
            return default
        fits = given.isascii() and given.isdecimal() and len(given) <= 20
        if not fits or not least <= int(given) <= largest:
            raise BadRequest(
                f"{name} must be a whole number from {least} to {largest}.", param=name
            )
        return int(given)

    def month(self, name: str) -> Month | None:
        """A month of the form YYYY-MM."""
        given = self.text(name)
        try:
            return None if given is None else read_month(given)
        except ValueError as error:
            raise BadRequest(f"{error}", param=name) from None


def view_of(caller: Caller, query: Query) -> View:
    """Whose usage is meant: the installation's admin may ask for any account, or for `all`.

    Who manages the account sees all of it, a member what his tokens used, any other token itself.
    """
    account = query.text("account")
    if account is not None and account != caller.account_id:
        if not caller.may(ADMIN):
            raise Forbidden("Another account's usage is for the installation's admin.")
        return View(None if account == "all" else account)
    if caller.may(ACCOUNT_ADMIN):
        return View(caller.account_id)
    if caller.person_id is not None:
        return View(caller.account_id, person_id=caller.person_id)
    return View(caller.account_id, token_id=caller.token_id)
