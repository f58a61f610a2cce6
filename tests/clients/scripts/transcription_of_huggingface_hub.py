"""huggingface_hub with its provider deepinfra: speech recognition. Prints one JSON object."""

# The package lives in the environment of the clients only.
# pyright: basic, reportMissingImports=false

import json
import os
import sys

from huggingface_hub import InferenceClient

client = InferenceClient(provider="deepinfra", api_key=os.environ["DEEPINFRA_API_KEY"])
path, model = os.environ["RECORDING"], "test/automatic-speech-recognition"
timed = {"response_format": "verbose_json"}
told = {
    "text": client.automatic_speech_recognition(path, model=model).text,
    "chunks": client.automatic_speech_recognition(path, model=model, extra_body=timed).chunks,
}
sys.stdout.write(json.dumps(told))
