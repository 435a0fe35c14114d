"""Drives the conformance suite: `conformance.py GATEWAY NODE_MODULES`; as the suite's client, it is
called with the address of the suite's server behind that."""
import http.server, json, os, re, subprocess, sys, tempfile, threading, time
import urllib.error, urllib.request

KEY = "sk-conformance"
HERE = os.path.dirname(os.path.abspath(__file__))
# What the protocol requires in each of its generations, and the server behind the gateway then.
REVISIONS = {"2025-11-25": "old", "2026-07-28": "new"}
# What fails and may, and why.
NOT_OFFERED = {
    "tasks-": "an extension of the protocol, which is not offered",
}
AS_CLIENT = {
    "2025-11-25": """
initialize tools_call elicitation-sep1034-client-defaults sse-retry
json-schema-2020-12-preservation
""",
    "2026-07-28": """
tools_call request-metadata sep-2322-client-request-state http-standard-headers
http-custom-headers http-invalid-tool-headers json-schema-ref-no-deref
json-schema-2020-12-preservation
""",
}


class House:
    """A gateway with these tools."""

    def __init__(self, program, url):
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "switchpoint.toml")
        with open(path, "w") as file:
            file.write(
                f"""
[server]
listen = "127.0.0.1:0"
drain = "100ms"
[admin]
listen = "127.0.0.1:0"
key = "sk-conformance-admin"
[store]
url = "memory:"
[providers.demo]
kind = "demo"
[keys.suite]
secret = "{KEY}"
[mcp]
expose = {{ tools = ["suite.*"], resources = ["suite.*"], prompts = ["suite.*"], prefix = false }}
hosts = ["127.0.0.1", "localhost"]
origins = ["http://localhost:*", "http://127.0.0.1:*"]
[tools.suite]
kind = "mcp"
transport = "streamable-http"
url = "{url}"
sampling = true
"""
            )
        environment = {"PATH": os.environ["PATH"]}
        command = [program, "serve", "--config", path]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        said = []
        for line in self.process.stdout:
            said.append(line)
            if "base URL" in line:
                self.address = re.search(r"http://([^/\s]+)", line).group(1)
                break
        else:
            sys.exit("no gateway: " + "".join(said))
        threading.Thread(target=lambda: open(os.environ.get("MCP_LOG", os.devnull), "w").write(self.process.stdout.read()), daemon=True).start()

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


