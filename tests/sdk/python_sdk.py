"""Drives a running gateway with the official Python SDK and LangChain, unmodified.

Prints one line per promise and stops at the first that is broken. See run.sh for what it needs.
"""

import asyncio
import json
import os
import sys
import time
import urllib.request

import openai
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

URL = os.environ["SWITCHPOINT_URL"]
KEY = os.environ["SWITCHPOINT_KEY"]
LIMITED_KEY = os.environ["SWITCHPOINT_LIMITED_KEY"]
CONTROL = os.environ["UPSTREAM_CONTROL"].rstrip("/")

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=20)

# The provider built into the gateway.
DEMO = "demo/demo"

QUESTION = [{"role": "user", "content": "What is the weather in Paris and in Rome?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}

# A provider that refuses the gateway's key is the gateway's trouble, not the caller's.
STATUS_ERRORS = {
    "err-400": (openai.BadRequestError,),
    "err-401": (openai.InternalServerError,),
    "err-403": (openai.InternalServerError, openai.PermissionDeniedError),
    "err-404": (openai.NotFoundError,),
    "err-422": (openai.UnprocessableEntityError,),
    "err-429": (openai.RateLimitError,),
    "err-500": (openai.InternalServerError,),
}


class City(BaseModel):
    name: str
    population: int


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def raised(expected, call):
    """The error a call ends in, which must be of an expected class."""
    names = " or ".join(kind.__name__ for kind in expected)
    try:
        call()
    except expected as error:
        return error
    except Exception as error:
        raise AssertionError(f"expected {names}, got {type(error).__name__}: {error}") from error
    raise AssertionError(f"expected {names}, got an answer")


def ask(model, **options):
    return client.chat.completions.create(model=model, messages=QUESTION, **options)


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def usage_is_whole(usage):
    total = usage.prompt_tokens + usage.completion_tokens
    check(usage.prompt_tokens > 0 and usage.completion_tokens > 0, f"usage is empty: {usage}")
    check(usage.total_tokens == total, f"usage does not add up: {usage}")


def chat(model):
    answer = ask(model)
    check(answer.object == "chat.completion", f"object is {answer.object!r}")
    check(answer.choices[0].message.role == "assistant", "the role is not assistant")
    check(answer.choices[0].message.content, "the content is empty")
    check(answer.choices[0].finish_reason == "stop", answer.choices[0].finish_reason)
    check(answer.model, "the answer does not say which model served it")
    usage_is_whole(answer.usage)


def stream(model):
    chunks = list(ask(model, stream=True))
    check(len(chunks) > 1, f"only {len(chunks)} chunk(s) came")
    check(text_of(chunks), "the content is empty")
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    check(reasons == ["stop"], f"finish reasons are {reasons}")
    check(all(chunk.object == "chat.completion.chunk" for chunk in chunks), "a chunk has another object")


def stream_without_usage(model):
    chunks = list(ask(model, stream=True))
    check(not [c for c in chunks if c.usage], "usage came without being asked for")
    check(all(chunk.choices for chunk in chunks[1:]), "an empty chunk was left where usage was cut out")


def stream_with_usage(model):
    chunks = list(ask(model, stream=True, stream_options={"include_usage": True}))
    with_usage = [chunk for chunk in chunks if chunk.usage]
    check(len(with_usage) == 1, f"{len(with_usage)} chunks carry usage")
    check(with_usage[0] is chunks[-1], "usage is not the last chunk")
    check(with_usage[0].choices == [], "the usage chunk has choices")
    usage_is_whole(with_usage[0].usage)


def check_calls(model, calls):
    """The scripted upstream calls twice; the built-in provider once or more."""
    check(len(calls) == 2 or (calls and model == DEMO), f"{len(calls)} tool calls came")
    check(len({call_id for call_id, _, _ in calls}) == len(calls), f"ids are not distinct: {calls}")
    for call_id, name, arguments in calls:
        check(call_id and name == "weather", f"a tool call lacks its id or name: {calls}")
        check("city" in json.loads(arguments), f"arguments lack the city: {arguments!r}")


def tools(model):
    answer = ask(model, tools=[WEATHER], parallel_tool_calls=True)
    check(answer.choices[0].finish_reason == "tool_calls", answer.choices[0].finish_reason)
    calls = answer.choices[0].message.tool_calls or []
    check_calls(model, [(call.id, call.function.name, call.function.arguments) for call in calls])


def tools_streamed(model):
    calls, reasons = {}, []
    for chunk in ask(model, tools=[WEATHER], parallel_tool_calls=True, stream=True):
        for choice in chunk.choices:
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for delta in choice.delta.tool_calls or []:
                call = calls.setdefault(delta.index, ["", "", ""])
                call[0] = delta.id or call[0]
                call[1] += delta.function.name or ""
                call[2] += delta.function.arguments or ""
    check(reasons == ["tool_calls"], f"finish reasons are {reasons}")
    check_calls(model, list(calls.values()))


def tools_by_the_stream_helper(model):
    with client.chat.completions.stream(model=model, messages=QUESTION, tools=[WEATHER]) as events:
        answer = events.get_final_completion()
    calls = answer.choices[0].message.tool_calls or []
    check_calls(model, [(call.id, call.function.name, call.function.arguments) for call in calls])


def tool_results_are_taken(model):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    told = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    answer = client.chat.completions.create(model=model, messages=told)
    check(answer.choices, "no choice came")


def json_schema(model):
    answer = client.chat.completions.parse(model=model, messages=QUESTION, response_format=City)
    city = answer.choices[0].message.parsed
    check(isinstance(city, City), f"the answer is not a City: {answer.choices[0].message.content!r}")


def embeddings(model):
    """The SDK asks for base64 unless told otherwise, and decodes it by itself."""
    decoded = client.embeddings.create(model=model, input=["one", "two"])
    floats = client.embeddings.create(model=model, input=["one", "two"], encoding_format="float")
    for answer in (decoded, floats):
        check([item.index for item in answer.data] == [0, 1], "the order is not that of the input")
        for item in answer.data:
            check(item.embedding and all(isinstance(x, float) for x in item.embedding), "not floats")
    check(len(decoded.data[0].embedding) == len(floats.data[0].embedding), "the lengths differ")
    near = zip(decoded.data[0].embedding, floats.data[0].embedding)
    check(all(abs(a - b) < 1e-5 for a, b in near), "base64 and float disagree")


def models(model):
    ids = [item.id for item in client.models.list()]
    check(model in ids, f"{model} is not in {ids}")
    check(client.models.retrieve(model).id == model, "the model retrieved is another")
    missing = raised((openai.NotFoundError,), lambda: client.models.retrieve("no-such-model"))
    check(missing.code == "model_not_found", f"code is {missing.code!r}")


def completions(model):
    answer = client.completions.create(model=model, prompt="Once upon a time")
    check(answer.object == "text_completion", f"object is {answer.object!r}")
    check(answer.choices[0].text, "the text is empty")
    chunks = list(client.completions.create(model=model, prompt="Once upon a time", stream=True))
    check("".join(c.choices[0].text for c in chunks if c.choices), "the streamed text is empty")


def upstream_errors(_):
    for model, expected in STATUS_ERRORS.items():
        for streamed in (False, True):
            error = raised(expected, lambda: ask(model, stream=streamed))
            check(error.body and error.body.get("message"), f"{model}: the error has no message")
            check(error.code, f"{model}: the error has no code")
            check(error.request_id, f"{model}: the error has no x-request-id")


def refusals(_):
    missing = raised((openai.NotFoundError,), lambda: ask("no-such-model"))
    check(missing.code == "model_not_found", f"code is {missing.code!r}")
    stranger = client.with_options(api_key="sk-nobody")
    wrong = raised((openai.AuthenticationError,), lambda: stranger.models.list())
    check(wrong.code == "invalid_key", f"code is {wrong.code!r}")
    limited = client.with_options(api_key=LIMITED_KEY)
    call = lambda: limited.chat.completions.create(model="not-allowed", messages=QUESTION)
    check(raised((openai.PermissionDeniedError,), call).code == "not_allowed", "the code is another")


def cut_stream(model):
    seen = []
    error = raised((openai.APIError,), lambda: seen.extend(ask(model, stream=True)))
    check(not isinstance(error, openai.APIStatusError), f"the status came late: {error!r}")
    check(error.code == "stream_truncated", f"code is {error.code!r}")


def cut_stream_gives_what_came(model):
    text = ""
    try:
        for chunk in ask(model, stream=True):
            text += text_of([chunk])
    except openai.APIError:
        pass
    check(text, "what came before the cut was lost")


def open_upstream():
    with urllib.request.urlopen(f"{CONTROL}/control/open", timeout=5) as answer:
        return json.load(answer)["open"]


def wait_for_upstream(expected):
    """Within a second; asking again at once is the whole wait."""
    deadline = time.monotonic() + 1
    while (count := open_upstream()) != expected:
        check(time.monotonic() < deadline, f"upstream still has {count} open streams, not {expected}")


def cancel(model):
    wait_for_upstream(0)
    chunks = ask(model, stream=True)
    for chunk in chunks:
        if text_of([chunk]):
            break
    check(open_upstream() == 1, "the stream is not open upstream")
    chunks.close()
    wait_for_upstream(0)


def cancel_of_a_task(model):
    async def run():
        async with AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0) as asynchronous:
            started = asyncio.Event()

            async def read():
                request = asynchronous.chat.completions
                async for chunk in await request.create(model=model, messages=QUESTION, stream=True):
                    if text_of([chunk]):
                        started.set()

            task = asyncio.create_task(read())
            await asyncio.wait_for(started.wait(), 5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.to_thread(wait_for_upstream, 0)

    asyncio.run(run())


def langchain(model):
    chain = ChatOpenAI(base_url=URL, api_key=KEY, model=model, max_retries=0, stream_usage=True)
    chunks = list(chain.stream("Hello"))
    check("".join(str(chunk.text) for chunk in chunks), "nothing was streamed")
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    check(whole.usage_metadata["total_tokens"] > 0, f"usage is {whole.usage_metadata}")


def langchain_tools(model):
    chain = ChatOpenAI(base_url=URL, api_key=KEY, model=model, max_retries=0).bind_tools([WEATHER])
    calls = chain.invoke("Weather in Paris and Rome?").tool_calls
    check_calls(model, [(call["id"], call["name"], json.dumps(call["args"])) for call in calls])


PROMISES = [
    ("a chat answers", chat, ["chat", DEMO]),
    ("a chat streams", stream, ["chat", DEMO]),
    ("a stream says nothing of usage unasked", stream_without_usage, ["chat", DEMO]),
    ("a stream ends with one usage chunk when asked", stream_with_usage, ["chat", DEMO]),
    ("parallel tool calls arrive whole", tools, ["tools", DEMO]),
    ("parallel tool calls stream", tools_streamed, ["tools", DEMO]),
    ("the stream helper gathers tool calls", tools_by_the_stream_helper, ["tools", DEMO]),
    ("tool results are taken", tool_results_are_taken, ["chat", DEMO]),
    ("an answer follows its JSON schema", json_schema, ["json", DEMO]),
    ("embeddings come as base64 and as floats", embeddings, ["embed", "vectors", DEMO]),
    ("models are listed and retrieved", models, ["chat"]),
    ("legacy completions answer and stream", completions, ["completions"]),
    ("upstream errors are the SDK's own classes", upstream_errors, [""]),
    ("refusals are the SDK's own classes", refusals, [""]),
    ("a cut stream ends in an APIError", cut_stream, ["cut"]),
    ("a cut stream first gives what came", cut_stream_gives_what_came, ["cut"]),
    ("closing a stream frees the upstream within a second", cancel, ["slow"]),
    ("cancelling a task frees the upstream within a second", cancel_of_a_task, ["slow"]),
    ("LangChain streams, with usage", langchain, ["chat", DEMO]),
    ("LangChain calls tools", langchain_tools, ["tools", DEMO]),
]


def main():
    for promise, keep, subjects in PROMISES:
        for model in subjects:
            line = f"python: {promise}" + (f" ({model})" if model else "")
            try:
                keep(model)
            except Exception as error:
                print(f"FAILED  {line}\n        {type(error).__name__}: {error}", file=sys.stderr)
                return 1
            print(f"ok      {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
