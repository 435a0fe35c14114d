"""The official Google Gen AI SDK for Python, at the gateway and in its form for Vertex AI."""

import base64

import scenarios
from google.auth.credentials import AnonymousCredentials
from google.genai import Client, types
from scenarios import Answer, Call, Usage

TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather", description="The weather.", parameters_json_schema=scenarios.WEATHER
        )
    ]
)


# Stands for the id of a call that came without one.
PLACE = "place:"


def given(call):
    return None if call.id.startswith(PLACE) else call.id


class ScriptedCredentials(AnonymousCredentials):
    """A token that needs no refreshing."""

    expired = False

    def __init__(self):
        super().__init__()
        self.token = "ya29.scripted"


class Surface:
    shows_thoughts = True

    def __init__(self, column):
        options = types.HttpOptions(base_url=column["url"], timeout=20_000)
        if column["name"] == "direct-vertex":
            place = {"vertexai": True, "project": "scripted", "location": "global"}
            self.client = Client(**place, credentials=ScriptedCredentials(), http_options=options)
        else:
            self.client = Client(api_key=column["key"], http_options=options)

    def user(self, text, image=None):
        parts = [types.Part(text=text)]
        if image:
            parts.append(types.Part.from_bytes(data=base64.b64decode(image), mime_type="image/png"))
        return [types.Content(role="user", parts=parts)]

    def results(self, results):
        parts = [
            types.Part(
                function_response=types.FunctionResponse(id=given(call), name=call.name, response={"result": said})
            )
            for call, said in results
        ]
        return [types.Content(role="user", parts=parts)]

    def ask(self, question):
        config = types.GenerateContentConfig(system_instruction=question.system)
        if question.tools:
            config.tools = [TOOL]
        if question.thinks:
            config.thinking_config = types.ThinkingConfig(include_thoughts=True, thinking_budget=2048)
        if question.schema:
            config.response_mime_type = "application/json"
            config.response_json_schema = question.schema
        options = {"model": question.model, "contents": question.history, "config": config}
        if question.stream:
            return self.read(list(self.client.models.generate_content_stream(**options)))
        return self.read([self.client.models.generate_content(**options)])

    def read(self, chunks):
        contents = [chunk.candidates[0].content for chunk in chunks if chunk.candidates]
        parts = [part for content in contents if content for part in content.parts or []]
        calls = [part.function_call for part in parts if part.function_call]
        usage = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata][-1]
        finishes = [chunk.candidates[0].finish_reason for chunk in chunks if chunk.candidates]
        finish = [finish for finish in finishes if finish][-1]
        thoughts = usage.thoughts_token_count or 0
        return Answer(
            text="".join(part.text for part in parts if part.text and not part.thought),
            calls=[Call(call.id or f"{PLACE}{at}", call.name, dict(call.args)) for at, call in enumerate(calls)],
            thought="".join(part.text for part in parts if part.text and part.thought),
            usage=Usage(
                input=usage.prompt_token_count,
                cached=usage.cached_content_token_count or 0,
                output=(usage.candidates_token_count or 0) + thoughts,
                reasoning=thoughts,
            ),
            finish="tools" if calls else {"STOP": "stop"}.get(finish.value, finish.value),
            history=[types.Content(role="model", parts=parts)],
        )


scenarios.run("genai-python generate", Surface)
