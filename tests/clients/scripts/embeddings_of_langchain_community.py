"""LangChain community's DeepInfra embeddings. Prints one JSON object."""

# The package lives in the environment of the clients only, and has no types to speak of.
# pyright: basic, reportMissingImports=false

import json
import sys

from langchain_community.embeddings import DeepInfraEmbeddings

texts = ["rain falls", "a red bicycle"]
model = DeepInfraEmbeddings(
    model_id=sys.argv[1], normalize=True, embed_instruction="", query_instruction=""
)
told: dict[str, object] = {
    "documents": model.embed_documents(texts),
    "query": model.embed_query(texts[0]),
}
try:
    DeepInfraEmbeddings(model_id="no/such").embed_query("x")
except ValueError as error:
    told["missing"] = str(error)
sys.stdout.write(json.dumps(told))