class Client:
    """Calls the tools of a gateway, and says yes to whatever it is asked."""

    def __init__(self, address):
        self.url, self.session, self.number = f"http://{address}/mcp", None, 0
        capabilities = {"elicitation": {"form": {}}}
        info = {"name": "conformance", "version": "1"}
        version = "2025-11-25"
        params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": info}
        self.ask("initialize", params)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def ask(self, method, params=None):
        self.number += 1
        return self.send(
            {"jsonrpc": "2.0", "id": self.number, "method": method, "params": params or {}}
        )

    def send(self, message):
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {KEY}",
        }
        if self.session:
            headers |= {"mcp-session-id": self.session, "mcp-protocol-version": "2025-11-25"}
        request = urllib.request.Request(self.url, json.dumps(message).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            self.session = answer.headers.get("mcp-session-id", self.session)
            for line in answer:
                said = line.decode().removeprefix("data:").strip()
                if not said.startswith("{"):
                    continue
                said = json.loads(said)
                if said.get("method") == "elicitation/create":
                    result = {"action": "accept", "content": {}}
                    self.send({"jsonrpc": "2.0", "id": said["id"], "result": result})
                elif said.get("id") == message.get("id"):
                    return said
        return None


def client(program, url):
    """What the suite runs as a client: a gateway before the suite's server, and someone who uses
    all that it has."""
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    house = House(program, url)
    try:
        asker, tools = Client(house.address), []
        patience = time.monotonic() + 5
        while not tools and time.monotonic() < patience:
            tools = asker.ask("tools/list")["result"]["tools"]
            time.sleep(0.05)
        for name, arguments in calls(tools, context):
            asker.ask("tools/call", {"name": name, "arguments": arguments})
        for kind, key, verb, name in (
            ("resources", "resources", "resources/read", "uri"),
            ("prompts", "prompts", "prompts/get", "name"),
        ):
            listed = asker.ask(f"{kind}/list").get("result", {}).get(key, [])
            for thing in listed:
                asker.ask(verb, {name: thing[name]})
    finally:
        house.end()


def calls(tools, context):
    """The calls that the suite wants, or one of each tool."""
    wanted = context.get("toolCalls")
    if wanted:
        # That it is nothing, and that it is not there, is the same.
        told = lambda arguments: {k: v for k, v in arguments.items() if v is not None}
        return [(call["name"], told(call["arguments"])) for call in wanted]
    schemas = {tool["name"]: tool["inputSchema"] for tool in tools}
    return [(name, example(schemas, name)) for name in schemas]


def example(schemas, name):
    if name == "json_schema_echo":
        return {"schema": schemas["json_schema_2020_12_tool"]}
    if name == "json_schema_2020_12_tool":
        return {"name": "Ada", "contactMethod": "phone", "phone": "1"}
    given = {"string": "text", "integer": 5, "number": 3, "boolean": True, "object": {}, "array": []}
    needed = schemas[name].get("required", []) or schemas[name].get("properties", {})
    kinds = schemas[name].get("properties", {})
    return {key: given.get(kinds.get(key, {}).get("type"), "text") for key in needed}


def suite(modules, *arguments):
    """How the suite ends, and what it says."""
    node = os.path.join(modules, ".bin", "node")
    program = os.path.join(modules, "@modelcontextprotocol", "conformance", "dist", "index.js")
    with tempfile.TemporaryDirectory() as results:
        command = [node, program, *arguments, "-o", results]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        files = [os.path.join(root, n) for root, _, names in os.walk(results) for n in names]
        checks = [c for f in files if f.endswith("checks.json") for c in json.load(open(f))]
    return done.returncode, done.stdout + done.stderr, checks


def tell(kind, revision, name, passed, why=""):
    print(f"{'ok  ' if passed else 'FAIL'} {kind} {revision} {name}" + ("" if passed else f": {why}"))
    return passed


def as_client(program, modules):
    here = f"{sys.executable} {os.path.abspath(__file__)} {program} {modules}"
    for revision, names in AS_CLIENT.items():
        for name in names.split():
            arguments = ["--command", here, "--scenario", name, "--spec-version", revision]
            code, said, checks = suite(modules, "client", *arguments)
            passed = code == 0 and any(check["status"] == "SUCCESS" for check in checks)
            yield tell("client", revision, name, passed, said[-3000:])


def as_server(program, modules):
    for revision, generation in REVISIONS.items():
        command = [sys.executable, "-u", os.path.join(HERE, "fixture.py"), generation]
        behind = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        house = House(program, behind.stdout.readline().strip())
        # The suite bears no key, so whoever stands between adds one.
        door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), bearing(house.address))
        threading.Thread(target=door.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{door.server_port}/mcp"
        try:
            seen(house.address)
            code, said, _ = suite(modules, "server", "--url", url, "--requirements", revision)
        finally:
            house.end()
            behind.kill()
            behind.wait()
        scenarios = re.findall(r"^(✓|✗) ([\w-]+): (.*)$", said, re.MULTILINE)
        for mark, name, counts in scenarios:
            reason = next((why for it, why in NOT_OFFERED.items() if name.startswith(it)), None)
            if mark == "✗" and reason:
                print(f"n/a  server {revision} {name}: {reason}")
            else:
                yield tell("server", revision, name, mark == "✓", counts)
        yield tell("server", revision, "in all", code == 0 and len(scenarios) >= 30, said[-3000:])


def seen(address):
    """Waits until the gateway offers what is behind it."""
    asker, patience = Client(address), time.monotonic() + 20
    while not asker.ask("tools/list")["result"]["tools"]:
        if time.monotonic() > patience:
            sys.exit("the server behind the gateway is not offered")
        time.sleep(0.05)


def bearing(address):
    class Door(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            headers["authorization"] = f"Bearer {KEY}"
            url = f"http://{address}{self.path}"
            request = urllib.request.Request(url, body or None, headers, method=self.command)
            try:
                answer = urllib.request.urlopen(request)
            except urllib.error.HTTPError as refused:
                answer = refused
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("connection", "close")
            self.end_headers()
            try:
                while piece := answer.read1(65536):
                    self.wfile.write(piece)
                    self.wfile.flush()
            except OSError:
                pass
            self.close_connection = True

        do_GET = do_POST = do_DELETE = pass_on

        def log_message(self, *_):
            pass

    return Door


def main():
    program, modules, *rest = sys.argv[1:]
    if rest:
        return client(program, rest[0])
    passed = [*as_client(program, modules), *as_server(program, modules)]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
