// Drives a running gateway with the official Node SDK, unmodified.
// Prints one line per promise and stops at the first that is broken. See run.sh for what it needs.

import assert from "node:assert/strict";
import OpenAI from "openai";

const { SWITCHPOINT_URL, SWITCHPOINT_KEY, SWITCHPOINT_LIMITED_KEY, UPSTREAM_CONTROL } = process.env;

const connect = (apiKey) => new OpenAI({ baseURL: SWITCHPOINT_URL, apiKey, maxRetries: 0, timeout: 20_000 });
const client = connect(SWITCHPOINT_KEY);

// The provider built into the gateway.
const demo = "demo/demo";

const messages = [{ role: "user", content: "What is the weather in Paris and in Rome?" }];
const city = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { type: "function", function: { name: "weather", parameters: city } };

// A provider that refuses the gateway's key is the gateway's trouble, not the caller's.
const statusErrors = {
  "err-400": [OpenAI.BadRequestError],
  "err-401": [OpenAI.InternalServerError],
  "err-403": [OpenAI.InternalServerError, OpenAI.PermissionDeniedError],
  "err-404": [OpenAI.NotFoundError],
  "err-422": [OpenAI.UnprocessableEntityError],
  "err-429": [OpenAI.RateLimitError],
  "err-500": [OpenAI.InternalServerError],
};

const ask = (model, options = {}) => client.chat.completions.create({ model, messages, ...options });

