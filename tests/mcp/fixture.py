"""The MCP server that the conformance suite asks for: `fixture.py old|new` prints its address and
serves one generation of the protocol. It stands behind the gateway, which the suite speaks to."""
import base64, hashlib, http.server, json, queue, sys, threading, time

OLD, NEW = "2025-11-25", "2026-07-28"
IS_NEW = sys.argv[1] == "new"
META = "io.modelcontextprotocol/"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
# A text that is sent as bytes.
HIDDEN = base64.b64encode(b"It is hidden in bytes.").decode()
SOUND = base64.b64encode(b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0@\x1f\0\0\1\0\x08\0data\0\0\0\0").decode()
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
DEFAULTS = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
OPTIONS = ["option1", "option2", "option3"]


def titled(*titles):
    return [{"const": f"value{n}", "title": title} for n, title in enumerate(titles, 1)]


ENUMS = {
    "untitledSingle": {"type": "string", "enum": OPTIONS},
    "titledSingle": {"type": "string", "oneOf": titled("First Option", "Second Option", "Third Option")},
    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": titled("First Choice", "Second Choice", "Third Choice")}},
}


class Refused(Exception):
    def __init__(self, code, message, data=None):
        self.error = {"code": code, "message": message} | ({"data": data} if data else {})


def text(said):
    return {"content": [{"type": "text", "text": said}]}


def resource(uri, said, kind="text/plain"):
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": said}}


def form(message, properties, required=()):
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}


