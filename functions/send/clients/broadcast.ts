// Sends a broadcast and reads its report by the types that openapi-typescript generates from the document: API and TOKEN are
// the base URL and the caller's token.

import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";

import createClient from "openapi-fetch";

import type { paths } from "./oncecast.js";

const { API = "", TOKEN = "" } = process.env;
const client = createClient<paths>({ baseUrl: API, headers: { authorization: `Bearer ${TOKEN}` } });

const imported = await client.PUT("/v1/contacts", {
  body: {
    contacts: [
      { contact_id: "7001", page_id: "page-1", first_name: "Ana", tags: ["vip"], attributes: { city: "Porto", visits: 3 } },
      { contact_id: "7002", page_id: "page-2", opted_out: false },
    ],
  },
});
// With Accept: text/csv the faults would be a file.
assert.ok(typeof imported.data === "object", JSON.stringify(imported.error));
assert.equal(imported.data.upserted, 2);

const key = crypto.randomUUID();
const create = () =>
  client.POST("/v1/broadcasts", {
    params: { header: { "Idempotency-Key": key } },
    body: { contact_ids: ["7001", "7002", "7001"], message: { text: "Hi {{ first_name | default('there') }}." } },
  });
const created = await create();
// A dry run would be answered with a preview.
assert.ok(created.data && "broadcast_id" in created.data, JSON.stringify(created.error));
const id = created.data.broadcast_id;
const again = await create();
assert.ok(again.data && "broadcast_id" in again.data);
assert.equal(again.data.broadcast_id, id);
assert.equal(again.response.headers.get("Idempotent-Replayed"), "true");

const show = async () => {
  const { data, error } = await client.GET("/v1/broadcasts/{id}", { params: { path: { id } } });
  assert.ok(data, JSON.stringify(error));
  return data;
};
let report = await show();
for (let reads = 0; report.status !== "completed" && reads < 300; reads += 1) {
  await setTimeout(100);
  report = await show();
}
assert.equal(report.status, "completed");
assert.equal(report.counters.sent, 2);
assert.equal(report.contacts.duplicates_removed, 1);
assert.deepEqual(report.jobs.map((job) => job.page_id), ["page-1", "page-2"]);

const deliveries = await client.GET("/v1/broadcasts/{id}/deliveries", {
  params: { path: { id }, query: { status: "sent", limit: 10 } },
});
assert.ok(typeof deliveries.data === "object");
assert.deepEqual(deliveries.data.items.map((delivery) => delivery.contact_id), ["7001", "7002"]);

const refused = await client.POST("/v1/broadcasts", { body: { contact_ids: [], message: { text: "" } } });
assert.equal(refused.response.status, 400);
assert.ok(refused.error && "errors" in refused.error);
assert.deepEqual(refused.error.errors.map((fault) => fault.field), ["/contact_ids", "/message/text"]);
console.log(`TypeScript: broadcast ${id} sent to ${report.counters.sent} contacts`);
