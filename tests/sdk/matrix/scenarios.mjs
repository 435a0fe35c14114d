// What every Node SDK must be able to do with every provider, one printed line per cell.
// A driver gives a surface: an object that asks in its SDK's words. See run.sh for the rest.

import assert from "node:assert/strict";

// One grey pixel.
export const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";
const PIXEL_BYTES = Buffer.from(PIXEL, "base64").length;

const closed = (properties) => ({
  type: "object",
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});
export const WEATHER = closed({ city: { type: "string", description: "Its English name." } });
const CITY = {
  ...closed({
    name: { type: "string" },
    population: { type: "integer" },
    mayor: { $ref: "#/$defs/person" },
  }),
  $defs: { person: closed({ name: { type: "string" } }) },
};

function checkUsage(usage, column, thinks = false) {
  const { written, reasoning, ...rest } = usage;
  assert.deepEqual(rest, { input: column.input, cached: 30, output: thinks ? 60 : 45 });
  if (written !== undefined) assert.equal(written, column.written, "tokens written to the cache");
  if (thinks && reasoning !== undefined) assert.equal(reasoning, column.reasoning, "reasoning tokens");
}

function checkCalls(answer) {
  const calls = answer.calls.map(({ name, input }) => [name, input]);
  assert.deepEqual(calls, [["weather", { city: "Paris" }], ["weather", { city: "Rome" }]]);
  assert.equal(new Set(answer.calls.map((call) => call.id)).size, 2, "ids of calls are not distinct");
  assert.equal(answer.finish, "tools");
}

const withResults = (surface, history, answer) => {
  const results = answer.calls.map((call, at) => [call, `${at + 1}8 C in ${call.input.city}`]);
  return [...history, ...answer.history, ...surface.results(results)];
};

function checkResults(answer) {
  assert.match(answer.text, /18 C in Paris.*28 C in Rome/);
  assert.equal(answer.finish, "stop");
}

async function text(surface, column, stream) {
  const ask = (history) => surface.ask({ model: column.model, history, stream, system: "Be brief." });
  const history = surface.user("Hello there");
  const answer = await ask(history);
  assert.equal(answer.text, "Voilà, turn 1 by the rules: Hello there. I said nothing before.");
  assert.equal(answer.finish, "stop");
  checkUsage(answer.usage, column);
  const again = await ask([...history, ...answer.history, ...surface.user("And again")]);
  assert.ok(again.text.includes("turn 2 by the rules: And again") && again.text.includes(answer.text), again.text);
}

async function tools(surface, column, stream) {
  const history = surface.user("How is the weather in Paris and in Rome?");
  const ask = (history) => surface.ask({ model: column.model, history, stream, tools: true });
  const answer = await ask(history);
  checkCalls(answer);
  checkUsage(answer.usage, column);
  checkResults(await ask(withResults(surface, history, answer)));
}

async function jsonSchema(surface, column, stream) {
  const history = surface.user("Describe a city as json.");
  const answer = await surface.ask({ model: column.model, history, stream, schema: CITY });
  const city = JSON.parse(answer.text);
  assert.ok(typeof city.name === "string" && Number.isInteger(city.population), answer.text);
  if (column.schema) assert.equal(typeof city.mayor?.name, "string", answer.text);
}

async function image(surface, column, stream) {
  const history = surface.user("What is this?", PIXEL);
  const answer = await surface.ask({ model: column.model, history, stream });
  assert.ok(answer.text.includes(`image/png of ${PIXEL_BYTES} bytes`), answer.text);
}

async function reasoning(surface, column, stream) {
  const history = surface.user("How is the weather?");
  const ask = (history) => surface.ask({ model: column.model, history, stream, tools: true, thinks: true });
  const answer = await ask(history);
  checkCalls(answer);
  checkUsage(answer.usage, column, true);
  if (column.thoughts) assert.equal(answer.thought, "Let me think of turn 1, sí.");
  // The provider refuses this unless its own state comes back unharmed.
  checkResults(await ask(withResults(surface, history, answer)));
}

/** A long conversation: begun here, continued elsewhere, ended here. */
async function replay(surface, column, stream) {
  const { model, next: other } = column;
  let history = surface.user("Hello there");
  const ask = (model, tools = false) =>
    surface.ask({ model, history, stream, system: "Be brief.", thinks: true, tools });
  const say = (answer, text, picture) => {
    history = [...history, ...answer.history, ...surface.user(text, picture)];
  };
  const useTools = async (model) => {
    history = withResults(surface, history, await ask(model, true));
    const answer = await ask(model, true);
    checkResults(answer);
    return answer;
  };
  say(await ask(model), "How is the weather?");
  say(await useTools(model), "Look", column.images ? PIXEL : undefined);
  say(await ask(model), "Go on");
  const elsewhere = await ask(other);
  assert.ok(elsewhere.text.includes("turn 4 by the rules: Go on"), elsewhere.text);
  say(elsewhere, "How is the weather now?");
  say(await useTools(other), "Thank you");
  const back = await ask(model);
  assert.ok(back.text.includes("turn 6 by the rules: Thank you"), back.text);
}

const SCENARIOS = { text, tools, json: jsonSchema, image, reasoning, replay };

/** Every cell of one SDK's surface; leaves with 1 if one failed. */
export async function run(name, connect) {
  const plan = JSON.parse(process.env.SWITCHPOINT_MATRIX);
  const wanted = process.env.SWITCHPOINT_MATRIX_ONLY ?? "";
  for (const column of plan[name]) {
    const surface = connect(column);
    for (const [scenario, keep] of Object.entries(SCENARIOS)) {
      for (const form of ["whole", "stream"]) {
        const cell = `${name} → ${column.name} ${scenario} ${form}`;
        if (!cell.includes(wanted)) continue;
        if (scenario === "image" && !column.images) {
          console.log(`n/a  ${cell}: the provider takes no images`);
          continue;
        }
        try {
          await keep(surface, column, form === "stream");
          console.log(`ok   ${cell}`);
        } catch (error) {
          process.exitCode = 1;
          const reason = `${error.constructor.name}: ${error.message}`.replace(/\s+/g, " ");
          console.log(`FAIL ${cell}: ${reason.slice(0, 600)}`);
        }
      }
    }
  }
}
