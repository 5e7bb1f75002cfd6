//! The switch for sending, and the identity of the tables that it was set for.
//!
//! The switch is an item, outside any deployment, and names the tables by the ids that DynamoDB gave them. A table that was
//! restored or replaced has another id. It lacks what was sent since its copy was made, so the switch then counts as off until
//! an operator has set it again.

use aws_sdk_dynamodb::Client;
use futures_util::future::try_join3;
use jiff::fmt::serde::timestamp::millisecond;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tracing::warn;

use super::calls::{Conditional, Read, unsettled, with_retries};
use super::keys::{self, PAGE_SENDING};
use super::statement::{Update, millis};
use super::tables::{Error, Item, SCHEMA, Store, TableIds, from_item};
use crate::domain::ids::PageId;
use crate::domain::sending::{PageState, SendingState, SendingSwitch};

/// The time for which a process relies on the ids of the tables. A table takes longer than that to be deleted and restored.
const KNOWN_FOR: SignedDuration = SignedDuration::from_secs(120);
/// The reason of a switch that was set for other tables.
const OTHER_TABLES: &str = "a table was restored or replaced since sending was switched on";

/// The switch for sending of a [`Store`].
pub struct Sending<'a>(pub(super) &'a Store);

/// The right to send for a Page, as a run reads it.
#[derive(Clone, Debug)]
pub struct Permission {
    /// The switch for sending.
    pub switch: SendingSwitch,
    /// The state of the Page.
    pub page: PageState,
}

/// The items that a run reads in one call.
#[derive(Deserialize)]
#[serde(tag = "sk")]
enum Found {
    #[serde(rename = "all")]
    Switch(Stored),
    #[serde(rename = "lease")]
    Page(PageState),
}

#[derive(Deserialize)]
struct Stored {
    state: SendingState,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    changed_by: Option<String>,
    #[serde(default, with = "millisecond::optional")]
    changed_at: Option<Timestamp>,
    #[serde(default)]
    tables: Option<TableIds>,
}

