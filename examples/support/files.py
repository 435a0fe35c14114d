"""An MCP server over stdio that shows the files of one folder. Python's standard library only.

python3 files.py FOLDER
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(sys.argv[1]).resolve()
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
PATH = {
    "type": "object",
    "properties": {"path": {"type": "string"}},
    "required": ["path"],
    "additionalProperties": False,
}
TOOLS = [
    {"name": "list_files", "description": "Names the pages of the handbook.", "inputSchema": NOTHING},
    {"name": "read_file", "description": "Reads a page of the handbook.", "inputSchema": PATH},
]


class Unknown(Exception):
    """A method or a tool that is not here."""


def call(name, arguments):
    if name == "list_files":
        return "\n".join(sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.md")))
    if name != "read_file":
        raise Unknown(name)
    path = (ROOT / arguments["path"]).resolve()
    if not path.is_relative_to(ROOT) or not path.is_file():
        raise FileNotFoundError("There is no such page.")
    return path.read_text(encoding="utf-8")


def answer(method, params):
    if method == "initialize":
        return {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "files", "version": "1"},
        }
    if method == "ping":
        return {}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method != "tools/call":
        raise Unknown(method)
    try:
        text, failed = call(params["name"], params.get("arguments", {})), False
    except (OSError, KeyError) as error:
        text, failed = str(error), True
    return {"content": [{"type": "text", "text": text}], "isError": failed}


for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    told = {"jsonrpc": "2.0", "id": asked["id"]}
    try:
        told["result"] = answer(asked["method"], asked.get("params", {}))
    except Unknown as error:
        told["error"] = {"code": -32601, "message": f"unknown: {error}"}
    print(json.dumps(told), flush=True)
