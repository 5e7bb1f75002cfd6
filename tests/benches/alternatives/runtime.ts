// The loop of Lambda's runtime: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html

import type { Context } from "aws-lambda";

/** Answers one invocation after the other with what the handler returns. */
export async function serve<Event>(handler: (event: Event, context: Context) => Promise<unknown>): Promise<void> {
  const invocation = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation`;
  for (;;) {
    const next = await fetch(`${invocation}/next`);
    if (!next.ok) {
      return;
    }
    const id = next.headers.get("lambda-runtime-aws-request-id");
    const deadline = Number(next.headers.get("lambda-runtime-deadline-ms"));
    const context = {
      functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
      awsRequestId: id,
      getRemainingTimeInMillis: () => deadline - Date.now(),
    } as Context;
    try {
      const answer = await handler((await next.json()) as Event, context);
      await post(`${invocation}/${id}/response`, answer);
    } catch (error) {
      await post(`${invocation}/${id}/error`, { errorMessage: String(error) });
    }
  }
}

async function post(url: string, body: unknown): Promise<void> {
  const answer = await fetch(url, { method: "POST", body: JSON.stringify(body ?? null) });
  await answer.arrayBuffer();
}
