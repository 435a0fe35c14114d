"""Asks the agent `agent/support` with the official Python SDKs, unmodified: OpenAI's own, and its
Agents SDK. Needs SWITCHPOINT_URL and SWITCHPOINT_KEY.

The agent looks an order up, wants approval for giving money back, and is stuck where it is asked to be.
"""

import asyncio
import os
import time

from agents import (
    Agent,
    HostedMCPTool,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI, OpenAI

MODEL = "agent/support"
WITH = {
    "base_url": os.environ["SWITCHPOINT_URL"],
    "api_key": os.environ["SWITCHPOINT_KEY"],
    "max_retries": 0,
    "timeout": 20,
}
client = OpenAI(**WITH)


def check(condition, message):
    if not condition:
        raise SystemExit(f"broken: {message}")


def chats():
    asked = [{"role": "user", "content": "Where is my order?"}]
    answer = client.chat.completions.create(model=MODEL, messages=asked)
    choice = answer.choices[0]
    check(choice.message.content.endswith("It is in Bonn."), f"chat: {answer}")
    check((choice.finish_reason, answer.usage.total_tokens) == ("stop", 30), f"chat: {answer}")
    check(answer.model_extra["x_agent"]["status"] == "completed", f"chat: {answer}")
    said, ends = "", []
    counted = {"stream_options": {"include_usage": True}}
    for chunk in client.chat.completions.create(
        model=MODEL, messages=asked, stream=True, **counted
    ):
        for choice in chunk.choices:
            said += choice.delta.content or ""
            ends.append(choice.finish_reason)
    check(said.endswith("It is in Bonn."), f"streamed chat: {said}")
    # How a step in between ended, nobody outside is told.
    check(ends[-1] == "stop" and set(ends[:-1]) == {None}, f"streamed chat: {ends}")
    check(chunk.usage.total_tokens == 30, f"the sum of its calls: {chunk}")
    with client.chat.completions.stream(model=MODEL, messages=asked) as events:
        final = events.get_final_completion()
    check(final.choices[0].message.content == said, f"helper: {final}")


def responses():
    answer = client.responses.create(model=MODEL, input="Where is my order?")
    check(answer.output_text.endswith("It is in Bonn."), f"response: {answer}")
    calls = [item for item in answer.output if item.type == "mcp_call"]
    check([call.name for call in calls] == ["lookup"], f"calls: {answer.output}")
    used = (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens)
    check((answer.status, used) == ("completed", (22, 8, 30)), f"the sum of its calls: {answer}")
    with client.responses.stream(model=MODEL, input="Where is my order?") as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    check(kinds[0] == "response.created" and kinds[-1] == "response.completed", f"{kinds}")
    check(final.output_text.endswith("It is in Bonn."), f"streamed: {final}")
    check(final.usage.total_tokens == 30, f"the sum of its calls: {final}")
    next_turn = client.responses.create(
        model=MODEL, input="And again?", previous_response_id=answer.id
    )
    check(next_turn.output_text == "You said 2 things.", f"next turn: {next_turn.output_text}")


def approvals():
    first = client.responses.create(model=MODEL, input="My money back.")
    wanted = [item for item in first.output if item.type == "mcp_approval_request"]
    check(len(wanted) == 1 and wanted[0].name == "refund", f"approval: {first.output}")
    decision = {
        "type": "mcp_approval_response",
        "approval_request_id": wanted[0].id,
        "approve": True,
    }
    second = client.responses.create(
        model=MODEL, input=[decision], previous_response_id=first.id
    )
    check(second.output_text.endswith("It is in Bonn."), f"approved: {second}")
    first = client.responses.create(model=MODEL, input="My money back.")
    wanted = [item for item in first.output if item.type == "mcp_approval_request"]
    decision.update(approval_request_id=wanted[0].id, approve=False, reason="not today")
    third = client.responses.create(
        model=MODEL, input=[decision], previous_response_id=first.id, stream=True
    )
    kinds = [event.type for event in third]
    check(kinds[-1] == "response.completed", f"denied: {kinds}")


def settled(response):
    while response.status in ("queued", "in_progress"):
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    return response


def background():
    begun = client.responses.create(model=MODEL, input="Where is my order?", background=True)
    check(begun.status in ("queued", "in_progress"), f"begun: {begun}")
    done = settled(begun)
    check(done.status == "completed" and done.id == begun.id, f"done: {done}")
    check(done.output_text.endswith("It is in Bonn."), f"done: {done}")
    stuck = client.responses.create(model=MODEL, input="Be stuck.", background=True)
    cancelled = client.responses.cancel(stuck.id)
    check(cancelled.status == "cancelled", f"cancelled: {cancelled}")
    check(settled(stuck).status == "cancelled", "cancelled, but not for long")
    events = client.responses.create(
        model=MODEL, input="Where is my order?", background=True, stream=True
    )
    seen = [next(events), next(events)]
    events.close()
    rest = client.responses.retrieve(
        seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number
    )
    numbers = [event.sequence_number for event in rest]
    check(numbers == list(range(2, 2 + len(numbers))), f"joined: {numbers}")


@function_tool
def mine() -> str:
    """Something that only the client can do."""
    return "7"


async def agents_sdk():
    set_tracing_disabled(True)
    remote = AsyncOpenAI(**WITH)
    approved = []

    def approve(request):
        approved.append(request.data.name)
        return {"approve": True}

    hosted = HostedMCPTool(
        tool_config={
            "type": "mcp",
            "server_label": "switchpoint",
            "server_url": "https://switchpoint.example/mcp",
        },
        on_approval_request=approve,
    )
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        model = kind(model=MODEL, openai_client=remote)
        agent = Agent(name="caller", model=model)
        result = await Runner.run(agent, "Where is my order?")
        check(result.final_output.endswith("It is in Bonn."), f"{kind}: {result.final_output}")
        streamed = Runner.run_streamed(agent, "Where is my order?")
        kinds = [event.type async for event in streamed.stream_events()]
        check(streamed.final_output.endswith("It is in Bonn."), f"{kind}: {kinds}")
        caller = Agent(name="caller", model=model, tools=[mine])
        result = await Runner.run(caller, "Use mine.")
        check(result.final_output.endswith("It is in Bonn."), f"{kind}, own tool: {result}")
    agent = Agent(name="caller", model=model, tools=[hosted])
    result = await Runner.run(agent, "My money back.")
    check(approved == ["refund"], f"approvals: {approved}")
    check(result.final_output.endswith("It is in Bonn."), f"approved: {result.final_output}")


for part in (chats, responses, approvals, background):
    part()
    print(f"python runs: {part.__name__} ok")
asyncio.run(agents_sdk())
print("python runs: agents_sdk ok")
