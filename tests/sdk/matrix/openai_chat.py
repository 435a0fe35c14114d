"""The official OpenAI SDK for Python, chat completions."""

import json

import scenarios
from openai import OpenAI
from scenarios import Answer, Call, Usage

TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather.", "parameters": scenarios.WEATHER},
}


class Surface:
    shows_thoughts = True

    def __init__(self, column):
        self.client = OpenAI(base_url=column["url"] + "/v1", api_key=column["key"], max_retries=0, timeout=20)

    def user(self, text, image=None):
        content = text
        if image:
            url = f"data:image/png;base64,{image}"
            content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
        return [{"role": "user", "content": content}]

    def results(self, results):
        return [{"role": "tool", "tool_call_id": call.id, "content": said} for call, said in results]

    def ask(self, question):
        system = [{"role": "system", "content": question.system}] if question.system else []
        options = {"model": question.model, "messages": system + question.history}
        if question.tools:
            options["tools"] = [TOOL]
        if question.thinks:
            options["reasoning_effort"] = "medium"
        if question.schema:
            form = {"name": "City", "strict": True, "schema": question.schema}
            options["response_format"] = {"type": "json_schema", "json_schema": form}
        if question.stream:
            with self.client.chat.completions.stream(**options, stream_options={"include_usage": True}) as stream:
                completion = stream.get_final_completion()
        else:
            completion = self.client.chat.completions.create(**options)
        return self.read(completion)

    def read(self, completion):
        choice, usage = completion.choices[0], completion.usage
        message = choice.message
        calls = [
            Call(call.id, call.function.name, json.loads(call.function.arguments))
            for call in message.tool_calls or []
        ]
        content = message.content
        thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""
        return Answer(
            text=content or "",
            calls=calls,
            thought=thought,
            usage=Usage(
                input=usage.prompt_tokens,
                cached=usage.prompt_tokens_details.cached_tokens,
                output=usage.completion_tokens,
                reasoning=usage.completion_tokens_details.reasoning_tokens,
            ),
            finish={"tool_calls": "tools"}.get(choice.finish_reason, choice.finish_reason),
            history=[message.model_dump(exclude_none=True)],
        )


scenarios.run("openai-python chat", Surface)
