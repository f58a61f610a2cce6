"""llama-index's DeepInfra embeddings, blocking and not. Prints one JSON object."""

# The package lives in the environment of the clients only, and has no types to speak of.
# pyright: basic, reportMissingImports=false

import asyncio
import json
import sys

from llama_index.embeddings.deepinfra import DeepInfraEmbeddingModel

texts = ["rain falls", "a red bicycle"]
model = DeepInfraEmbeddingModel(model_id=sys.argv[1])
told: dict[str, object] = {
    "documents": model.get_text_embedding_batch(texts),
    "query": model.get_query_embedding(texts[0]),
    "waited": asyncio.run(model.aget_text_embedding(texts[0])),
}
sys.stdout.write(json.dumps(told))
