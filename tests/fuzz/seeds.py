#!/usr/bin/env python3
"""Lays out what the fuzz targets begin with: `seeds.py FOLDER`.

Seeds are the fixtures beside this, and the recordings in `SWITCHPOINT_RECORDINGS` where that is
set. Targets that know several dialects read from the first byte which one the rest is in.
"""

import base64
import json
import os
import sys
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
# The orders of `Dialect::ALL`, and of the doors in `src/lib.rs`.
DIALECTS = ["chat", "responses", "messages", "gemini", "converse", "cohere"]
DOORS = ["chat", "responses", "messages", "gemini", "completions"]
ENDINGS = {
    "/v2/chat": "cohere", "/chat/completions": "chat", "/v1/completions": "completions",
    "/responses": "responses", "/messages": "messages", ":generateContent": "gemini",
    ":streamGenerateContent": "gemini", "/converse": "converse", "/converse-stream": "converse",
}
OTHERS = {"anthropic": "messages", "gemini": "gemini", "vertex": "gemini", "bedrock": "converse",
          "cohere": "cohere"}
# Larger seeds make the search slow and show nothing that smaller ones do not.
LARGEST = 16 * 1024


def put(folder, target, name, content):
    if len(content) <= LARGEST:
        path = folder / target
        path.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def put_question(folder, name, dialect, body):
    put(folder, "peek", name, body)
    put(folder, "splice", name, body)
    if dialect in DOORS:
        put(folder, "question", name, bytes([DOORS.index(dialect)]) + body)


def put_answer(folder, name, dialect, body, streamed):
    target = "stream" if streamed else "answer"
    if dialect in DIALECTS:
        put(folder, target, name, bytes([DIALECTS.index(dialect)]) + body)
    put(folder, "sse" if streamed else "peek", name, body)


def schemas(value):
    """Every JSON Schema in a question, by what its field is called."""
    if isinstance(value, list):
        for item in value:
            yield from schemas(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in ("parameters", "input_schema", "schema", "parametersJsonSchema") and isinstance(item, dict):
                yield item
            yield from schemas(item)


def put_schemas(folder, name, question):
    for number, schema in enumerate(schemas(question)):
        put(folder, "schema", f"{name}-{number}", json.dumps(schema).encode())


def fixtures(folder):
    for path in sorted(FIXTURES.rglob("*")):
        if not path.is_file() or path.suffix not in (".json", ".sse"):
            continue
        kind, owner = path.relative_to(FIXTURES).parts[:2]
        dialect = owner if kind == "dialects" else OTHERS.get(owner, "chat")
        name, body = f"{kind}-{owner}-{path.stem}", path.read_bytes()
        if path.stem == "embeddings":
            put(folder, "embed", name, body)
        if owner == "pairs":
            # Each is called by its dialect; the other folders hold what was written.
            if path.parent.name == "asked":
                put_question(folder, name, path.stem, body)
            elif path.parent.name == "answered":
                put_answer(folder, name, path.stem, body, False)
        elif path.stem in ("question", "request"):
            put_question(folder, name, dialect, body)
            put_schemas(folder, name, json.loads(body))
        elif path.stem != "expect":
            put_answer(folder, name, dialect, body, path.suffix == ".sse")


def recordings(folder, root):
    for path in sorted(Path(root).glob("*/*.json")):
        facts = json.loads(path.read_bytes())
        place = facts["request"]["uri"].split("?")[0].split("#")[0]
        dialect = next((name for end, name in ENDINGS.items() if place.endswith(end)), None)
        name, question = facts["id"].replace("/", "-"), facts["request"].get("body")
        if isinstance(question, dict) and len(question) > 1:
            put_question(folder, name, dialect, json.dumps(question).encode())
            put_schemas(folder, name, question)
        body, kind = path.with_suffix(".body").read_bytes(), facts["headers"].get("content-type", "")
        if kind.startswith("application/vnd.amazon"):
            put(folder, "eventstream", name, body)
        else:
            put_answer(folder, name, dialect, body, kind.startswith("text/event-stream"))


def main():
    folder = Path(sys.argv[1])
    fixtures(folder)
    if root := os.environ.get("SWITCHPOINT_RECORDINGS"):
        recordings(folder, root)
    else:
        print("SWITCHPOINT_RECORDINGS is not set: the seeds are the fixtures only")
    put(folder, "eventstream", "event", b"\x10contentBlockDelt{\"text\":\"a\"}")
    sealed = json.dumps({"d": "messages", "data": {"id": "rs_1"}}).encode()
    put(folder, "opaque", "sealed", b"sp1." + base64.urlsafe_b64encode(sealed).rstrip(b"="))
    put(folder, "opaque", "state", b'{"id":"rs_1","x":["\xe6\x97\xa5",null,1.5]}')
    put(folder, "embed", "question", b'{"model":"m","input":["a","b"],"dimensions":8,"encoding_format":"base64"}')
    thought = {"content": {"Reasoning": {"text": "hm", "summary": False, "redacted": False}},
               "cache": None, "opaque": {"dialect": "Messages", "data": {"signature": "EqQB"}}}
    kept = {"call": "call_1", "thoughts": [thought], "opaque": {"dialect": "Gemini", "data": "EqUC"}}
    put(folder, "keepsake", "kept", json.dumps(kept).encode())
    for target in sorted(path for path in folder.iterdir() if path.is_dir()):
        print(f"{target.name}: {len(list(target.iterdir()))} seeds")


main()