async function read(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join("");

/** The error a call ends in, which must be of an expected class. */
async function raised(expected, call) {
  const names = expected.map((kind) => kind.name).join(" or ");
  let error;
  try {
    await call();
  } catch (caught) {
    error = caught;
  }
  assert.ok(error, `expected ${names}, got an answer`);
  assert.ok(expected.some((kind) => error instanceof kind), `expected ${names}, got ${error.constructor.name}: ${error.message}`);
  return error;
}

/** The scripted upstream calls twice; the built-in provider once or more. */
function checkCalls(model, calls) {
  assert.ok(calls.length === 2 || (calls.length && model === demo), `${calls.length} tool calls came`);
  assert.equal(new Set(calls.map((call) => call.id)).size, calls.length, "ids are not distinct");
  for (const call of calls) {
    assert.equal(call.function.name, "weather");
    assert.ok("city" in JSON.parse(call.function.arguments), `arguments are ${call.function.arguments}`);
  }
}

async function chat(model) {
  const answer = await ask(model);
  assert.ok(answer.choices[0].message.content, "the content is empty");
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
}

async function stream(model) {
  const chunks = await read(await ask(model, { stream: true }));
  assert.ok(chunks.length > 1, `only ${chunks.length} chunk(s) came`);
  assert.ok(textOf(chunks), "the content is empty");
  assert.equal(chunks.filter((chunk) => chunk.usage).length, 0, "usage came without being asked for");
}

async function streamWithUsage(model) {
  const chunks = await read(await ask(model, { stream: true, stream_options: { include_usage: true } }));
  assert.equal(chunks.filter((chunk) => chunk.usage).length, 1, "not exactly one chunk carries usage");
  assert.ok(chunks.at(-1).usage.total_tokens > 0, "usage is not in the last chunk");
}

async function tools(model) {
  const answer = await ask(model, { tools: [weather], parallel_tool_calls: true });
  checkCalls(model, answer.choices[0].message.tool_calls ?? []);
}

async function toolsStreamed(model) {
  const runner = client.chat.completions.stream({ model, messages, tools: [weather] });
  const answer = await runner.finalChatCompletion();
  assert.equal(answer.choices[0].finish_reason, "tool_calls");
  checkCalls(model, answer.choices[0].message.tool_calls ?? []);
}

async function jsonSchema(model) {
  const properties = { name: { type: "string" }, population: { type: "integer" } };
  const schema = { type: "object", properties, required: ["name", "population"], additionalProperties: false };
  const format = { type: "json_schema", json_schema: { name: "City", strict: true, schema } };
  const answer = await ask(model, { response_format: format });
  const parsed = JSON.parse(answer.choices[0].message.content);
  assert.equal(typeof parsed.name, "string");
  assert.ok(Number.isInteger(parsed.population), `population is ${parsed.population}`);
}

/** The SDK asks for base64 unless told otherwise, and decodes it by itself. */
async function embeddings(model) {
  const input = ["one", "two"];
  const decoded = await client.embeddings.create({ model, input });
  const floats = await client.embeddings.create({ model, input, encoding_format: "float" });
  assert.equal(decoded.data.length, 2);
  assert.equal(decoded.data[0].embedding.length, floats.data[0].embedding.length);
  decoded.data[0].embedding.forEach((value, at) => {
    assert.ok(Math.abs(value - floats.data[0].embedding[at]) < 1e-5, "base64 and float disagree");
  });
}

async function models(model) {
  const ids = (await read(await client.models.list())).map((item) => item.id);
  assert.ok(ids.includes(model), `${model} is not in ${ids}`);
  assert.equal((await client.models.retrieve(model)).id, model);
}

async function completions(model) {
  const prompt = "Once upon a time";
  const answer = await client.completions.create({ model, prompt });
  assert.ok(answer.choices[0].text, "the text is empty");
  const chunks = await read(await client.completions.create({ model, prompt, stream: true }));
  assert.ok(chunks.map((chunk) => chunk.choices[0]?.text ?? "").join(""), "the streamed text is empty");
}

async function upstreamErrors() {
  for (const [model, expected] of Object.entries(statusErrors)) {
    const error = await raised(expected, () => ask(model));
    assert.ok(error.code, `${model}: the error has no code`);
    assert.ok(error.requestID, `${model}: the error has no x-request-id`);
  }
}

async function refusals() {
  const missing = await raised([OpenAI.NotFoundError], () => ask("no-such-model"));
  assert.equal(missing.code, "model_not_found");
  const wrong = await raised([OpenAI.AuthenticationError], () => connect("sk-nobody").models.list());
  assert.equal(wrong.code, "invalid_key");
  const limited = connect(SWITCHPOINT_LIMITED_KEY);
  const call = () => limited.chat.completions.create({ model: "not-allowed", messages });
  assert.equal((await raised([OpenAI.PermissionDeniedError], call)).code, "not_allowed");
}

async function cutStream(model) {
  const error = await raised([OpenAI.APIError], async () => read(await ask(model, { stream: true })));
  assert.equal(error.code, "stream_truncated");
}

const openUpstream = async () => (await (await fetch(new URL("/control/open", UPSTREAM_CONTROL))).json()).open;

/** Within a second; asking again at once is the whole wait. */
async function waitForUpstream(expected) {
  const deadline = performance.now() + 1000;
  for (let count; (count = await openUpstream()) !== expected; ) {
    assert.ok(performance.now() < deadline, `upstream still has ${count} open streams, not ${expected}`);
  }
}

async function cancel(model) {
  await waitForUpstream(0);
  const chunks = await ask(model, { stream: true });
  for await (const chunk of chunks) {
    if (!textOf([chunk])) continue;
    assert.equal(await openUpstream(), 1, "the stream is not open upstream");
    chunks.controller.abort();
  }
  await waitForUpstream(0);
}

const promises = [
  ["a chat answers", chat, ["chat", demo]],
  ["a chat streams, without usage unasked", stream, ["chat", demo]],
  ["a stream ends with one usage chunk when asked", streamWithUsage, ["chat", demo]],
  ["parallel tool calls arrive whole", tools, ["tools", demo]],
  ["parallel tool calls stream", toolsStreamed, ["tools", demo]],
  ["an answer follows its JSON schema", jsonSchema, ["json", demo]],
  ["embeddings come as base64 and as floats", embeddings, ["embed", demo]],
  ["models are listed and retrieved", models, ["chat"]],
  ["legacy completions answer and stream", completions, ["completions"]],
  ["upstream errors are the SDK's own classes", upstreamErrors, [""]],
  ["refusals are the SDK's own classes", refusals, [""]],
  ["a cut stream ends in an APIError", cutStream, ["cut"]],
  ["aborting a stream frees the upstream within a second", cancel, ["slow"]],
];

for (const [promise, keep, subjects] of promises) {
  for (const model of subjects) {
    const line = `node: ${promise}${model && ` (${model})`}`;
    try {
      await keep(model);
    } catch (error) {
      console.error(`FAILED  ${line}\n        ${error.constructor.name}: ${error.message}`);
      process.exit(1);
    }
    console.log(`ok      ${line}`);
  }
}
