//! Request keys: the broadcast that a request was answered with, so that its repetition makes no other.

use std::time::Duration;

use aws_sdk_dynamodb::types::TransactWriteItem;
use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::calls::Read;
use super::keys;
use super::statement::{Put, millis};
use super::tables::{Error, SCHEMA, Store, expiry, to_item};
use crate::domain::ids::BroadcastId;

/// The time by which a stored key outlives its validity: a request that was received in time may still ask for it.
const OUTLIVES_VALIDITY: Duration = Duration::from_secs(86_400);

/// The request keys of a [`Store`].
pub struct Requests<'a>(pub(super) &'a Store);

/// The identity of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// A digest of the caller with its `Idempotency-Key`, or with the body.
    pub digest: String,
    /// A digest of the normalised body.
    pub fingerprint: String,
    /// The time for which a repetition is recognised.
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
    schema: u32,
    expires_at: i64,
    #[serde(flatten)]
    answered: Answered,
}

impl Stored {
    fn new(key: &RequestKey, broadcast_id: &BroadcastId, received: Timestamp) -> Self {
        Self {
            schema: SCHEMA,
            expires_at: expiry(received, key.valid_for + OUTLIVES_VALIDITY),
            answered: Answered {
                broadcast_id: broadcast_id.clone(),
                fingerprint: key.fingerprint.clone(),
                valid_until: received + key.valid_for,
            },
        }
    }
}

impl Answered {
    /// Returns whether the request had the same body, normalised, as the one with this key.
    pub fn has_body_of(&self, key: &RequestKey) -> bool {
        self.fingerprint == key.fingerprint
    }

    fn is_valid(&self, received: Timestamp) -> bool {
        self.valid_until > received
    }
}

impl Requests<'_> {
    /// Reads the request that took this key, if it was still valid when the new one was received.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn get_if_valid(&self, key: &RequestKey, received: Timestamp) -> Result<Option<Answered>, Error> {
        let Self(store) = self;
        let answered: Option<Answered> = store
            .get(
                "read a request key",
                &store.broadcasts,
                keys::request(&key.digest),
                Read::Consistent,
            )
            .await?;
        Ok(answered.filter(|answered| answered.is_valid(received)))
    }
}

/// The part of a commit that takes the key: allowed if the key is free, or was valid only until before the request was
/// *received*. A request that is delayed while the key expires is a repetition all the same.
pub(super) fn put_if_free(
    store: &Store,
    operation: &'static str,
    key: &RequestKey,
    broadcast_id: &BroadcastId,
    received: Timestamp,
) -> Result<TransactWriteItem, Error> {
    const IF_FREE: &str = "attribute_not_exists(pk) OR valid_until <= :received";
    let mut item = to_item(operation, Stored::new(key, broadcast_id, received))?;
    item.extend(keys::request(&key.digest));
    Put::new(&store.broadcasts, item)
        .only_if(IF_FREE)
        .bind(":received", millis(received))
        .into_part(operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deleted at the end of its validity, the key would be missing for a request that was received before.
    #[test]
    fn stored_key_outlives_its_validity() {
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
