// Powertools for AWS Lambda (TypeScript) as its documentation recommends it for SQS: the batch utility, which works on all records
// of a batch at once and reports those that failed, with the idempotency utility around the send to a contact.
// https://docs.aws.amazon.com/powertools/typescript/latest/features/idempotency/
// https://docs.aws.amazon.com/powertools/typescript/latest/features/batch/

import { BatchProcessor, EventType, processPartialResponse } from "@aws-lambda-powertools/batch";
import { IdempotencyConfig, makeIdempotent } from "@aws-lambda-powertools/idempotency";
import { DynamoDBPersistenceLayer } from "@aws-lambda-powertools/idempotency/dynamodb";
import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { Context, SQSEvent, SQSRecord } from "aws-lambda";
import { send } from "./messenger.ts";
import type { Message } from "./messenger.ts";
import { serve } from "./runtime.ts";

const DAY_SECONDS = 24 * 60 * 60;

// Made once for all invocations of the process. The client keeps its connections open.
const persistenceStore = new DynamoDBPersistenceLayer({
  tableName: process.env.IDEMPOTENCY_TABLE ?? "",
  awsSdkV3Client: new DynamoDBClient({}),
});
const config = new IdempotencyConfig({
  eventKeyJmesPath: "[broadcast_id, contact_id]",
  throwOnNoIdempotencyKey: true,
  expiresAfterSeconds: DAY_SECONDS,
});
const processor = new BatchProcessor(EventType.SQS);
const sendOnce = makeIdempotent(send, { persistenceStore, config });

async function sendRecord(record: SQSRecord): Promise<string> {
  return sendOnce(JSON.parse(record.body) as Message);
}

void serve(async (event: SQSEvent, context: Context) => {
  // With the context, a record of a process that died is free again when its invocation would have timed out.
  config.registerLambdaContext(context);
  return processPartialResponse(event, sendRecord, processor, { context });
});
