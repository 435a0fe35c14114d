// The official Anthropic SDK for TypeScript.

import Anthropic from "@anthropic-ai/sdk";
import { WEATHER, run } from "./scenarios.mjs";

const tool = { name: "weather", description: "The weather.", input_schema: WEATHER };
const FINISHES = { end_turn: "stop", tool_use: "tools" };

function read(message) {
  const of = (type) => message.content.filter((block) => block.type === type);
  const { usage } = message;
  const cached = usage.cache_read_input_tokens ?? 0;
  const written = usage.cache_creation_input_tokens ?? 0;
  return {
    text: of("text").map((block) => block.text).join(""),
    calls: of("tool_use"),
    thought: of("thinking").map((block) => block.thinking).join(""),
    usage: { input: usage.input_tokens + cached + written, cached, written, output: usage.output_tokens },
    finish: FINISHES[message.stop_reason] ?? message.stop_reason,
    history: [{ role: "assistant", content: message.content }],
  };
}

const connect = (column) => {
  const client = new Anthropic({ baseURL: column.url, apiKey: column.key, maxRetries: 0, timeout: 20_000 });
  return {
    user: (text, image) => {
      const source = { type: "base64", media_type: "image/png", data: image };
      const blocks = [{ type: "image", source }, { type: "text", text }];
      return [{ role: "user", content: image ? blocks : text }];
    },
    results: (results) => [
      {
        role: "user",
        content: results.map(([call, content]) => ({ type: "tool_result", tool_use_id: call.id, content })),
      },
    ],
    async ask({ model, history, stream, system, tools, schema, thinks }) {
      const options = {
        model,
        max_tokens: 4096,
        messages: history,
        ...(system && { system }),
        ...(tools && { tools: [tool] }),
        ...(thinks && { thinking: { type: "enabled", budget_tokens: 2048 } }),
        ...(schema && { output_config: { format: { type: "json_schema", schema } } }),
      };
      return read(stream ? await client.messages.stream(options).finalMessage() : await client.messages.create(options));
    },
  };
};

await run("anthropic-node messages", connect);
