"""The official Anthropic SDK for Python, at the gateway and in its form for Vertex AI."""

import scenarios
from anthropic import Anthropic, AnthropicVertex
from scenarios import Answer, Call, Usage

TOOL = {"name": "weather", "description": "The weather.", "input_schema": scenarios.WEATHER}


class Surface:
    shows_thoughts = True

    def __init__(self, column):
        options = {"max_retries": 0, "timeout": 20}
        if column["name"] == "direct-vertex":
            place = {"region": "us-east5", "project_id": "scripted", "access_token": column["key"]}
            self.client = AnthropicVertex(base_url=column["url"] + "/v1", **place, **options)
        else:
            self.client = Anthropic(base_url=column["url"], api_key=column["key"], **options)

    def user(self, text, image=None):
        content = text
        if image:
            source = {"type": "base64", "media_type": "image/png", "data": image}
            content = [{"type": "image", "source": source}, {"type": "text", "text": text}]
        return [{"role": "user", "content": content}]

    def results(self, results):
        blocks = [{"type": "tool_result", "tool_use_id": call.id, "content": said} for call, said in results]
        return [{"role": "user", "content": blocks}]

    def ask(self, question):
        options = {"model": question.model, "max_tokens": 4096, "messages": question.history}
        if question.system:
            options["system"] = question.system
        if question.tools:
            options["tools"] = [TOOL]
        if question.thinks:
            options["thinking"] = {"type": "enabled", "budget_tokens": 2048}
        if question.schema:
            options["output_config"] = {"format": {"type": "json_schema", "schema": question.schema}}
        if question.stream:
            with self.client.messages.stream(**options) as stream:
                message = stream.get_final_message()
        else:
            message = self.client.messages.create(**options)
        return self.read(message)

    def read(self, message):
        of = lambda kind: [block for block in message.content if block.type == kind]
        usage = message.usage
        cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        return Answer(
            text="".join(block.text for block in of("text")),
            calls=[Call(block.id, block.name, block.input) for block in of("tool_use")],
            thought="".join(block.thinking for block in of("thinking")),
            usage=Usage(
                input=usage.input_tokens + cached + written,
                cached=cached,
                written=written,
                output=usage.output_tokens,
            ),
            finish={"end_turn": "stop", "tool_use": "tools"}.get(message.stop_reason, message.stop_reason),
            history=[{"role": "assistant", "content": message.content}],
        )


scenarios.run("anthropic-python messages", Surface)
