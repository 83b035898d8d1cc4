// The official openai-node client against a running gateway: node smoke.mjs BASE_URL MODEL...
// Prints one line per claim that does not hold; exits with 1 if there is any.
import OpenAI from "openai";

const [baseURL, ...models] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 20_000 });
const messages = [{ role: "user", content: "Hello!" }];
const failures = [];
let claims = 0;

function claim(holds, what) {
  claims += 1;
  if (!holds) failures.push(what);
}

function tool(name, key) {
  const parameters = { type: "object", properties: { [key]: { type: "string" } }, required: [key] };
  return { type: "function", function: { name, description: "Looks it up.", parameters } };
}

const tools = [tool("get_weather", "city"), tool("get_time", "zone")];
const schema = {
  type: "object",
  properties: { name: { type: "string" }, vegan: { type: "boolean" } },
  required: ["name", "vegan"],
  additionalProperties: false,
};

async function collected(model, options = {}) {
  const chunks = [];
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true, ...options })) {
    chunks.push(chunk);
  }
  return chunks;
}

const said = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join("");

async function speaks(model) {
  const whole = await client.chat.completions.create({ model, messages });
  const text = whole.choices[0].message.content;
  claim(text.includes("Hello!"), `${model}: the answer does not say hello`);
  const quiet = await collected(model);
  claim(said(quiet) === text, `${model}: the stream differs from the whole answer`);
  claim(!quiet.some((chunk) => chunk.usage && !chunk.choices.length), `${model}: a usage chunk that was not asked for`);
  const counted = await collected(model, { stream_options: { include_usage: true } });
  claim(counted.at(-1).usage?.prompt_tokens > 0, `${model}: no usage in the last chunk`);
  const helped = await client.chat.completions.stream({ model, messages }).finalChatCompletion();
  claim(helped.choices[0].message.content === text, `${model}: the helper's answer differs`);
}

function checkCalls(model, how, choice) {
  const names = (choice.message.tool_calls ?? []).map((call) => call.function.name);
  claim(choice.finish_reason === "tool_calls", `${model}: ${how} finish_reason is ${choice.finish_reason}`);
  claim(names.join() === "get_weather,get_time", `${model}: ${how} calls ${names}`);
}

async function callsTools(model) {
  const whole = (await client.chat.completions.create({ model, messages, tools })).choices[0];
  checkCalls(model, "whole", whole);
  const helped = await client.chat.completions.stream({ model, messages, tools }).finalChatCompletion();
  checkCalls(model, "stream", helped.choices[0]);
  const results = whole.message.tool_calls.map((call) => ({
    role: "tool",
    tool_call_id: call.id,
    content: `result of ${call.function.name}`,
  }));
  const second = await client.chat.completions.create({ model, messages: [...messages, whole.message, ...results], tools });
  const text = second.choices[0].message.content;
  claim(text.includes("result of get_weather; result of get_time"), `${model}: the results were not read`);
}

async function followsSchema(model) {
  const response_format = { type: "json_schema", json_schema: { name: "recipe", strict: true, schema } };
  const answer = await client.chat.completions.parse({ model, messages, response_format });
  claim(typeof answer.choices[0].message.parsed?.vegan === "boolean", `${model}: the schema was not followed`);
}

async function fails(model, kind, status, code, stream) {
  try {
    const answer = await client.chat.completions.create({ model, messages, stream });
    if (stream) for await (const chunk of answer) void chunk;
    claim(false, `${model}: no error`);
  } catch (error) {
    claim(error instanceof kind && error.constructor === kind, `${model}: ${error.constructor.name}`);
    claim(error.status === status && error.code === code, `${model}: ${error.status} ${error.code}`);
  }
}

for (const model of models) {
  await speaks(model);
  await callsTools(model);
  await followsSchema(model);
}
for (const stream of [false, true]) {
  await fails("error400", OpenAI.BadRequestError, 400, "invalid_value", stream);
  await fails("missing", OpenAI.NotFoundError, 404, "model_not_found", stream);
  await fails("nobody-knows-it", OpenAI.NotFoundError, 404, "model_not_found", stream);
  await fails("overloaded", OpenAI.RateLimitError, 429, "rate_limit_exceeded", stream);
  await fails("fail", OpenAI.InternalServerError, 500, "upstream_error", stream);
  await fails("badgateway", OpenAI.InternalServerError, 502, "upstream_error", stream);
  await fails("busy", OpenAI.InternalServerError, 503, "overloaded", stream);
}
await fails("midstream", OpenAI.APIError, undefined, "upstream_error", true);
for (const failure of failures) console.log(failure);
console.log(`${claims} claims, ${failures.length} failed`);
process.exit(failures.length || !claims ? 1 : 0);
