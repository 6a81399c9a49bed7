// What one would write by hand: collects IDs, calls when there are 500 or a second has passed, acknowledges in bulk.
// usage: node batcher.mjs URL QUEUE PREFETCH COUNT ENDPOINT
import amqp from "amqplib";
import { Pool } from "undici";

const [url, queue, prefetch, count, endpoint] = process.argv.slice(2);
const { origin, pathname } = new URL(endpoint);
const pool = new Pool(origin, { connections: 4 });
const connection = await amqp.connect(url);
const channel = await connection.createChannel();
await channel.prefetch(Number(prefetch));

let batch = [];
let timer;
let settled = 0;
let settling = Promise.resolve();

function flush() {
  clearTimeout(timer);
  timer = undefined;
  const messages = batch;
  batch = [];
  const call = post(messages.flatMap(({ request }) => request.videoNos ?? [request.videoNo]));
  // In order, so that one acknowledgement covers the whole batch.
  settling = settling.then(() => call).then(() => settle(messages));
}

async function post(ids) {
  const { body } = await pool.request({
    path: pathname, method: "DELETE", body: JSON.stringify(ids),
    headers: { "content-type": "application/json", authorization: "any" },
  });
  if ((await body.json()).code !== "0000") throw new Error("not deleted");
}

async function settle(messages) {
  channel.ack(messages.at(-1).message, true);
  settled += messages.length;
  if (settled !== Number(count)) return;
  await channel.close();
  await connection.close();
  await pool.close();
}

await channel.consume(queue, (message) => {
  batch.push({ message, request: JSON.parse(message.content.toString()) });
  if (batch.length === 500) flush();
  else timer ??= setTimeout(flush, 1000);
});
