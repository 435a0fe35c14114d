// The official OpenAI SDK for Node, chat completions.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { WEATHER, run } from "./scenarios.mjs";

const tool = { type: "function", function: { name: "weather", description: "The weather.", parameters: WEATHER } };

function read(completion) {
  const [{ message, finish_reason: finish }] = completion.choices;
  const { usage } = completion;
  const calls = (message.tool_calls ?? []).map((call) => ({
    id: call.id,
    name: call.function.name,
    input: JSON.parse(call.function.arguments),
  }));
  return {
    text: message.content ?? "",
    calls,
    thought: message.reasoning_content ?? message.reasoning ?? "",
    usage: {
      input: usage.prompt_tokens,
      cached: usage.prompt_tokens_details.cached_tokens,
      output: usage.completion_tokens,
      reasoning: usage.completion_tokens_details.reasoning_tokens,
    },
    finish: finish === "tool_calls" ? "tools" : finish,
    history: [JSON.parse(JSON.stringify(message, (name, value) => (value === null ? undefined : value)))],
  };
}

/** Adds what came to what there is: texts grow, lists by index, the rest is replaced. */
function add(known, delta) {
  for (const [name, value] of Object.entries(delta)) {
    if (value === null || value === undefined) continue;
    if (Array.isArray(value)) {
      assert.notEqual(name, "content", "the content is no text");
      known[name] ??= [];
      for (const [at, { index = at, ...part }] of value.entries()) add((known[name][index] ??= {}), part);
    } else if (typeof value === "object") {
      add((known[name] ??= {}), value);
    } else if (typeof value === "string" && !["id", "type", "role", "format"].includes(name)) {
      known[name] = (known[name] ?? "") + value;
    } else {
      known[name] = value;
    }
  }
}

/** The SDK's own helper keeps only the last piece of fields that it does not know. */
async function gather(stream) {
  const choice = { message: {} };
  let usage;
  for await (const chunk of stream) {
    usage = chunk.usage ?? usage;
    const [{ delta = {}, finish_reason: finish } = {}] = chunk.choices;
    add(choice.message, delta);
    choice.finish_reason = finish ?? choice.finish_reason;
  }
  return { choices: [choice], usage };
}

const connect = (column) => {
  const client = new OpenAI({ baseURL: `${column.url}/v1`, apiKey: column.key, maxRetries: 0, timeout: 20_000 });
  return {
    user: (text, image) => {
      const url = `data:image/png;base64,${image}`;
      const parts = [{ type: "text", text }, { type: "image_url", image_url: { url } }];
      return [{ role: "user", content: image ? parts : text }];
    },
    results: (results) => results.map(([call, content]) => ({ role: "tool", tool_call_id: call.id, content })),
    async ask({ model, history, stream, system, tools, schema, thinks }) {
      const options = {
        model,
        messages: [...(system ? [{ role: "system", content: system }] : []), ...history],
        ...(tools && { tools: [tool] }),
        ...(thinks && { reasoning_effort: "medium" }),
        ...(schema && { response_format: { type: "json_schema", json_schema: { name: "City", strict: true, schema } } }),
      };
      if (!stream) return read(await client.chat.completions.create(options));
      const usage = { stream_options: { include_usage: true } };
      return read(await gather(await client.chat.completions.create({ ...options, ...usage, stream })));
    },
  };
};

await run("openai-node chat", connect);
