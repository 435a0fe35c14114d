// Uses an agent of the gateway as a tool, by the official SDK: `agent.mjs NODE_MODULES URL KEY`.
import assert from "node:assert";

const [modules, url, key] = process.argv.slice(2);
const sdk = (path) => import(`${modules}/@modelcontextprotocol/sdk/dist/esm/${path}`);
const { Client } = await sdk("client/index.js");
const { StreamableHTTPClientTransport } = await sdk("client/streamableHttp.js");
const { ElicitRequestSchema } = await sdk("types.js");

const info = { name: "test", version: "1" };
const client = new Client(info, { capabilities: { elicitation: { form: {} } } });
const questions = [];
client.setRequestHandler(ElicitRequestSchema, (request) => {
  questions.push(request.params.message);
  return { action: "accept", content: { answer: "the red one" } };
});
const requestInit = { headers: { authorization: `Bearer ${key}` } };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));

const { tools } = await client.listTools();
assert.deepEqual(tools.map((tool) => tool.name), ["agent_helper"]);
const steps = [];
const call = { name: "agent_helper", arguments: { input: "ask" } };
const result = await client.callTool(call, undefined, { onprogress: (it) => steps.push(it) });
assert.deepEqual(questions, ["Which one?"]);
assert.equal(result.structuredContent.status, "completed");
assert.match(result.structuredContent.run_id, /^run_/);
assert.match(result.content[0].text, /the red one/);
assert.ok(steps.length > 0, "it tells of its steps");
await client.close();
console.log("all is well");
