// Asks the agent `agent/support` with the official Node SDK, unmodified. Needs SWITCHPOINT_URL and
// SWITCHPOINT_KEY; see runs_sdk.py for what the agent does.
import OpenAI from "openai";

const model = "agent/support";
const client = new OpenAI({
  baseURL: process.env.SWITCHPOINT_URL,
  apiKey: process.env.SWITCHPOINT_KEY,
  maxRetries: 0,
  timeout: 20_000,
});

function check(condition, message) {
  if (!condition) {
    console.error("broken:", message);
    process.exit(1);
  }
}

const messages = [{ role: "user", content: "Where is my order?" }];
const whole = await client.chat.completions.create({ model, messages });
check(whole.choices[0].message.content.endsWith("It is in Bonn."), whole);
check(whole.usage.total_tokens === 30 && whole.x_agent.status === "completed", whole);
check(whole.choices[0].finish_reason === "stop", whole);
let said = "";
const ends = [];
let used;
const counted = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create({ model, messages, ...counted })) {
  said += chunk.choices[0]?.delta?.content ?? "";
  ends.push(...chunk.choices.map((choice) => choice.finish_reason ?? null));
  used = chunk.usage ?? used;
}
// How a step in between ended, nobody outside is told.
check(ends.pop() === "stop" && ends.every((end) => end === null), ends);
check(used.total_tokens === 30, used);
check(said.endsWith("It is in Bonn."), said);
console.log("node runs: chat ok");

const answer = await client.responses.create({ model, input: "Where is my order?" });
check(answer.output_text.endsWith("It is in Bonn."), answer);
check(answer.status === "completed" && answer.usage.total_tokens === 30, answer);
const stream = client.responses.stream({ model, input: "Where is my order?" });
const final = await stream.finalResponse();
check(final.output.some((item) => item.type === "mcp_call"), final.output);
check(final.usage.total_tokens === 30, final.usage);
const first = await client.responses.create({ model, input: "My money back." });
const wanted = first.output.find((item) => item.type === "mcp_approval_request");
check(wanted?.name === "refund", first.output);
const input = [{ type: "mcp_approval_response", approval_request_id: wanted.id, approve: true }];
const second = await client.responses.create({ model, input, previous_response_id: first.id });
check(second.output_text.endsWith("It is in Bonn."), second);
console.log("node runs: responses ok");

let begun = await client.responses.create({ model, input: "Where is my order?", background: true });
while (["queued", "in_progress"].includes(begun.status)) {
  begun = await client.responses.retrieve(begun.id);
}
check(begun.status === "completed", begun);
const stuck = await client.responses.create({ model, input: "Be stuck.", background: true });
check((await client.responses.cancel(stuck.id)).status === "cancelled", stuck);
console.log("node runs: background ok");
