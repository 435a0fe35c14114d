"""Drives the example of examples/support with OpenAI's Python SDK, unmodified. Needs SWITCHPOINT_URL."""

import os
import time

from openai import OpenAI

MODEL = "agent/support"


def client_of(key):
    url = os.environ["SWITCHPOINT_URL"]
    return OpenAI(base_url=url, api_key=key, max_retries=0, timeout=30)


shop, lead = client_of("sk-shop-example"), client_of("sk-lead-example")


def check(condition, message):
    if not condition:
        raise SystemExit(f"broken: {message}")


def chat():
    asked = [{"role": "user", "content": "Where is ORD-100001?"}]
    answer = shop.chat.completions.create(model=MODEL, messages=asked)
    check("Bonn" in answer.choices[0].message.content, answer)
    check(answer.choices[0].finish_reason == "stop", answer)
    said = ""
    for chunk in shop.chat.completions.create(model=MODEL, messages=asked, stream=True):
        said += "".join(choice.delta.content or "" for choice in chunk.choices)
    check("Bonn" in said, said)


def tools():
    pages = shop.responses.create(model=MODEL, input="What about returns?")
    check("30 days" in pages.output_text, pages)
    check(any(item.type == "mcp_call" for item in pages.output), pages.output)
    billing = shop.responses.create(model=MODEL, input="Add up my invoice: 42.00 and 19.90")
    check("61.9" in billing.output_text, billing)


def approvals():
    first = lead.responses.create(model=MODEL, input="I want a refund for ORD-100001")
    wanted = next(item for item in first.output if item.type == "mcp_approval_request")
    check(wanted.name == "refund" and "4200" in wanted.arguments, wanted)
    decision = {
        "type": "mcp_approval_response",
        "approval_request_id": wanted.id,
        "approve": True,
    }
    second = lead.responses.create(model=MODEL, previous_response_id=first.id, input=[decision])
    check("The refund is made" in second.output_text, second)


def background():
    begun = shop.responses.create(model=MODEL, input="Where is ORD-100002?", background=True)
    while begun.status in ("queued", "in_progress"):
        time.sleep(0.05)
        begun = shop.responses.retrieve(begun.id)
    check(begun.status == "completed" and "Graz" in begun.output_text, begun)
    slow = shop.responses.create(model=MODEL, input="Count slowly", background=True, stream=True)
    first = next(slow)
    slow.close()
    rest = shop.responses.retrieve(
        first.response.id, stream=True, starting_after=first.sequence_number
    )
    check(next(rest).sequence_number == first.sequence_number + 1, "joined where it was left")
    rest.close()
    check(shop.responses.cancel(first.response.id).status == "cancelled", "cancelled")


for part in (chat, tools, approvals, background):
    part()
    print(f"python example: {part.__name__} ok")
