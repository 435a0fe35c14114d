"""Drives images, audio, moderations, files and batches with the official Python SDK, unmodified.

Prints one line per promise and stops at the first that is broken. See relay.sh.
"""

import io
import os
import sys

import openai
from openai import OpenAI

client = OpenAI(
    base_url=os.environ["SWITCHPOINT_URL"],
    api_key=os.environ["SWITCHPOINT_KEY"],
    max_retries=0,
    timeout=20,
)


def check(condition, message):
    if not condition:
        sys.exit(f"BROKEN  {message}")
    print(f"kept    {message}")


def named(name, data):
    file = io.BytesIO(data)
    file.name = name
    return file


image = client.images.generate(model="image", prompt="a cat")
check(image.data[0].b64_json == "AAAA", "images.generate")

edited = client.images.edit(model="image", prompt="a dog", image=named("a.png", b"\x89PNG"))
check(edited.data[0].b64_json == "BBBB", "images.edit")

with client.audio.speech.with_streaming_response.create(
    model="speech", voice="alloy", input="hello"
) as response:
    size = sum(len(piece) for piece in response.iter_bytes(4096))
check(size == 300_000, "audio.speech with_streaming_response")

with client.audio.speech.with_streaming_response.create(
    model="speech-sse", voice="alloy", input="hello", stream_format="sse"
) as response:
    text = response.read().decode()
check("speech.audio.done" in text, "audio.speech as events")

heard = client.audio.transcriptions.create(model="hear", file=named("a.wav", bytes(3_000_000)))
check(heard.text == "hello" and heard.usage.total_tokens == 18, "audio.transcriptions")

verdict = client.moderations.create(model="moderate", input="hello")
check(verdict.results[0].flagged, "moderations")

line = b'{"custom_id": "a", "body": {"model": "m", "max_tokens": 9}}\n'
file = client.files.create(file=named("a.jsonl", line), purpose="batch")
check(client.files.retrieve(file.id).filename == "a.jsonl", "files.create and files.retrieve")
check([each.id for each in client.files.list()] == [file.id], "files.list")
check(client.files.content(file.id).text == "{}\n", "files.content")

batch = client.batches.create(
    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
)
check(client.batches.retrieve(batch.id).status == "completed", "batches.create and batches.retrieve")
check([each.id for each in client.batches.list()] == [batch.id], "batches.list")
check(client.batches.cancel(batch.id).status == "cancelling", "batches.cancel")

check(client.files.delete(file.id).deleted, "files.delete")
try:
    client.files.retrieve(file.id)
    check(False, "a deleted file is gone")
except openai.NotFoundError:
    check(True, "a deleted file is gone")
