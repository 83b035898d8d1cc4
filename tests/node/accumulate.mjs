// Feeds streams of chat.completion.chunk events to openai-node's own accumulator: node accumulate.mjs FILE...
// A file holds one JSON object, {"events": [chunk, ...]}; the final completion of each is printed as a line of JSON.
import { readFileSync } from "node:fs";
import { ChatCompletionStream } from "openai/lib/ChatCompletionStream";

const [...files] = process.argv.slice(2);
for (const file of files) {
  const { events } = JSON.parse(readFileSync(file, "utf8"));
  const lines = events.map((event) => JSON.stringify(event) + "\n").join("");
  const body = new ReadableStream({
    start(controller) {
      controller.enqueue(new TextEncoder().encode(lines));
      controller.close();
    },
  });
  try {
    const final = await ChatCompletionStream.fromReadableStream(body).finalChatCompletion();
    console.log(JSON.stringify({ file, final }));
  } catch (error) {
    console.log(JSON.stringify({ file, error: String(error) }));
  }
}
