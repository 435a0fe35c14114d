#!/usr/bin/env python3
"""Shows that every panel of every board has data, and that rules and metrics are in order.

    tests/dashboards.py [GATEWAY]     the binary; target/release/switchpoint unless given

A gateway is driven by calls of every kind before a scripted provider, a real Prometheus scrapes it
with the rules and the scrape config of dashboards/, and each query of each panel is asked of it.
Needs `prometheus`, `promtool` and `redis-server`, and fails without them. A minute or less.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parent.parent
BOARDS = ROOT / "dashboards"
KEY, LIMITED, POOR, ADMIN = "sk-caller", "sk-limited", "sk-poor", "sk-admin"
OPERATOR = "sk-operator"
ROUNDS = 12
PATIENCE = 30

CONFIG = """
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
key = "sk-admin"
[store]
url = "sqlite:{folder}/store.db"
shared = "redis://127.0.0.1:{redis}"
replicas = 1

[secrets.vault]
address = "http://127.0.0.1:{upstream}"
token = "hvs.test"
[record]
consent = true
folder = "{folder}/recordings"
routes = ["plain"]

[providers.alpha]
kind = "openai-compatible"
api_key = "vault:secret/alpha#key"
base_url = "http://127.0.0.1:{upstream}/v1"
models = ["good", "broken", "busy"]
[providers.beta]
kind = "openai-compatible"
base_url = "http://127.0.0.1:{upstream}/v1"
models = ["good", "flaky", "cut", "garbled", "slow", "unpriced", "acting", "restless"]
[providers.demo]
kind = "demo"
[models."alpha/good"]
price = {{ input = 100, output = 1000, cache_read = 10 }}
[models."beta/good"]
price = {{ input = 50, output = 500 }}
[models."beta/acting"]
price = {{ input = 50, output = 500 }}

[routes.plain]
targets = ["alpha/good"]
[routes.spare]
targets = ["alpha/broken", "beta/good"]
[routes.busy]
targets = ["alpha/busy"]
[routes.flaky]
targets = ["beta/flaky"]
[routes.cut]
targets = ["beta/cut"]
[routes.garbled]
targets = ["beta/garbled"]
[routes.slow]
targets = ["beta/slow"]
attempts = 1
timeouts = {{ total = "200ms" }}
[routes.unpriced]
targets = ["beta/unpriced"]
[routes.remembered]
targets = ["alpha/good"]
cache = {{ mode = "on", sampled = true }}
[routes.similar]
targets = ["alpha/good"]
[routes.similar.cache]
mode = "on"
sampled = true
semantic = {{ route = "demo/demo", threshold = 0.5, shadow = true }}
[routes.guarded]
targets = ["alpha/good"]
guards = ["words", "away"]

[guards.words]
kind = "pattern"
stage = ["input"]
action = "block"
words = ["Aurora"]
[guards.away]
kind = "webhook"
stage = ["input"]
url = "http://127.0.0.1:1/"
on_error = "allow"

[telemetry.otlp]
endpoint = "http://127.0.0.1:{upstream}"

[routes.auto]
strategy = "task"
tasks = {{ code = "plain" }}
default = "spare"

[teams.search]
budget = [{{ tokens = 1_000_000, window = "1d" }}]
[teams.poor]
budget = [{{ tokens = 400, window = "1d" }}]
[keys.caller]
secret = "sk-caller"
team = "search"
[keys.operator]
secret = "sk-operator"
role = "operator"
[keys.limited]
secret = "sk-limited"
limits = {{ requests = "3/m" }}
[keys.poor]
secret = "sk-poor"
team = "poor"

