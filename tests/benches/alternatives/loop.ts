// A route that sends in a loop: the ids as they are in the request, one request to Messenger each, no memory. A contact that cannot
// be sent to does not hold up the others; the caller is told how many there are.

import { send } from "./messenger.ts";
import { serve } from "./runtime.ts";

interface Request {
  broadcast_id: string;
  page_id: string;
  contact_ids: string[];
  text: string;
}

void serve(async ({ contact_ids, ...request }: Request) => {
  let failed = 0;
  for (const contact_id of contact_ids) {
    try {
      await send({ ...request, contact_id });
    } catch {
      failed += 1;
    }
  }
  return { failed };
});
