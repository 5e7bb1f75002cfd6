// One call of Messenger's Send API.

/** A contact of a broadcast, and the message for it. */
export interface Message {
  broadcast_id: string;
  contact_id: string;
  page_id: string;
  text: string;
}

const TIMEOUT_MS = 10_000;

/** Sends a message; returns its id. Connections are kept open by `fetch`. */
export async function send(message: Message): Promise<string> {
  const answer = await fetch(`${process.env.GRAPH_API_URL}/${message.page_id}/messages`, {
    method: "POST",
    headers: { authorization: `Bearer ${process.env.PAGE_TOKEN}`, "content-type": "application/json" },
    body: JSON.stringify({
      recipient: { id: message.contact_id },
      messaging_type: "RESPONSE",
      message: { text: message.text },
    }),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!answer.ok) {
    throw new Error(`Messenger answered ${answer.status}: ${await answer.text()}`);
  }
  const { message_id } = (await answer.json()) as { message_id: string };
  return message_id;
}
