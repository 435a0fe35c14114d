"""Drives the conformance suite: `conformance.py GATEWAY NODE_MODULES`; as the suite's client, it is
called with the address of the suite's server behind that."""
import base64, http.server, json, os, re, subprocess, sys, tempfile, threading, time
import urllib.error, urllib.request

KEY = "sk-conformance"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
# As a server, what the suite asks for that a gateway of tools has none of.
NOT_OFFERED = {
    "logging-set-level": "no logging",
    "completion-complete": "no completion",
    "resources": "no resources",
    "prompts": "no prompts",
    "tools-call-audio": "no tool of ours gives sound",
    "tools-call-embedded-resource": "resources become text",
    "tools-call-mixed-content": "resources become text",
    "tools-call-with-logging": "no logging",
    "tools-call-with-progress": "progress is that of agents",
    "tools-call-sampling": "tools ask no models",
    "tools-call-elicitation": "the suite's tool is its own",
    "elicitation-": "the suite's tool is its own",
    "json-schema-2020-12": "the suite's tool is its own",
    "server-sse-polling": "the suite's tool is its own",
}
# What it complains of that is meant so, and why.
MEANT = {
    "ClientElicitationSEP1034General": "a call is called off while a person is asked, and made "
    "again with the answer: the first question stays without one",
}
AS_SERVER = """
ping server-initialize tools-list tools-call-simple-text tools-call-image tools-call-error
server-sse-multiple-streams dns-rebinding-protection
""".split()
AS_CLIENT = "initialize tools_call elicitation-sep1034-client-defaults sse-retry".split()


class Desk(http.server.BaseHTTPRequestHandler):
    """What the tools of the gateway call."""

    def do_GET(self):
        answers = {
            "/text": (200, "text/plain", b"This is a simple text response for testing."),
            "/image": (200, "image/png", PIXEL),
            "/error": (500, "text/plain", b"This tool intentionally returns an error for testing"),
        }
        status, kind, body = answers[self.path.split("?")[0]]
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class House:
    """A gateway with these tools."""

    def __init__(self, program, sections, expose):
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
expose = {{ tools = ["{expose}"] }}
hosts = ["127.0.0.1", "localhost"]
origins = ["http://localhost:*", "http://127.0.0.1:*"]
{sections}
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
    """What the suite runs as a client: a gateway whose tools are the suite's."""
    section = f'[tools.suite]\nkind = "mcp"\ntransport = "streamable-http"\nurl = "{url}"\n'
    house = House(program, section, "suite.*")
    try:
        asker, tools = Client(house.address), []
        patience = time.monotonic() + 5
        while not tools and time.monotonic() < patience:
            tools = [tool["name"] for tool in asker.ask("tools/list")["result"]["tools"]]
            time.sleep(0.05)
        for tool in tools:
            arguments = {"a": 5, "b": 3} if "add" in tool else {}
            asker.ask("tools/call", {"name": tool, "arguments": arguments})
    finally:
        house.end()


def suite(modules, *arguments):
    """Whether a scenario passes, and what it says."""
    node = os.path.join(modules, ".bin", "node")
    program = os.path.join(modules, "@modelcontextprotocol", "conformance", "dist", "index.js")
    with tempfile.TemporaryDirectory() as results:
        command = [node, program, *arguments, "-o", results]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        files = [os.path.join(root, n) for root, _, names in os.walk(results) for n in names]
        checks = [c for f in files if f.endswith("checks.json") for c in json.load(open(f))]
    said = done.stdout + done.stderr
    failed = said.partition("Failed Checks:")[2].strip()
    names = re.findall(r"^\s*- (\w+):", failed, re.MULTILINE)
    for name in names:
        print(f"note {name}: {MEANT[name]}" if name in MEANT else f"     {name}")
    is_meant = bool(names) and all(name in MEANT for name in names)
    passed = any(check["status"] == "SUCCESS" for check in checks)
    return passed and (done.returncode == 0 or is_meant), failed or said[-300:]


def tell(kind, name, passed, why):
    print(f"{'ok  ' if passed else 'FAIL'} {kind} {name}" + ("" if passed else f": {why}"))
    return passed


def as_client(program, modules):
    here = f"{sys.executable} {os.path.abspath(__file__)} {program} {modules}"
    run = lambda name: suite(modules, "client", "--command", here, "--scenario", name)
    return [tell("client", name, *run(name)) for name in AS_CLIENT]


def as_server(program, modules):
    desk = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Desk)
    threading.Thread(target=desk.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{desk.server_port}"
    tools = {"simple_text": "text", "image_content": "image", "error_handling": "error"}
    sections = "".join(
        f'[tools.test_{name}]\nkind = "http"\nmethod = "GET"\nurl = "{base}/{path}"\n'
        f'description = "{name}"\neffect = "read"\nretry = {{ attempts = 1 }}\n'
        'input = { type = "object", properties = {} }\n'
        for name, path in tools.items()
    )
    house = House(program, sections, "test_*")
    # The suite bears no key, so whoever stands between adds one.
    door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), bearing(house.address))
    threading.Thread(target=door.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{door.server_port}/mcp"
    run = lambda name: suite(modules, "server", "--url", url, "--scenario", name)
    try:
        return [tell("server", name, *run(name)) for name in AS_SERVER]
    finally:
        house.end()


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
    passed = as_client(program, modules) + as_server(program, modules)
    for name, why in NOT_OFFERED.items():
        print(f"n/a  server {name}: {why}")
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
