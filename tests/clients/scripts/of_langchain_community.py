"""LangChain community's DeepInfra classes: a model and a chat. Prints one JSON object."""

# The package lives in the environment of the clients only, and has no types to speak of.
# pyright: basic, reportMissingImports=false

import json
import sys

from langchain_community.chat_models import ChatDeepInfra
from langchain_community.llms import DeepInfra

model = sys.argv[1]
text = DeepInfra(model_id=model, model_kwargs={"max_new_tokens": 6, "temperature": 0})
chat = ChatDeepInfra(model=model, temperature=0, max_tokens=12)
told: dict[str, object] = {
    "text": text.invoke("The capital of France is"),
    "text_streamed": "".join(text.stream("The capital of France is")),
    "chat": chat.invoke("What is the capital of France?").content,
    "chat_streamed": "".join(
        str(chunk.content) for chunk in chat.stream("What is the capital of France?")
    ),
}
try:
    DeepInfra(model_id="no/such").invoke("Hello")
except Exception as error:  # noqa: BLE001 the client raises no class of its own
    told["missing"] = str(error)
sys.stdout.write(json.dumps(told))
