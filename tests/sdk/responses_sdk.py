"""Takes a response through its life with the official Python SDK, unmodified.

Needs SWITCHPOINT_URL and SWITCHPOINT_KEY, and in SWITCHPOINT_MODELS the models to ask, each of
which says `Hello there.`; of their providers' other models, `silent` never answers and `counted` only counts.
"""

import os
import time

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
        raise SystemExit(f"broken: {message}")


def gone(act):
    try:
        act()
    except openai.NotFoundError:
        return True
    return False


def whole_life(model):
    response = client.responses.create(model=model, input="Hi")
    check(response.output_text == "Hello there.", f"text: {response}")
    kept = client.responses.retrieve(response.id)
    check(kept.to_dict() == response.to_dict(), f"kept: {kept}")
    items = client.responses.input_items.list(response.id)
    check([item.content[0].text for item in items] == ["Hi"], f"items: {items}")
    following = client.responses.create(
        model=model, input="And?", previous_response_id=response.id
    )
    texts = [item.to_dict() for item in client.responses.input_items.list(following.id, order="asc", limit=1)]
    check("Hi" in str(texts[0]) and "And?" in str(texts[-1]), f"all items: {texts}")
    client.responses.delete(response.id)
    check(gone(lambda: client.responses.retrieve(response.id)), "still there")
    check(gone(lambda: client.responses.delete(response.id)), "deleted twice")


def stream(model):
    with client.responses.stream(model=model, input="Hi") as events:
        kinds = [event.type for event in events]
        response = events.get_final_response()
    check(kinds[0] == "response.created" and kinds[-1] == "response.completed", f"{kinds}")
    check(response.output_text == "Hello there.", f"streamed: {response}")
    check(client.responses.retrieve(response.id).id == response.id, "id")
    with client.responses.stream(response_id=response.id) as events:
        again = events.get_final_response()
    check(again.output_text == response.output_text, f"streamed again: {again}")
    numbers = [event.sequence_number for event in client.responses.retrieve(response.id, stream=True)]
    check(numbers == list(range(len(numbers))), f"numbers: {numbers}")
    unkept = client.responses.create(model=model, input="Hi", store=False)
    check(gone(lambda: client.responses.retrieve(unkept.id)), "kept against the client's will")


def settled(response):
    while response.status in ("queued", "in_progress"):
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    return response


def background(model, silent):
    response = client.responses.create(model=model, input="Hi", background=True)
    check(response.status == "queued", f"begun: {response}")
    done = settled(response)
    check(done.status == "completed" and done.id == response.id, f"done: {done}")
    check(done.output_text == "Hello there." and done.usage.total_tokens == 15, f"done: {done}")
    waiting = client.responses.create(model=silent, input="Hi", background=True)
    cancelled = client.responses.cancel(waiting.id)
    check(cancelled.status == "cancelled", f"cancelled: {cancelled}")
    check(client.responses.retrieve(waiting.id).status == "cancelled", "cancelled, but not for long")


def tokens(model):
    counted = client.responses.input_tokens.count(model=model, input="How many are these?")
    check(counted.input_tokens > 0, f"tokens: {counted}")


for model in os.environ["SWITCHPOINT_MODELS"].split(","):
    whole_life(model)
    stream(model)
    background(model, model.split("/")[0] + "/silent")
    tokens(model.split("/")[0] + "/counted")
    print(f"python responses: {model} ok")
