// The official OpenAI SDK for Node, responses.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { WEATHER, run } from "./scenarios.mjs";

const tool = { type: "function", name: "weather", description: "The weather.", parameters: WEATHER, strict: true };

function read(response) {
  const of = (type) => response.output.filter((item) => item.type === type);
  const calls = of("function_call").map((call) => ({
    id: call.call_id,
    name: call.name,
    input: JSON.parse(call.arguments),
  }));
  const said = of("message").flatMap((item) => item.content.map((part) => part.text));
  const { usage } = response;
  return {
    text: said.join(""),
    calls,
    thought: of("reasoning").flatMap((item) => item.summary.map((part) => part.text)).join(""),
    usage: {
      input: usage.input_tokens,
      cached: usage.input_tokens_details.cached_tokens,
      output: usage.output_tokens,
      reasoning: usage.output_tokens_details.reasoning_tokens,
    },
    finish: calls.length ? "tools" : response.status.replace("completed", "stop"),
    history: response.output,
  };
}

async function gather(stream) {
  let said = "";
  let response;
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") said += event.delta;
    if (event.type === "response.completed") response = event.response;
  }
  assert.ok(response, "the stream did not complete");
  assert.equal(said, read(response).text, "other text was streamed than completed");
  return response;
}

const connect = (column) => {
  const client = new OpenAI({ baseURL: `${column.url}/v1`, apiKey: column.key, maxRetries: 0, timeout: 20_000 });
  return {
    user: (text, image) => {
      const picture = { type: "input_image", image_url: `data:image/png;base64,${image}`, detail: "auto" };
      return [{ role: "user", content: image ? [{ type: "input_text", text }, picture] : text }];
    },
    results: (results) => results.map(([call, output]) => ({ type: "function_call_output", call_id: call.id, output })),
    async ask({ model, history, stream, system, tools, schema, thinks }) {
      const options = {
        model,
        input: history,
        store: false,
        include: ["reasoning.encrypted_content"],
        ...(system && { instructions: system }),
        ...(tools && { tools: [tool] }),
        ...(thinks && { reasoning: { effort: "medium", summary: "auto" } }),
        ...(schema && { text: { format: { type: "json_schema", name: "City", strict: true, schema } } }),
      };
      if (stream) return read(await gather(await client.responses.create({ ...options, stream })));
      return read(await client.responses.create(options));
    },
  };
};

await run("openai-node responses", connect);
