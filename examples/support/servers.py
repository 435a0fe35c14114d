"""What the example needs of others: a model and a shop. Python's standard library only.

The model, at /v1, speaks OpenAI's API and follows a script: what it says depends on nothing but
the conversation, so that the example is the same every time, without a network. The shop, at
/orders and /refunds, is what the agent's tools ask. A refund that is asked for again with the same
Idempotency-Key is the same refund.
"""

import json
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

ORDERS = {
    "ORD-100001": {"status": "shipped", "place": "Bonn", "cents": 4200},
    "ORD-100002": {"status": "delivered", "place": "Graz", "cents": 1990},
}
REFUNDS = {}  # by Idempotency-Key
LOCK = Lock()


# The model: a conversation becomes either a call of a tool or a text.


def script(messages, tools):
    asked = max(at for at, message in enumerate(messages) if message["role"] == "user")
    question = text_of(messages[asked])
    calls = [call for message in messages for call in message.get("tool_calls") or []]
    handed = {it["id"] for it in calls if it["function"]["name"].startswith("handoff_")}
    results = [it for it in messages[asked:] if it["role"] == "tool"]
    done = [it for it in results if it["tool_call_id"] not in handed]
    last = text_of(done[-1]) if done else None
    names = {tool["function"]["name"] for tool in tools}
    told = " ".join(text_of(it) for it in messages[: asked + 1] if it["role"] == "user")
    orders = re.findall(r"ORD-[0-9]{6}", told)
    if "calc" in names:
        return billing(question, last)
    if "refund" in question and orders:
        return refund(orders[-1], done, last)
    if "Where" in question and orders:
        look = "order_lookup", {"order_id": orders[-1]}
        return f"Here is what I know: {last}" if last else look
    if "invoice" in question:
        return "handoff_billing", {"reason": question}
    if "return" in question:
        return last or ("files__read_file", {"path": "returns.md"})
    if "day" in question:
        return f"It is {last}" if last else ("clock", {"operation": "now"})
    if "slowly" in question:
        return " ".join(str(number) for number in range(1, 21))
    return "I can look up an order, refund it, or ask billing."


def refund(order, done, last):
    if not done:
        return "order_lookup", {"order_id": order}
    if len(done) == 1:
        cents = json.loads(re.search(r"\{.*\}", last, re.DOTALL)[0])["cents"]
        return "refund", {"order_id": order, "cents": cents}
    return f"The refund is made: {last}" if "rfd_" in last else f"There is no refund: {last}"


def billing(question, last):
    if last:
        return f"Billing here. Together that is {last}"
    numbers = re.findall(r"[0-9]+(?:\.[0-9]+)?", question)
    return ("calc", {"expression": " + ".join(numbers)}) if numbers else "Billing here."


def text_of(message):
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


# Its answers, as OpenAI writes them.


def delta_of(said, turn):
    if isinstance(said, str):
        return {"role": "assistant", "content": said}, "stop"
    name, arguments = said
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"index": 0, "id": f"call_{turn}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


def pieces(said, turn):
    delta, _ = delta_of(said, turn)
    if not isinstance(said, str):
        yield delta
        return
    for word in re.findall(r"\S+\s*", said):
        yield {"role": "assistant", "content": word}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        order = ORDERS.get(self.path.removeprefix("/orders/"))
        if self.path == "/refunds":
            self.tell(200, list(REFUNDS.values()))
        elif order:
            self.tell(200, order)
        else:
            self.tell(404, {"error": "There is no such order."})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "{}")
        undone = re.fullmatch(r"/refunds/(rfd_[0-9]+)/cancel", self.path)
        if self.path == "/v1/chat/completions":
            self.complete(body)
        elif self.path == "/refunds":
            self.refund(body)
        elif undone:
            self.cancel(undone[1])
        else:
            self.tell(404, {"error": "There is nothing here."})

    def refund(self, body):
        with LOCK:
            key = self.headers.get("idempotency-key") or f"none {len(REFUNDS)}"
            new = {"id": f"rfd_{len(REFUNDS) + 1}", "state": "made", **body}
            self.tell(200, REFUNDS.setdefault(key, new))

    def cancel(self, name):
        with LOCK:
            found = next(it for it in REFUNDS.values() if it["id"] == name)
            found["state"] = "cancelled"
            self.tell(200, found)

    def complete(self, body):
        turn = len(body["messages"])
        may_call = body.get("tool_choice") != "none"
        said = script(body["messages"], body.get("tools", [])) if may_call else "That is all."
        usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
        whole = {"id": f"chatcmpl-{turn}", "created": 0, "model": body["model"], "usage": usage}
        delta, finish = delta_of(said, turn)
        if not body.get("stream"):
            choice = {"index": 0, "message": delta, "finish_reason": finish}
            self.tell(200, {**whole, "object": "chat.completion", "choices": [choice]})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        chunk = {**whole, "object": "chat.completion.chunk", "usage": None}
        for piece in pieces(said, turn):
            choice = {"index": 0, "delta": piece, "finish_reason": None}
            self.event({**chunk, "choices": [choice]})
            # What is said slowly can be cancelled, or lose its gateway.
            time.sleep(1 if "slowly" in text_of(body["messages"][-1]) else 0)
        choice = {"index": 0, "delta": {}, "finish_reason": finish}
        self.event({**chunk, "choices": [choice]})
        self.event({**chunk, "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, value):
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def tell(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *values):
        print(f"{self.command} {self.path}", flush=True)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 4100
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"A model and a shop at http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
