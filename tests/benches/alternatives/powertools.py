"""Powertools for AWS Lambda (Python) as its documentation recommends it for SQS: the batch utility, which works on the records of a
batch in turn and reports those that failed, with the idempotency utility around the send to a contact. The utility takes no async
functions: more sends at once are more environments of the function.

https://docs.aws.amazon.com/powertools/python/latest/utilities/idempotency/
https://docs.aws.amazon.com/powertools/python/latest/utilities/batch/
"""

import os

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent_function
from botocore.config import Config
from urllib3 import PoolManager, Timeout

from runtime import Context, serve

DAY_SECONDS = 24 * 60 * 60

# Made once for all invocations of the process, which keeps its connections open.
messenger = PoolManager(timeout=Timeout(total=10), retries=False)
persistence = DynamoDBPersistenceLayer(
    table_name=os.environ["IDEMPOTENCY_TABLE"],
    boto_config=Config(tcp_keepalive=True),
)
config = IdempotencyConfig(
    event_key_jmespath="[broadcast_id, contact_id]",
    raise_on_no_idempotency_key=True,
    expires_after_seconds=DAY_SECONDS,
)
processor = BatchProcessor(event_type=EventType.SQS)


@idempotent_function(data_keyword_argument="message", config=config, persistence_store=persistence)
def send_once(message: dict) -> str:
    """Sends a message; returns its id."""
    answer = messenger.request(
        "POST",
        f"{os.environ['GRAPH_API_URL']}/{message['page_id']}/messages",
        headers={"authorization": f"Bearer {os.environ['PAGE_TOKEN']}"},
        json={
            "recipient": {"id": message["contact_id"]},
            "messaging_type": "RESPONSE",
            "message": {"text": message["text"]},
        },
    )
    if answer.status != 200:
        raise RuntimeError(f"Messenger answered {answer.status}: {answer.data.decode()}")
    return answer.json()["message_id"]


def send_record(record: SQSRecord) -> str:
    return send_once(message=record.json_body)


def handler(event: dict, context: Context) -> dict:
    # With the context, a record of a process that died is free again when its invocation would have timed out.
    config.register_lambda_context(context)
    return process_partial_response(event=event, record_handler=send_record, processor=processor, context=context)


serve(handler)
