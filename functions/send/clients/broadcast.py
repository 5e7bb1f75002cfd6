"""Sends a broadcast and reads its report by the package that openapi-python-client generates from the document: API and TOKEN
are the base URL and the caller's token."""

import os
import time
import uuid

from oncecast import AuthenticatedClient
from oncecast.api.broadcasts import create_broadcast, get_broadcast, list_deliveries
from oncecast.api.contacts import import_contacts
from oncecast.models import (
    ContactChange,
    ContactImport,
    DeliveryStatus,
    JobStatus,
    NewBroadcast,
    Problem,
    TextMessage,
)

client = AuthenticatedClient(os.environ["API"], os.environ["TOKEN"], raise_on_unexpected_status=True)

contacts = [
    ContactChange(contact_id="8001", page_id="page-1", first_name="Ana", tags=["vip"]),
    ContactChange(contact_id="8002", page_id="page-2", opted_out=False),
]
assert import_contacts.sync(client=client, body=ContactImport(contacts)).upserted == 2

key = str(uuid.uuid4())
new = NewBroadcast(
    contact_ids=["8001", "8002", "8001"],
    message=TextMessage(text="Hi {{ first_name | default('there') }}."),
)
created = create_broadcast.sync(client=client, body=new, idempotency_key=key)
assert not isinstance(created, Problem), created
again = create_broadcast.sync_detailed(client=client, body=new, idempotency_key=key)
assert again.parsed.broadcast_id == created.broadcast_id
assert again.headers["Idempotent-Replayed"] == "true"

report = created
ends = time.monotonic() + 30
while report.status != JobStatus.COMPLETED and time.monotonic() < ends:
    time.sleep(0.1)
    report = get_broadcast.sync(created.broadcast_id, client=client)
assert report.status == JobStatus.COMPLETED, report
assert report.counters.sent == 2, report
assert report.contacts.duplicates_removed == 1, report
assert [job.page_id for job in report.jobs] == ["page-1", "page-2"], report

deliveries = list_deliveries.sync(created.broadcast_id, client=client, status=DeliveryStatus.SENT, limit=10)
assert [delivery.contact_id for delivery in deliveries.items] == ["8001", "8002"], deliveries

refused = create_broadcast.sync(client=client, body=NewBroadcast(contact_ids=[], message=TextMessage(text="")))
assert isinstance(refused, Problem), refused
assert [fault.field for fault in refused.errors] == ["/contact_ids", "/message/text"], refused
print(f"Python: broadcast {created.broadcast_id} sent to {report.counters.sent} contacts")
