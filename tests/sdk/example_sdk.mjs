// Drives the example of examples/support with OpenAI's Node SDK, unmodified. Needs SWITCHPOINT_URL.
import OpenAI from "openai";

const model = "agent/support";
const baseURL = process.env.SWITCHPOINT_URL;
const client = (apiKey) => new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 30_000 });
const [shop, lead] = [client("sk-shop-example"), client("sk-lead-example")];

function check(condition, message) {
  if (!condition) {
    console.error("broken:", message);
    process.exit(1);
  }
}

const messages = [{ role: "user", content: "Where is ORD-100001?" }];
const whole = await shop.chat.completions.create({ model, messages });
check(whole.choices[0].message.content.includes("Bonn"), whole);
let said = "";
for await (const chunk of await shop.chat.completions.create({ model, messages, stream: true })) {
  said += chunk.choices[0]?.delta?.content ?? "";
}
check(said.includes("Bonn"), said);
console.log("node example: chat ok");

const first = await lead.responses.create({ model, input: "I want a refund for ORD-100001" });
const wanted = first.output.find((item) => item.type === "mcp_approval_request");
check(wanted?.name === "refund", first.output);
const input = [{ type: "mcp_approval_response", approval_request_id: wanted.id, approve: true }];
const second = await lead.responses.create({ model, input, previous_response_id: first.id });
check(second.output_text.includes("The refund is made"), second);
console.log("node example: approvals ok");

let begun = await shop.responses.create({ model, input: "What about returns?", background: true });
while (["queued", "in_progress"].includes(begun.status)) {
  begun = await shop.responses.retrieve(begun.id);
}
check(begun.status === "completed" && begun.output_text.length > 0, begun);
const slow = await shop.responses.create({ model, input: "Count slowly", background: true });
check((await shop.responses.cancel(slow.id)).status === "cancelled", slow);
console.log("node example: background ok");