[tools.calc]
kind = "builtin"
name = "calculator"
[tools.refund]
kind = "http"
effect = "once"
method = "POST"
url = "http://127.0.0.1:{upstream}/refund"
approval = {{ roles = ["lead"] }}
input = {{ type = "object", properties = {{ cents = {{ type = "integer" }} }} }}
[tools.shaky]
kind = "http"
effect = "idempotent"
method = "POST"
url = "http://127.0.0.1:{upstream}/shaky"
input = {{ type = "object" }}
retry = {{ attempts = 2, base = "1ms" }}
[tools.known]
kind = "http"
effect = "read"
method = "GET"
url = "http://127.0.0.1:{upstream}/known"
input = {{ type = "object" }}
cache = {{ ttl = "1h", scope = "all" }}
[agents.helper]
route = "beta/acting"
instructions = "You help with sums."
tools = ["calc"]
confidence = {{ field = "confidence" }}
[agents.buyer]
route = "beta/acting"
instructions = "You refund orders."
tools = ["refund"]
[agents.clumsy]
route = "beta/acting"
instructions = "Your tool fails."
tools = ["shaky"]
[agents.reader]
route = "beta/acting"
instructions = "You look things up."
tools = ["known"]
[agents.careful]
route = "spare"
instructions = "Your first model is broken."
[agents.restless]
route = "beta/restless"
instructions = "You never stop."
tools = ["calc"]
limits = {{ steps = 2 }}
[agents.sorter]
route = "auto"
instructions = "The kind of work decides who answers."
guards = ["words"]
[agents.locked]
route = "beta/acting"
instructions = "Only operators may run it."
access = {{ keys = ["operator"] }}
[hooks.desk]
url = "http://127.0.0.1:{upstream}/refund"
secret = "hook-secret"
"""


class Upstream(BaseHTTPRequestHandler):
    """A provider whose models do what their names say, a Vault, and a collector of traces."""

    protocol_version = "HTTP/1.1"
    flaky = 0

    def do_GET(self):
        self.tell(200, {"data": {"data": {"key": "sk-alpha"}, "metadata": {"version": 1}}})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/traces":
            return self.send(200, b"", {"content-type": "application/x-protobuf"})
        asked = json.loads(body)
        if self.path == "/shaky":
            return self.tell(500, {"error": "out of order"})
        if self.path == "/refund":
            return self.tell(200, {"refunded": asked})
        model = asked["model"]
        if model in ("acting", "restless"):
            return self.act(asked)
        Upstream.flaky += model == "flaky"
        if model == "slow":
            time.sleep(0.5)
        if model == "broken" or (model == "flaky" and Upstream.flaky % 2):
            self.tell(500, {"error": {"message": "broken", "type": "server_error"}})
        elif model == "busy":
            limit = {"message": "slow down", "type": "rate_limit_error"}
            self.tell(429, {"error": limit}, {"retry-after": "1"})
        elif asked.get("stream"):
            self.stream(model)
        else:
            message = {"role": "assistant", "content": "Hello there"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.tell(200, {**self.head(model, "chat.completion"), "choices": [choice], "usage": USAGE})

    def act(self, asked):
        """What an agent's model says: it calls its tool once, or as often as it may."""
        tools = [tool["function"]["name"] for tool in asked.get("tools", [])]
        done = any(message["role"] == "tool" for message in asked["messages"])
        # Some questions it is not sure of; a person is asked then.
        sure = 0.2 if "What is 2?" in json.dumps(asked["messages"]) else 0.93
        message = {"role": "assistant", "content": json.dumps({"answer": "2", "confidence": sure})}
        if tools and (not done or asked["model"] == "restless"):
            turn = len(asked["messages"])
            args = {"cents": 5} if tools[0] == "refund" else {"expression": f"{turn} + 1"}
            function = {"name": tools[0], "arguments": json.dumps(args)}
            call = {"index": 0, "id": f"call_{turn}", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        end = "tool_calls" if message["content"] is None else "stop"
        if not asked.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": end}
            head = self.head(asked["model"], "chat.completion")
            return self.tell(200, {**head, "choices": [choice], "usage": USAGE})
        head = self.head(asked["model"], "chat.completion.chunk")
        choices = [{"index": 0, "delta": message, "finish_reason": None}]
        choices += [{"index": 0, "delta": {}, "finish_reason": end}]
        chunks = [{**head, "choices": [choice]} for choice in choices]
        chunks += [{**head, "choices": [], "usage": USAGE}]
        events = [json.dumps(chunk) for chunk in chunks] + ["[DONE]"]
        body = "".join(f"data: {event}\n\n" for event in events).encode()
        self.send(200, body, {"content-type": "text/event-stream"})

    def head(self, model, kind):
        return {"id": "chatcmpl-1", "object": kind, "created": 1_760_000_000, "model": model}

    def tell(self, status, answer, headers=()):
        headers = {"content-type": "application/json", **dict(headers)}
        self.send(status, json.dumps(answer).encode(), headers)

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # a caller that did not want to wait
            self.wfile.write(body)

    def stream(self, model):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        head = self.head(model, "chat.completion.chunk")
        words = [{"role": "assistant"}, {"content": "Hello"}, {"content": " there"}, {"content": "!"}]
        chunks = [{**head, "choices": [{"index": 0, "delta": word, "finish_reason": None}]} for word in words]
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        chunks += [{**head, "choices": [end]}, {**head, "choices": [], "usage": USAGE}]
        events = [json.dumps(chunk) for chunk in chunks] + ["[DONE]"]
        if model == "garbled":
            events.insert(3, '{"choices": [')
        if model == "cut":
            events = events[:3]
        for event in events:
            self.wfile.write(f"data: {event}\n\n".encode())
            time.sleep(0.003)

    def log_message(self, *_):
        pass


USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 12,
    "total_tokens": 42,
    "prompt_tokens_details": {"cached_tokens": 10},
}


