"""All attacks: campaigns of groups."""

from __future__ import annotations

from tests.hostile.attack import Attack
from tests.hostile.corpus_bodies import BODIES
from tests.hostile.corpus_conversations import CONVERSATION_GROUPS
from tests.hostile.corpus_fields import FIELDS
from tests.hostile.corpus_tools import TOOLS

_TOOLS = {**TOOLS, **CONVERSATION_GROUPS}
CORPUS: dict[str, list[Attack]] = {**FIELDS, **BODIES, **_TOOLS}
CAMPAIGNS = {"fields": FIELDS, "bodies": BODIES, "tools": _TOOLS}
