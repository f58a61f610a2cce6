"""deepinfra for Python with a model's bare name. Prints one JSON object."""

# The package lives in the environment of the clients only, and has no types to speak of.
# pyright: basic, reportMissingImports=false

import json
import sys

from deepinfra import TextGeneration

body = {"input": "The capital of France is", "max_new_tokens": 6, "temperature": 0}
answer = TextGeneration(sys.argv[1]).generate(body)
sys.stdout.write(json.dumps({"text": answer.results[0]["generated_text"]}))