def sampling(prompt, most=100):
    messages = [{"role": "user", "content": {"type": "text", "text": prompt}}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": most}}


ROOTS = {"method": "roots/list", "params": {}}


# What tools do. Each is given its call.


def logs(call):
    for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        call.log("info", said)
        time.sleep(0.05)
    return text("It was logged.")


def progress(call):
    for done in (0, 50, 100):
        call.progress(done, 100)
        time.sleep(0.05)
    return text("It is done.")


def fails(call):
    return text("This tool intentionally returns an error for testing") | {"isError": True}


def samples(call):
    answer = call.ask(sampling(call.arguments["prompt"]))
    return text(f"LLM response: {answer['content']['text']}")


def elicits(message, properties):
    def run(call):
        answer = call.ask(form(call.arguments.get("message", message), properties, ()))
        return text(f"Elicitation completed: action={answer['action']}, content={json.dumps(answer.get('content'))}")

    return run


def reconnects(call):
    """The stream is closed before the answer, which whoever comes back is given."""
    call.close()
    time.sleep(0.2)
    return text("It was given nevertheless.")


def wants(said, done, state=None):
    """What is asked for comes with the call, when it is sent again."""

    def run(call):
        asked = said(call) if callable(said) else said
        answers = {} if call.responses is None else call.responses
        known = isinstance(answers, dict) and all(isinstance(answers.get(key), dict) for key in asked)
        if known and asked:
            if state and call.state != seal(state):
                raise Refused(-32602, "requestState is not what was given")
            return text(done(answers))
        return call.wants(asked, seal(state) if state else None)

    return run


def seal(state):
    return f"{state}.{hashlib.sha256(('secret' + state).encode()).hexdigest()}"


def rounds(call):
    first = form("Step 1: What is your name?", {"name": {"type": "string"}}, ["name"])
    second = form("Step 2: What is your favorite color?", {"color": {"type": "string"}}, ["color"])
    if call.state == seal("two") and "step2" in (call.responses or {}):
        return text("It is done after three rounds.")
    if call.state == seal("one") and "step1" in (call.responses or {}):
        return call.wants({"step2": second}, seal("two"))
    return call.wants({"step1": first}, seal("one"))


def able(call):
    asked = {"asked": sampling("Say something.")} if "sampling" in call.can else {}
    return asked | ({"name": NAME["user_name"]} if "elicitation" in call.can else {})


def needs_sampling(call):
    if "sampling" not in call.can:
        raise Refused(-32021, "This needs sampling.", {"requiredCapabilities": {"sampling": {}}})
    return text("A model could be asked.")


def changes(kind, among):
    def run(call):
        with LOCK:
            name = f"test_added_{len(among)}"
            among[name] = among[next(iter(among))]
        tell({"method": f"notifications/{kind}/list_changed"})
        return text("It has changed.")

    return run


def touches(call):
    tell({"method": "notifications/resources/updated", "params": {"uri": "test://watched-resource"}})
    return text("It was touched.")


NAME = {"user_name": form("What is your name?", {"name": {"type": "string"}}, ["name"])}
OK = {"confirm": form("Please confirm", {"ok": {"type": "boolean"}}, ["ok"])}
MANY = NAME | {"greeting": sampling("Generate a greeting", 50), "client_roots": ROOTS}
NOTHING = {"type": "object", "properties": {}}
PROMPT = {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]}
MESSAGE = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
LOCK = threading.Lock()
TOOLS = {
    "test_simple_text": (NOTHING, lambda call: text("This is a simple text response for testing.")),
    "test_image_content": (NOTHING, lambda call: {"content": [{"type": "image", "data": PIXEL, "mimeType": "image/png"}]}),
    "test_audio_content": (NOTHING, lambda call: {"content": [{"type": "audio", "data": SOUND, "mimeType": "audio/wav"}]}),
    "test_embedded_resource": (NOTHING, lambda call: {"content": [resource("test://embedded-resource", "This is an embedded resource content.")]}),
    "test_embedded_bytes": (NOTHING, lambda call: {"content": [{"type": "resource", "resource": {"uri": "test://hidden-bytes", "mimeType": "text/plain", "blob": HIDDEN}}]}),
    "test_multiple_content_types": (NOTHING, lambda call: {
        "content": text("Multiple content types test:")["content"] + [
            {"type": "image", "data": PIXEL, "mimeType": "image/png"},
            resource("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
        ]
    }),
    "test_structured_content": (NOTHING, lambda call: text('{"sum":8}') | {"structuredContent": {"sum": 8}}),
    "test_tool_with_logging": (NOTHING, logs),
    "test_logging_tool": (NOTHING, logs),
    "test_error_handling": (NOTHING, fails),
    "test_tool_with_progress": (NOTHING, progress),
    "test_touch": (NOTHING, touches),
    "json_schema_2020_12_tool": (SCHEMA, lambda call: text("It fits.")),
}
OF_OLD = {
    "test_sampling": (PROMPT, samples),
    "test_elicitation": (MESSAGE, elicits("", {"username": {"type": "string", "description": "User's response"}, "email": {"type": "string", "description": "User's email address"}})),
    "test_elicitation_sep1034_defaults": (NOTHING, elicits("Please review", DEFAULTS)),
    "test_elicitation_sep1330_enums": (NOTHING, elicits("Please choose", ENUMS)),
    "test_reconnection": (NOTHING, reconnects),
}
BY_HEADER = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
OF_NEW = {
    "test_header": (BY_HEADER, lambda call: text("It came by a header, too.")),
    "test_missing_capability": (NOTHING, needs_sampling),
    "test_streaming_elicitation": (NOTHING, wants(NAME, lambda it: "Hello!")),
    "test_input_required_result_elicitation": (NOTHING, wants(NAME, lambda it: f"Hello, {it['user_name']['content']['name']}!")),
    "test_input_required_result_sampling": (NOTHING, wants({"capital_question": sampling("What is the capital of France?")}, lambda it: it["capital_question"]["content"]["text"])),
    "test_input_required_result_list_roots": (NOTHING, wants({"client_roots": ROOTS}, lambda it: json.dumps(it["client_roots"]["roots"]))),
    "test_input_required_result_request_state": (NOTHING, wants(OK, lambda it: "state-ok", "confirm")),
    "test_input_required_result_multiple_inputs": (NOTHING, wants(MANY, lambda it: "All was answered.", "many")),
    "test_input_required_result_multi_round": (NOTHING, rounds),
    "test_input_required_result_tampered_state": (NOTHING, wants(OK, lambda it: "It was not touched.", "sealed")),
    "test_input_required_result_capabilities": (NOTHING, wants(able, lambda it: "It was answered.")),
}
TOOLS |= OF_NEW if IS_NEW else OF_OLD


# Prompts, by name: their arguments, and what they give.


def said(*contents):
    return {"messages": [{"role": "user", "content": content} for content in contents]}


def line(words):
    return {"type": "text", "text": words}


def prompt_with_input(call):
    answered = (call.responses or {}).get("user_context")
    if answered is None:
        return call.wants({"user_context": form("What is it about?", {"context": {"type": "string"}}, ["context"])}, None)
    return said(line(f"It is about {answered['content']['context']}."))


PROMPTS = {
    "test_simple_prompt": ([], lambda call: said(line("This is a simple prompt for testing."))),
    "test_prompt_with_arguments": (["arg1", "arg2"], lambda call: said(line(f"Prompt with arguments: arg1='{call.arguments['arg1']}', arg2='{call.arguments['arg2']}'"))),
    "test_prompt_with_embedded_resource": (["resourceUri"], lambda call: said(resource(call.arguments["resourceUri"], "Embedded resource content for testing."), line("Please process the embedded resource above."))),
    "test_prompt_with_image": ([], lambda call: said({"type": "image", "data": PIXEL, "mimeType": "image/png"}, line("Please analyze the image above."))),
    "test_input_required_result_prompt": ([], prompt_with_input),
}
TOOLS["test_trigger_tool_change"] = (NOTHING, changes("tools", TOOLS))
TOOLS["test_trigger_prompt_change"] = (NOTHING, changes("prompts", PROMPTS))
RESOURCES = {
    "test://static-text": ("text/plain", {"text": "This is the content of the static text resource."}),
    "test://static-binary": ("image/png", {"blob": PIXEL}),
    "test://text-as-bytes": ("text/plain", {"blob": HIDDEN}),
    "test://watched-resource": ("text/plain", {"text": "It changes."}),
}
# Who is to be told of what changes: a queue, and what it wants to hear; nothing is all.
LISTENERS = []
WATCHED = set()
WAITING = {}


def tell(notification):
    method, params = notification["method"], notification.get("params", {})
    with LOCK:
        for heard, wanted in LISTENERS:
            if wanted is None:
                if method.endswith("updated") and params["uri"] not in WATCHED:
                    continue
            elif method.endswith("updated"):
                if params["uri"] not in wanted.get("resourceSubscriptions", []):
                    continue
            elif not wanted.get(method.split("/")[1] + "ListChanged"):
                continue
            heard.put(notification)


def page(key, items):
    return {key: items} | ({"ttlMs": 60000, "cacheScope": "public"} if IS_NEW else {})


def read(uri):
    if uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.split("/")[3]
        words = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        return page("contents", [{"uri": uri, "mimeType": "application/json", "text": words}])
    if uri not in RESOURCES:
        raise Refused(-32602 if IS_NEW else -32002, "Resource not found", {"uri": uri})
    kind, words = RESOURCES[uri]
    return page("contents", [{"uri": uri, "mimeType": kind} | words])


def capabilities():
    changing = {"listChanged": True}
    return {"tools": changing, "prompts": changing, "resources": changing | {"subscribe": True}, "completions": {}, "logging": {}}


def answer(call):
    method, params = call.method, call.params
    if method == "initialize" and not IS_NEW:
        server = {"name": "fixture", "version": "1"}
        return {"protocolVersion": OLD, "capabilities": capabilities(), "serverInfo": server}
    if method == "server/discover" and IS_NEW:
        return page("supportedVersions", [NEW]) | {"capabilities": capabilities()}
    if method == "tools/list":
        return page("tools", [{"name": n, "description": f"{n} of the suite", "inputSchema": s} for n, (s, _) in list(TOOLS.items())])
    if method == "prompts/list":
        names = lambda needed: [{"name": n, "description": n, "required": True} for n in needed]
        return page("prompts", [{"name": n, "description": n, "arguments": names(a)} for n, (a, _) in list(PROMPTS.items())])
    if method == "resources/list":
        return page("resources", [{"uri": u, "name": u, "description": u, "mimeType": k} for u, (k, _) in RESOURCES.items()])
    if method == "resources/templates/list":
        template = {"uriTemplate": "test://template/{id}/data", "name": "template", "description": "One by its number", "mimeType": "application/json"}
        return page("resourceTemplates", [template])
    if method == "resources/read":
        return read(params["uri"])
    if method == "tools/call":
        if params["name"] not in TOOLS:
            raise Refused(-32602, f"Unknown tool: {params['name']}")
        return TOOLS[params["name"]][1](call)
    if method == "prompts/get":
        if params["name"] not in PROMPTS:
            raise Refused(-32602, f"Unknown prompt: {params['name']}")
        return PROMPTS[params["name"]][1](call)
    if method == "completion/complete":
        known = ["paris", "park", "party"]
        values = [it for it in known if it.startswith(params["argument"]["value"])]
        return {"completion": {"values": values, "total": len(values), "hasMore": False}}
    if not IS_NEW and method in ("ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"):
        if method.endswith("/subscribe"):
            WATCHED.add(params["uri"])
        if method.endswith("/unsubscribe"):
            WATCHED.discard(params["uri"])
        return {}
    raise Refused(-32601, method)


class Call:
    """One request, and what is said about it on its stream."""

    def __init__(self, door, message):
        self.door, self.id = door, message["id"]
        self.method, self.params = message["method"], message.get("params", {})
        self.meta = self.params.get("_meta", {})
        self.arguments = self.params.get("arguments", {})
        self.responses, self.state = self.params.get("inputResponses"), self.params.get("requestState")
        self.can = self.meta.get(META + "clientCapabilities", {})
        self.is_stream = self.is_closed = False
        self.events = 0

    def wants(self, asked, state):
        return {"resultType": "input_required", "inputRequests": asked} | ({"requestState": state} if state else {})

    def log(self, level, words):
        if not IS_NEW or META + "logLevel" in self.meta:
            self.send({"method": "notifications/message", "params": {"level": level, "logger": "fixture", "data": words}})

    def progress(self, done, total):
        if "progressToken" in self.meta:
            params = {"progressToken": self.meta["progressToken"], "progress": done, "total": total}
            self.send({"method": "notifications/progress", "params": params})

    def ask(self, request):
        number, waiting = f"asked-{time.monotonic_ns()}", queue.Queue()
        WAITING[number] = waiting
        self.send({"id": number} | request)
        answered = waiting.get(timeout=30)
        if "error" in answered:
            raise Refused(answered["error"]["code"], answered["error"]["message"])
        return answered["result"]

    def close(self):
        """Whoever follows comes back, and is given the answer where it lies."""
        self.stream()
        KEPT[str(self.id)] = self
        self.later = queue.Queue()
        self.door.write(f"id: {self.id}\nretry: 100\ndata:\n\n".encode())
        self.door.end()
        self.is_closed = True

    def stream(self):
        if not self.is_stream:
            self.is_stream = True
            self.door.begin(200, "text/event-stream")

    def send(self, message):
        self.stream()
        self.door.write(f"data: {json.dumps({'jsonrpc': '2.0'} | message)}\n\n".encode())

    def done(self, message):
        if self.is_closed:
            self.later.put(message)
        elif self.is_stream:
            self.send(message)
        else:
            code = message.get("error", {}).get("code")
            refused = {-32601: 404, -32021: 400, -32020: 400, -32022: 400} if IS_NEW else {}
            self.door.reply(refused.get(code, 200), {"jsonrpc": "2.0"} | message)


KEPT = {}


class Door(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def begin(self, status, kind, size=None):
        self.send_response(status)
        self.send_header("content-type", kind)
        if size is None:
            self.send_header("connection", "close")
            self.close_connection = True
        else:
            self.send_header("content-length", str(size))
        if not IS_NEW:
            self.send_header("mcp-session-id", "the-one")
        self.end_headers()

    def write(self, data):
        self.wfile.write(data)
        self.wfile.flush()

    def end(self):
        self.wfile.flush()
        self.connection.shutdown(1)

    def reply(self, status, message):
        body = json.dumps(message).encode()
        self.begin(status, "application/json", len(body))
        self.write(body)

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        if "method" not in message:
            waiting = WAITING.pop(message["id"], None)
            if waiting:
                waiting.put(message)
        if "id" not in message or "method" not in message:
            return self.begin(202, "application/json", 0)
        call = Call(self, message)
        if call.method == "subscriptions/listen" and IS_NEW:
            return self.listens(call)
        try:
            said = {"result": answer(call)}
            if IS_NEW:
                said["result"].setdefault("resultType", "complete")
        except Refused as refused:
            said = {"error": refused.error}
        call.done({"id": call.id} | said)

    def listens(self, call):
        wanted, meta = call.params["notifications"], {META + "subscriptionId": call.id}
        call.send({"method": "notifications/subscriptions/acknowledged", "params": {"notifications": wanted, "_meta": meta}})
        self.follow(wanted, lambda said: call.send(said | {"params": said.get("params", {}) | {"_meta": meta}}))

    def follow(self, wanted, send):
        heard = queue.Queue()
        with LOCK:
            LISTENERS.append((heard, wanted))
        try:
            while True:
                try:
                    send(heard.get(timeout=0.5))
                except queue.Empty:
                    self.write(b":\n\n")
        except OSError:
            pass
        finally:
            with LOCK:
                LISTENERS.remove((heard, wanted))

    def do_GET(self):
        if IS_NEW:
            return self.reply(405, {"jsonrpc": "2.0", "id": None, "error": {"code": -32601, "message": "no streams"}})
        last = self.headers.get("last-event-id")
        self.begin(200, "text/event-stream")
        send = lambda said: self.write(f"data: {json.dumps({'jsonrpc': '2.0'} | said)}\n\n".encode())
        if last in KEPT:
            return send(KEPT.pop(last).later.get(timeout=30))
        self.follow(None, send)

    def do_DELETE(self):
        self.begin(200, "application/json", 0)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    print(f"http://127.0.0.1:{server.server_port}/mcp", flush=True)
    server.serve_forever()
