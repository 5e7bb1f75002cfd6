//! The switch for sending, and the identity of the tables that it was set for.
//!
//! The switch is an item, outside any deployment, and names the tables by the ids that DynamoDB gave them. A table that was
//! restored or replaced has another id. It lacks what was sent since its copy was made, so the switch then counts as off until
//! an operator has set it again.

use std::collections::BTreeMap;
use std::iter;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use futures_util::future::try_join3;
use jiff::fmt::serde::timestamp::millisecond;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::calls::{BATCH_GET, Conditional, Read, Transaction, unsettled, with_retries};
use super::keys::{self, HISTORY_PREFIX, PAGE_SENDING, SENDING};
use super::statement::{Put, Query, Update, millis};
use super::tables::{Error, Item, SCHEMA, Store, TableIds, expiry, from_item, to_item};
use crate::domain::ids::{PageId, token};
use crate::domain::sending::{PageState, SendingChanged, SendingState, SendingSwitch};

/// The time for which a process relies on the ids of the tables. A table takes longer than that to be deleted and restored.
const KNOWN_FOR: SignedDuration = SignedDuration::from_secs(120);
/// The number of changes that the history shows.
const HISTORY: i32 = 50;
/// The time for which a change is kept.
const HISTORY_KEPT_FOR: Duration = Duration::from_secs(400 * 86_400);
/// The reason of a switch that was set for other tables.
const OTHER_TABLES: &str = "a table was restored or replaced since sending was switched on";

/// The switch for sending of a [`Store`].
pub struct Sending<'a>(pub(super) &'a Store);

/// The right to send for a Page, as a run reads it.
#[derive(Clone, Debug)]
pub struct Permission {
    /// The switch that decides for the Page.
    pub switch: SendingSwitch,
    /// The state of the Page.
    pub page: PageState,
}

/// The switch for all Pages, and the states of some of them.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// The switch for all Pages.
    pub all: SendingSwitch,
    /// Those of the Pages that have a state.
    pub pages: BTreeMap<PageId, PageState>,
}

impl Switches {
    /// Returns the right to send for a Page.
    pub fn of(&self, page_id: &PageId) -> Permission {
        let page = self.pages.get(page_id).cloned().unwrap_or_default();
        let switch = self.all.for_page(&page);
        Permission { switch, page }
    }
}

/// The items that are read in one call.
#[derive(Deserialize)]
#[serde(tag = "sk")]
enum Found {
    #[serde(rename = "all")]
    Switch(Stored),
    #[serde(rename = "lease")]
    Page {
        #[serde(rename = "pk", deserialize_with = "keys::from_page_partition")]
        page_id: PageId,
        #[serde(flatten)]
        state: PageState,
    },
}

/// A change as it is stored.
#[derive(Serialize)]
struct StoredChange<'a> {
    schema: u32,
    expires_at: i64,
    #[serde(flatten)]
    change: &'a SendingChanged,
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

    /// Reads the switch and the state of a Page, in one call.
    ///
    /// # Errors
    /// As [`Sending::read`].
    pub async fn read_for(&self, page_id: &PageId, now: Timestamp) -> Result<Permission, Error> {
        let pages = std::slice::from_ref(page_id);
        Ok(self.read_all_now(pages, now).await?.of(page_id))
    }

    /// Reads the switch and the states of Pages.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn read_all_now(&self, pages: &[PageId], now: Timestamp) -> Result<Switches, Error> {
        self.read_all(pages, Read::Consistent, now).await
    }

    /// Reads the switch and the states of Pages as of a moment ago.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn read_lately(&self, pages: &[PageId], now: Timestamp) -> Result<Switches, Error> {
        self.read_all(pages, Read::Eventual, now).await
    }

    async fn read_all(&self, pages: &[PageId], read: Read, now: Timestamp) -> Result<Switches, Error> {
        const OPERATION: &str = "read the switch for sending and Pages";
        let Self(store) = self;
        let tables = self.tables(now).await?;
        let (mut all, mut states) = (None, BTreeMap::new());
        let keys = pages.iter().map(|page_id| keys::page_lease(page_id, PAGE_SENDING));
        let keys: Vec<_> = iter::once(keys::sending()).chain(keys).collect();
        for keys in keys.chunks(BATCH_GET) {
            let found = store.batch_get(OPERATION, &store.broadcasts, keys.to_vec(), None, read);
            for item in found.await? {
                match item {
                    Found::Switch(stored) => all = Some(stored),
                    Found::Page { page_id, state } => drop(states.insert(page_id, state)),
                }
            }
        }
        let all = match all {
            Some(stored) => stored.for_tables(&tables),
            None => Box::pin(self.read(now)).await?,
        };
        Ok(Switches { all, pages: states })
    }

    /// Sets the switch, for all Pages and for the tables as they are now, or for one Page; keeps the change in the history.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the switch may then be set, and setting it again only adds to the history.
    pub async fn set(&self, change: &SendingChanged, now: Timestamp) -> Result<(), Error> {
        const SET: &str = "SET #state = :state, reason = :reason, changed_by = :changed_by, changed_at = :changed_at, \
                           tables = :tables, #schema = if_not_exists(#schema, :schema)";
        const SET_OF_PAGE: &str = "SET #switch = :switch, #schema = if_not_exists(#schema, :schema)";
        const OPERATION: &str = "set the switch for sending";
        let Self(store) = self;
        let SendingChanged { switch, page_id } = change;
        let set = match page_id {
            Some(page_id) => Update::new(&store.broadcasts, keys::page_lease(page_id, PAGE_SENDING), SET_OF_PAGE)
                .bind(":switch", switch)
                .bind(":schema", SCHEMA),
            None => {
                store.know_ids(None);
                let tables = self.tables(now).await?;
                self.update(SET, &tables, now)
                    .bind(":state", switch.state)
                    .bind(":reason", &switch.reason)
                    .bind(":changed_by", &switch.changed_by)
            }
        };
        let stored = StoredChange {
            schema: SCHEMA,
            expires_at: expiry(now, HISTORY_KEPT_FOR),
            change,
        };
        let token = token();
        let mut item = to_item(OPERATION, stored)?;
        // `page_id` is the key of an index, which takes no null.
        item.retain(|_, value| !value.is_null());
        item.extend(keys::sending_change(now, &token));
        let parts = vec![
            set.into_part(OPERATION)?,
            Put::new(&store.broadcasts, item).into_part(OPERATION)?,
        ];
        match store.transact(OPERATION, parts, &token).await? {
            Transaction::Written => Ok(()),
            Transaction::Refused(_) => Err(Error::Gone { operation: OPERATION }),
        }
    }

    /// Lists the last changes, from the newest.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn history(&self) -> Result<Vec<SendingChanged>, Error> {
        const CHANGES: &str = "pk = :sending AND begins_with(sk, :prefix)";
        let Self(store) = self;
        let query = Query::table(&store.broadcasts, CHANGES)
            .bind(":sending", SENDING)
            .bind(":prefix", HISTORY_PREFIX)
            .newest_first()
            .limit(HISTORY);
        let (changes, _) = store
            .query_page("list changes of the switch for sending", query)
            .await?;
        Ok(changes)
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
