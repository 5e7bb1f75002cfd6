//! Request keys: which broadcast a request was answered with, so that its repetition makes no other.

use std::time::Duration;

use aws_sdk_dynamodb::types::{Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::{
    Error, Item, SCHEMA, Store, at, expiry, from_item, incomplete, patiently, to_item, unsettled,
    value,
};
use crate::ids::BroadcastId;

/// DynamoDB must not delete a key that a request received in time may still ask for.
const OUTLIVES_ITS_VALIDITY: Duration = Duration::from_secs(86_400);

/// What a request is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// A digest of the caller's `Idempotency-Key`, or of the body.
    pub digest: String,
    /// A digest of the normalised body.
    pub fingerprint: String,
    /// How long a repetition is recognised.
    pub valid_for: Duration,
}

/// A request that was answered before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The broadcast that it was answered with.
    pub broadcast_id: BroadcastId,
    /// A digest of its normalised body.
    pub fingerprint: String,
    #[serde(with = "millisecond::required")]
    valid_until: Timestamp,
}

#[derive(Serialize)]
struct Stored {
    pk: String,
    sk: &'static str,
    schema: u32,
    expires_at: i64,
    #[serde(flatten)]
    answered: Answered,
}

impl Stored {
    fn new(key: &RequestKey, broadcast_id: &BroadcastId, received: Timestamp) -> Self {
        Self {
            pk: partition(key),
            sk: "request",
            schema: SCHEMA,
            expires_at: expiry(received, key.valid_for + OUTLIVES_ITS_VALIDITY),
            answered: Answered {
                broadcast_id: broadcast_id.clone(),
                fingerprint: key.fingerprint.clone(),
                valid_until: received + key.valid_for,
            },
        }
    }
}

fn partition(key: &RequestKey) -> String {
    format!("request#{}", key.digest)
}

impl Store {
    /// The request that took this key, if it was still valid when the new one was received.
    pub async fn answered(
        &self,
        key: &RequestKey,
        received: Timestamp,
    ) -> Result<Option<Answered>, Error> {
        const OPERATION: &str = "read a request key";
        let call = self
            .client
            .get_item()
            .table_name(&self.broadcasts)
            .key("pk", value(partition(key))?)
            .key("sk", value("request")?)
            .consistent_read(true);
        let found = patiently(|| call.clone().send())
            .await
            .map_err(unsettled(OPERATION))?;
        let answered: Option<Answered> = found
            .item
            .map(|item| from_item(OPERATION, item))
            .transpose()?;
        Ok(answered.filter(|answered| answered.valid_until > received))
    }

    /// The part of a commit that takes the key: allowed if nobody has it, or had it only until before the request was
    /// *received*; a request that waits at the door while a key expires is a repetition all the same.
    pub(super) fn put_request(
        &self,
        key: &RequestKey,
        broadcast_id: &BroadcastId,
        received: Timestamp,
    ) -> Result<TransactWriteItem, Error> {
        const IF_FREE: &str = "attribute_not_exists(pk) OR valid_until <= :received";
        let stored = Stored::new(key, broadcast_id, received);
        let item = to_item("write a request key", stored)?;
        let put = Put::builder()
            .table_name(&self.broadcasts)
            .set_item(Some(item))
            .condition_expression(IF_FREE)
            .expression_attribute_values(":received", at(received)?)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let put = put.build().map_err(incomplete("write a request key"))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// The request that stands where a commit was refused.
    pub(super) fn answered_from(item: Item) -> Result<Answered, Error> {
        from_item("commit a broadcast", item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deleted at the end of its validity, it would not be found by a request that was received before.
    #[test]
    fn a_key_outlives_its_validity() {
        let key = RequestKey {
            digest: String::new(),
            fingerprint: String::new(),
            valid_for: Duration::from_secs(300),
        };

        let stored = Stored::new(&key, &BroadcastId::random(), Timestamp::UNIX_EPOCH);

        assert_eq!(stored.answered.valid_until.as_second(), 300);
        assert!(stored.expires_at > 300 + 3_600);
    }
}