class Provider(ThreadingHTTPServer):
    """The listener of `Upstream`; a caller that hangs up is no fault worth a page of output."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def fail(message):
    sys.exit(f"tests/dashboards.py: {message}")


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        fail(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, look):
    """What `look` finds, as soon as it finds anything."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if found := look():
                return found
        time.sleep(0.05)
    fail(f"{what} within {PATIENCE} s: no")


def ask(address, path, body=None, key=ADMIN, method=None, headers=()):
    """Status and text of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", data, method=method, headers=dict(headers))
    request.add_header("authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except http.client.IncompleteRead as error:
        return 200, error.partial.decode()


class Prometheus:
    """A Prometheus on the scrape config and rules of dashboards/, but quicker, and its answers."""

    def __init__(self, stack, folder, target):
        config = (BOARDS / "prometheus.yml").read_text()
        config = config.replace("15s", "1s").replace("gateway:4001", target)
        (folder / "prometheus.yml").write_text(config)
        shutil.copy(BOARDS / "rules.yml", folder)
        self.address = f"127.0.0.1:{free_port()}"
        start(stack, folder / "prometheus.log", "prometheus", f"--config.file={folder}/prometheus.yml",
              f"--storage.tsdb.path={folder}/data", f"--web.listen-address={self.address}",
              "--enable-feature=exemplar-storage")
        until("Prometheus is ready", lambda: ask(self.address, "/-/ready")[0] == 200)

    def get(self, path, **parameters):
        status, text = ask(self.address, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(text)
        return answer["data"] if status == 200 else fail(f"{parameters}: {answer['error']}")

    def series(self, expression):
        """The labels of each series of the answer that has a number."""
        found = self.get("query", query=expression)["result"]
        return [one["metric"] for one in found if one["value"][1] not in ("NaN", "+Inf", "-Inf")]


def start(stack, log, *command, **options):
    """A process that ends with the stack."""
    with open(log, "wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
    stack.callback(child.wait)
    stack.callback(child.kill)
    return child


def start_gateway(stack, folder, binary):
    upstream = Provider(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    stack.callback(upstream.shutdown)
    port = free_port()
    redis = start(stack, folder / "redis.log",
                  "redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "")
    places = {"folder": folder, "redis": port, "upstream": upstream.server_port}
    (folder / "config.toml").write_text(CONFIG.format(**places))
    log = folder / "gateway.log"
    # Nothing of the surroundings must change what the config says.
    gateway = start(stack, log, binary, "serve", "--config", folder / "config.toml", env={})

    def banner():
        if gateway.poll() is not None:
            fail(log.read_text())
        text = log.read_text()
        found = [re.search(rf"{name}.*?://([0-9.:]+)", text) for name in ("base URL", "admin")]
        return all(found) and [one[1] for one in found]

    return *until("the gateway prints its banner", banner), redis


def call(address, model, key=KEY, stream=False, text="Hello"):
    body = {"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": text}]}
    return ask(address, "/v1/chat/completions", {**body, "stream": stream}, key)[0]


def one_round(address, pool, number):
    """Calls of every kind, several at once."""
    kinds = [dict(model="plain"), dict(model="plain", stream=True)] * 8
    kinds += [dict(model=route, stream=True) for route in ("spare", "cut", "garbled", "unpriced")]
    kinds += [dict(model=route) for route in ("spare", "busy", "flaky", "slow", "missing")]
    kinds += [dict(model="plain", key=key) for key in (LIMITED, POOR, "sk-nobody")]
    kinds += [dict(model="auto", text="Fix this function: def f(x): return x +"), dict(model="auto")]
    kinds += [dict(model="remembered"), dict(model="guarded"), dict(model="guarded", text="About Aurora")]
    kinds += [dict(model="agent/sorter", text="About Aurora"), dict(model="agent/locked")]
    kinds += [dict(model="similar", text=f"What is the weather like in Paris on day {number}?")]
    return list(pool.map(lambda kind: call(address, **kind), kinds))


def one_round_of_agents(address, number):
    """A run of each agent; one is decided about by a person, and all are praised."""
    runs = {}
    for agent in ("helper", "buyer", "restless", "clumsy", "reader", "careful", "sorter"):
        status, text = ask(address, f"/v1/agents/{agent}/runs", {"input": f"What is {number}?"}, KEY)
        if status != 202:
            fail(f"a run of {agent} does not begin: {status} {text}")
        runs[agent] = "/v1/agents/runs/" + json.loads(text)["id"]

    def pending():
        run = json.loads(ask(address, runs["buyer"], key=KEY)[1])
        return run.get("pending", {}).get("approvals")

    approval = until("a run waits for a person", pending)[0]
    decision = {"decision": "approve" if number % 2 else "deny"}
    seen = {"if-match": f'"{approval["args_hash"]}"'}
    status, text = ask(address, f"/v1/agents/approvals/{approval['id']}", decision, OPERATOR, headers=seen)
    if status != 200:
        fail(f"nobody can decide: {status} {text}")
    ask(address, runs["helper"] + "/resume", {}, KEY)  # nobody holds it: refused
    label = "good" if number % 3 else "wrong"
    ask(address, runs["helper"] + "/feedback", {"score": 1, "label": label}, KEY)


# What no call here brings about: a process that serves tools, one that is started anew or tells
# something else than before, and a conversation that is too long. Their panels show 0.
RARE = {
    "switchpoint_agent_compactions_total",
    "switchpoint_mcp_children",
    "switchpoint_mcp_reconnects_total",
    "switchpoint_mcp_tool_drift_total",
}

# In which rounds the shared store stands still, and goes on.
HICCUP = {5: signal.SIGSTOP, 7: signal.SIGCONT}


# What is done about the config, and in which round.
STEPS = {
    1: ("reload", None),
    3: ("apply", {"canary": {"share": "50%", "for": "1h", "sticky": "call"}, "ephemeral": True}),
    8: ("abort", None),
    9: ("reload", None),
}


def drive(gateway, admin, redis, folder):
    text = (folder / "config.toml").read_text()
    with ThreadPoolExecutor(8) as pool:
        for number in range(ROUNDS):
            begin = time.monotonic()
            if number in HICCUP:
                redis.send_signal(HICCUP[number])
            one_round(gateway, pool, number)
            if number not in range(min(HICCUP), max(HICCUP) + 1):
                one_round_of_agents(gateway, number)
            if number % 3 == 0:
                ask(admin, "/admin/drills/spare", method="POST")
            if number in STEPS:
                path, terms = STEPS[number]
                body = terms and {**terms, "text": text + "# changed\n"}
                ask(admin, f"/admin/config/{path}", body, method="POST")
            # Numbers that rise must be seen to, by a scrape a second.
            time.sleep(max(0, begin + 1 - time.monotonic()))
    (folder / "config.toml").write_text(text + "\n[nonsense]\n")
    ask(admin, "/admin/config/reload", method="POST")


def filled_in(expression):
    """The expression as Grafana asks it when every variable is at `All`."""
    for name, value in {"__rate_interval": "1m", "__interval": "15s", "__range": "1h"}.items():
        expression = expression.replace(f"${name}", value)
    return re.sub(r"\$\w+", ".*", expression)


def check_shape(name, board):
    """What Grafana and its readers need and no query shows."""
    panels = board["panels"]
    if len({panel["id"] for panel in panels}) != len(panels):
        fail(f"{name}: two panels have the same id")
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        if taken & cells or place["x"] + place["w"] > 24:
            fail(f"{name}: {panel['title']} lies over another panel")
        taken |= cells
        if panel["type"] == "row":
            continue
        if not panel.get("description", "").endswith("."):
            fail(f"{name}: {panel['title']} does not say in a sentence what it shows")
        asked = [panel, *panel["targets"]] if panel["type"] != "text" else []
        if any(one["datasource"]["uid"] != "${datasource}" for one in asked):
            fail(f"{name}: {panel['title']} asks a data source of its own")
        numbers = panel["type"] in ("timeseries", "stat", "bargauge")
        if numbers and not {"unit", "mappings"} & panel["fieldConfig"]["defaults"].keys():
            fail(f"{name}: {panel['title']} has no unit")


def queries(board):
    """Each query of a board with where it stands and the labels that its legend shows."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            legend = re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"])
            yield panel["title"], filled_in(target["expr"]), legend
    for note in board["annotations"]["list"]:
        yield note["name"], filled_in(note["expr"]), re.findall(r"{{\s*(\w+)\s*}}", note["textFormat"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            yield f"${variable['name']}", filled_in(asked[1]), [asked[2]]


def check_boards(prometheus, exposed):
    empty = []
    for path in sorted(BOARDS.glob("*.json")):
        board = json.loads(path.read_text())
        check_shape(path.name, board)
        asked = list(queries(board))
        for title, expression, legend in asked:
            for name in re.findall(r"\b(?:switchpoint|process)_\w+", expression):
                if name not in exposed | RARE:
                    empty.append(f"{path.name}: {title}: the gateway has no {name}")
            found = prometheus.series(expression)
            # A team or route may be nobody's, but not all of them.
            if not found or any(all(label not in one for one in found) for label in legend):
                empty.append(f"{path.name}: {title}: no data for {expression}")
        panels = sum(panel["type"] != "row" for panel in board["panels"])
        print(f"{path.name}: {panels} panels, {len(asked)} queries")
    if empty:
        fail("\n" + "\n".join(empty))


def check_rules(prometheus):
    page = (ROOT / "docs/monitoring.md").read_text()
    tested = (BOARDS / "rules_test.yml").read_text()
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        name = rule["name"]
        if rule["health"] != "ok":
            fail(f"{name}: {rule.get('lastError', 'was never evaluated')}")
        if rule["type"] == "recording":
            if not prometheus.series(name):
                fail(f"{name}: no data")
            continue
        said, severity = rule["annotations"], rule["labels"].get("severity")
        if not {"summary", "description"} <= said.keys() or severity not in ("page", "ticket"):
            fail(f"{name}: needs a summary, a description and a severity of page or ticket")
        if said.get("runbook") != f"docs/monitoring.md#{name.lower()}" or f"### {name}\n" not in page:
            fail(f"{name}: needs a runbook in docs/monitoring.md")
        cases = re.findall(rf"alertname: {name}\n +exp_alerts:( \[\])?\n", tested)
        if set(cases) != {"", " []"}:
            fail(f"{name}: dashboards/rules_test.yml must show when it fires and when it does not")
    active = {rule["name"] for rule in rules if rule.get("alerts")}
    print(f"rules.yml: {len(rules)} rules, of which fire or wait: {', '.join(sorted(active))}")
    return active


def check_files():
    run("promtool", "check", "rules", BOARDS / "rules.yml")
    run("promtool", "check", "config", BOARDS / "prometheus.yml")
    run("promtool", "test", "rules", BOARDS / "rules_test.yml")


def check_running(stack, folder, binary):
    gateway, admin, redis = start_gateway(stack, folder, binary)
    prometheus = Prometheus(stack, folder, admin)
    drive(gateway, admin, redis, folder)
    _, metrics = ask(admin, "/metrics")
    run("promtool", "check", "metrics", input=metrics)
    end = f"timestamp(switchpoint_in_flight) > {time.time()}"
    until("Prometheus has seen the end", lambda: prometheus.series(end))
    refused = 'ALERTS{alertname="SwitchpointConfigRefused", alertstate="firing"}'
    until("the alert of a refused config fires", lambda: prometheus.series(refused))
    check_boards(prometheus, set(re.findall(r"^(\w+)", metrics, re.MULTILINE)))
    whole = {"start": time.time() - 600, "end": time.time()}
    if not prometheus.get("query_exemplars", query="switchpoint_request_seconds_bucket", **whole):
        fail("no call is shown as an example of its time, so none leads to its trace")
    active = check_rules(prometheus)
    for name, should in EXPECTED.items():
        if (name in active) != should:
            fail(f"{name}: {'neither waits nor fires' if should else 'waits or fires'}")


# Which alerts wait or fire after those calls, of those that do not depend on their pace.
EXPECTED = {
    "SwitchpointBudgetAlmostGone": True,
    "SwitchpointConfigRefused": True,
    "SwitchpointDrillFailed": True,
    "SwitchpointModelUnpriced": True,
    "SwitchpointBudgetGone": False,
    "SwitchpointDown": False,
    "SwitchpointRestarts": False,
    "SwitchpointSharedStoreAway": False,
    "SwitchpointStoreAway": False,
    "SwitchpointTurnsCallsAway": False,
}


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = sys.argv[1] if len(sys.argv) > 1 else target / "release/switchpoint"
    needed = ("prometheus", "promtool", "redis-server")
    if missing := [program for program in needed if not shutil.which(program)]:
        install = "on Debian: apt-get install prometheus redis-server"
        fail(f"not installed: {', '.join(missing)} ({install})")
    check_files()
    with contextlib.ExitStack() as stack:
        check_running(stack, pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())), binary)


if __name__ == "__main__":
    main()
