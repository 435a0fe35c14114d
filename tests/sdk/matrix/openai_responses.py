"""The official OpenAI SDK for Python, responses."""

import json

import scenarios
from openai import OpenAI
from scenarios import Answer, Call, Usage, check

TOOL = {
    "type": "function",
    "name": "weather",
    "description": "The weather.",
    "parameters": scenarios.WEATHER,
    "strict": True,
}


class Surface:
    shows_thoughts = True

    def __init__(self, column):
        self.client = OpenAI(base_url=column["url"] + "/v1", api_key=column["key"], max_retries=0, timeout=20)

    def user(self, text, image=None):
        content = text
        if image:
            url = f"data:image/png;base64,{image}"
            content = [
                {"type": "input_text", "text": text},
                {"type": "input_image", "image_url": url, "detail": "auto"},
            ]
        return [{"role": "user", "content": content}]

    def results(self, results):
        return [{"type": "function_call_output", "call_id": call.id, "output": said} for call, said in results]

    def ask(self, question):
        options = {
            "model": question.model,
            "input": list(question.history),
            "store": False,
            "include": ["reasoning.encrypted_content"],
        }
        if question.system:
            options["instructions"] = question.system
        if question.tools:
            options["tools"] = [TOOL]
        if question.thinks:
            options["reasoning"] = {"effort": "medium", "summary": "auto"}
        if question.schema:
            form = {"type": "json_schema", "name": "City", "strict": True, "schema": question.schema}
            options["text"] = {"format": form}
        if question.stream:
            response = self.stream(options)
        else:
            response = self.client.responses.create(**options)
        return self.read(response)

    def stream(self, options):
        said, response, numbers = "", None, []
        for event in self.client.responses.create(**options, stream=True):
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                said += event.delta
            elif event.type == "response.completed":
                response = event.response
        check(response, "the stream did not complete")
        check(numbers == list(range(len(numbers))), f"events are numbered {numbers}")
        check(said == response.output_text, f"{said!r} was streamed, {response.output_text!r} completed")
        return response

    def read(self, response):
        usage = response.usage
        calls = [
            Call(item.call_id, item.name, json.loads(item.arguments))
            for item in response.output
            if item.type == "function_call"
        ]
        thoughts = [item for item in response.output if item.type == "reasoning"]
        return Answer(
            text=response.output_text,
            calls=calls,
            thought="".join(part.text for item in thoughts for part in item.summary or item.content or []),
            usage=Usage(
                input=usage.input_tokens,
                cached=usage.input_tokens_details.cached_tokens,
                output=usage.output_tokens,
                reasoning=usage.output_tokens_details.reasoning_tokens,
            ),
            finish="tools" if calls else {"completed": "stop"}.get(response.status, response.status),
            history=list(response.output),
        )


scenarios.run("openai-python responses", Surface)