impl Sending<'_> {
    /// Reads the switch. It is on in new tables, and off in tables that it was not set for.
    ///
    /// # Errors
    /// If DynamoDB does not answer: then nothing must be sent.
    pub async fn read(&self, now: Timestamp) -> Result<SendingSwitch, Error> {
        const OPERATION: &str = "read the switch for sending";
        let Self(store) = self;
        let tables = self.tables(now).await?;
        let found = store
            .get(OPERATION, &store.broadcasts, keys::sending(), Read::Consistent)
            .await?;
        let stored: Stored = match found {
            Some(stored) => stored,
            None => from_item(OPERATION, Box::pin(self.create(&tables, now)).await?)?,
        };
        Ok(stored.for_tables(&tables))
    }

    /// Reads the switch together with the state of a Page.
    ///
    /// # Errors
    /// As [`Sending::read`].
    pub async fn read_for(&self, page_id: &PageId, now: Timestamp) -> Result<Permission, Error> {
        const OPERATION: &str = "read the switch for sending and the Page";
        let Self(store) = self;
        let tables = self.tables(now).await?;
        let keys = vec![keys::sending(), keys::page_lease(page_id, PAGE_SENDING)];
        let found = store.batch_get(OPERATION, &store.broadcasts, keys, None, Read::Consistent);
        let (mut switch, mut page) = (None, PageState::default());
        for item in found.await? {
            match item {
                Found::Switch(stored) => switch = Some(stored),
                Found::Page(state) => page = state,
            }
        }
        let switch = match switch {
            Some(stored) => stored.for_tables(&tables),
            None => Box::pin(self.read(now)).await?,
        };
        Ok(Permission { switch, page })
    }

    /// Sets the switch, for the tables as they are now. Returns it as it then is.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the switch may then be set, and setting it again changes nothing more.
    pub async fn set(
        &self,
        state: SendingState,
        reason: Option<String>,
        changed_by: Option<String>,
        now: Timestamp,
    ) -> Result<SendingSwitch, Error> {
        const SET: &str = "SET #state = :state, reason = :reason, changed_by = :changed_by, changed_at = :changed_at, \
                           tables = :tables, #schema = if_not_exists(#schema, :schema)";
        const OPERATION: &str = "set the switch for sending";
        let Self(store) = self;
        store.know_ids(None);
        let tables = self.tables(now).await?;
        let update = self
            .update(SET, &tables, now)
            .bind(":state", state)
            .bind(":reason", reason)
            .bind(":changed_by", changed_by)
            .returning_new();
        match store.update(OPERATION, update).await? {
            Conditional::Written(item) => Ok(from_item::<Stored>(OPERATION, item)?.for_tables(&tables)),
            Conditional::Refused(_) => Err(Error::Gone { operation: OPERATION }),
        }
    }

    /// Creates the switch of new tables, unless another process has just done so. Returns its item.
    async fn create(&self, tables: &TableIds, now: Timestamp) -> Result<Item, Error> {
        const CREATE: &str = "SET #state = :state, changed_at = :changed_at, tables = :tables, \
                              #schema = if_not_exists(#schema, :schema)";
        const OPERATION: &str = "create the switch for sending";
        let create = self
            .update(CREATE, tables, now)
            .only_if("attribute_not_exists(pk)")
            .bind(":state", SendingState::On)
            .returning_new();
        match self.0.update(OPERATION, create).await? {
            Conditional::Written(item) | Conditional::Refused(Some(item)) => Ok(item),
            Conditional::Refused(None) => Err(Error::Gone { operation: OPERATION }),
        }
    }

    fn update(&self, expression: &'static str, tables: &TableIds, now: Timestamp) -> Update<'_> {
        Update::new(&self.0.broadcasts, keys::sending(), expression)
            .bind(":changed_at", millis(now))
            .bind(":tables", tables)
            .bind(":schema", SCHEMA)
    }

    /// Returns the ids of the tables. While DynamoDB does not describe its tables it restores none either, so ids that were
    /// known stay valid.
    async fn tables(&self, now: Timestamp) -> Result<TableIds, Error> {
        let Self(store) = self;
        let known = store.known_ids();
        if let Some((at, tables)) = &known
            && (*at..*at + KNOWN_FOR).contains(&now)
        {
            return Ok(tables.clone());
        }
        let described = try_join3(
            id_of(&store.client, &store.contacts),
            id_of(&store.client, &store.broadcasts),
            id_of(&store.client, &store.deliveries),
        );
        // Boxed, as is the creation: rare, and large beside the other calls of a run.
        match (Box::pin(described).await, known) {
            (Ok((contacts, broadcasts, deliveries)), _) => {
                let tables = TableIds {
                    contacts,
                    broadcasts,
                    deliveries,
                };
                store.know_ids(Some((now, tables.clone())));
                Ok(tables)
            }
            (Err(error), Some((_, tables))) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "tables not described; their ids of before are still relied on");
                Ok(tables)
            }
            (Err(error), None) => Err(error),
        }
    }
}

impl Stored {
    /// Returns the switch, which is off for other tables than those that it was set for.
    fn for_tables(self, tables: &TableIds) -> SendingSwitch {
        let Self {
            state,
            reason,
            changed_by,
            changed_at,
            ..
        } = self;
        let (state, reason) = match self.tables == Some(tables.clone()) {
            true => (state, reason),
            false => (SendingState::Off, Some(OTHER_TABLES.to_owned())),
        };
        SendingSwitch {
            state,
            reason,
            changed_by,
            changed_at,
        }
    }
}

/// Returns the id that DynamoDB gave a table when it was created or restored; empty where an emulator gives none.
async fn id_of(client: &Client, table: &str) -> Result<String, Error> {
    let call = client.describe_table().table_name(table);
    let described = with_retries(|| call.clone().send()).await;
    let described = described.map_err(unsettled("describe a table"))?;
    Ok(described.table.and_then(|table| table.table_id).unwrap_or_default())
}
