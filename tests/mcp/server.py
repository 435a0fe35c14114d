"""A small MCP server over stdio, for tests: says what it is told to by the file beside it."""
import json, os, signal, subprocess, sys, time

FOLDER = sys.argv[1]


def said(name, usual):
    try:
        with open(os.path.join(FOLDER, name)) as file:
            return file.read()
    except OSError:
        return usual


def tools():
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    named = ["echo", "env", "big", "crash", "hang", "key", "meta", "loud", "cut"]
    told = {"echo": said("description", "Says it again.")}
    listed = [{"name": n, "description": told.get(n, n), "inputSchema": schema} for n in named]
    number = {"type": "object", "required": ["number"], "properties": {"number": {"type": "integer"}}}
    return listed + [{"name": "typed", "inputSchema": schema, "outputSchema": number}]


def call(name, arguments, meta):
    if name == "env":
        return json.dumps(dict(os.environ))
    if name == "big":
        return "x" * 3_000_000
    if name == "crash":
        os._exit(1)
    if name == "meta":
        return json.dumps(meta)
    if name == "key":
        return meta.get("switchpoint/idempotency-key", "")
    return arguments.get("text", "")


def answer(message):
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        server = {"name": "small", "version": "1"}
        capabilities = {"tools": {"listChanged": True}}
        return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": server}
    if method == "tools/list":
        if os.path.exists(os.path.join(FOLDER, "endless")):
            return {"tools": tools(), "nextCursor": "more"}
        odd = [{"name": "odd", "inputSchema": 7}] if os.path.exists(os.path.join(FOLDER, "odd")) else []
        return {"tools": odd + tools(), "nextCursor": ""}
    if method == "tools/call":
        if params["name"] == "hang":
            return None
        if params["name"] == "loud":
            # Its id stands where nobody looks in what is too long.
            send({"result": {"text": "x" * 3_000_000}, "id": message["id"], "jsonrpc": "2.0"})
            return None
        if params["name"] == "cut":
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {}})[:-3], flush=True)
            return None
        if params["name"] == "typed":
            said = params.get("arguments", {}).get("text", "")
            content = [{"type": "text", "text": said}]
            return {"content": content, "structuredContent": json.loads(said)}
        text = call(params["name"], params.get("arguments", {}), params.get("_meta", {}))
        return {"content": [{"type": "text", "text": text}]}
    return LookupError


def send(message):
    print(json.dumps(message), flush=True)


def told(*_):
    with open(os.path.join(FOLDER, "told"), "a") as file:
        file.write("once\n")


def stays():
    while True:
        signal.pause()


IS_STUBBORN = os.path.exists(os.path.join(FOLDER, "stubborn"))
if IS_STUBBORN:
    signal.signal(signal.SIGTERM, told)
    if sys.argv[2:] == ["below"]:
        stays()
    subprocess.Popen([sys.executable, *sys.argv, "below"], stdin=subprocess.DEVNULL)
print("this line is for people", flush=True)
print("started with " + os.environ.get("SECRET", "nothing"), file=sys.stderr, flush=True)
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "notifications/cancelled":
        with open(os.path.join(FOLDER, "cancelled"), "a") as file:
            file.write("once\n")
    if "id" not in message or "method" not in message:
        continue
    result = answer(message)
    if result is LookupError:
        error = {"code": -32601, "message": "Method not found"}
        send({"jsonrpc": "2.0", "id": message["id"], "error": error})
    elif result is not None:
        send({"jsonrpc": "2.0", "id": message["id"], "result": result})
if IS_STUBBORN:
    stays()
