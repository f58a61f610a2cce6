"""huggingface_hub with its provider deepinfra: text and chat. Prints one JSON object."""

# The package lives in the environment of the clients only.
# pyright: basic, reportMissingImports=false

import json
import os
import sys

from huggingface_hub import InferenceClient

client = InferenceClient(provider="deepinfra", api_key=os.environ["DEEPINFRA_API_KEY"])
messages = [{"role": "user", "content": "What is the capital of France?"}]
fields = {"model": "test/conversational", "max_tokens": 12, "temperature": 0}
plain = client.chat_completion(messages, **fields)
chunks = list(client.chat_completion(messages, stream=True, **fields))
text = client.text_generation(
    "The capital of France is", model="test/text-generation", max_new_tokens=6, temperature=0
)
told = {
    "chat": plain.choices[0].message.content,
    "tokens": plain.usage.completion_tokens,
    "chat_streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
    "text": text,
}
sys.stdout.write(json.dumps(told))
