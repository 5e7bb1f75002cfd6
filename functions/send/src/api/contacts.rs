//! Contacts, their import and their erasure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use shared::contact_fields;
use shared::domain::contact as stored;
use shared::domain::delivery::Status;
use shared::domain::ids::{BroadcastId, ContactId, PageId};
use utoipa::ToSchema;

use crate::api::problems::Fault;

macro_rules! contact_forms {
    (
        required {
            $($(#[$id_doc:meta])* $id:ident [$($id_type:tt)+] $_id_kind:ident $_id_in_texts:literal;)*
        }
        optional {
            $($(#[$doc:meta])* $name:ident [$($type:tt)+] $_kind:ident $_in_texts:literal [$($_stored:meta)?] [$($api:meta)?];)*
        }
    ) => {
        /// A contact.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
        #[schema(examples(json!({
            "contact_id": "6001", "page_id": "page-1", "first_name": "Ana", "last_name": null, "name": "Ana Sá",
            "locale": "pt_BR", "timezone": -3, "tags": ["vip", "new"], "opted_out": false, "tester": false,
            "last_interaction_at": "2026-11-30T18:12:00Z", "source": "webhook", "attributes": {"city": "Porto"}
        })))]
        pub struct Contact {
            $($(#[$id_doc])* pub $id: $($id_type)+,)*
            $($(#[$doc])* #[schema(required)] $(#[$api])? pub $name: $($type)+,)*
        }

        /// A new contact, or the changes of a known one: a field that is absent is kept, `null` clears it.
        #[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct ContactChange {
            $($(#[$id_doc])* pub $id: $($id_type)+,)*
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                #[schema(nullable)]
                $(#[$api])?
                pub $name: Option<$($type)+>,
            )*
        }

        impl ContactChange {
            /// Returns a contact without any other field.
            pub fn new($($id: $($id_type)+),*) -> Self {
                Self {
                    $($id,)*
                    $($name: None,)*
                }
            }
        }

        impl From<stored::Contact> for Contact {
            fn from(contact: stored::Contact) -> Self {
                Self {
                    $($id: contact.$id,)*
                    $($name: contact.$name,)*
                }
            }
        }
    };
}

contact_fields!(contact_forms);

/// The name of a contact's own attribute.
#[derive(Clone, Debug, PartialEq, ToSchema)]
#[schema(pattern = "^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
pub struct AttributeName(String);

/// The value of a contact's own attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum AttributeValue {
    /// A text of at most 1,000 characters.
    Text(String),
    /// A number, which a text shows as it is written.
    Number(f64),
    /// True or false.
    Flag(bool),
}

/// The contacts of an import: all are valid, or none is stored.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "contacts": [
        {"contact_id": "6001", "page_id": "page-1", "first_name": "Ana", "tags": ["vip", "new"], "attributes": {"city": "Porto"}},
        {"contact_id": "6003", "page_id": "page-1", "first_name": null, "opted_out": true}
    ]
})))]
pub struct ContactImport {
    /// The contacts, each once.
    #[schema(min_items = 1, max_items = 1_000)]
    pub contacts: Vec<ContactChange>,
}

/// The way in which an import treats contacts that are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusedContacts {
    /// They are left out, and the others are stored.
    Skip,
}

/// The answer to an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(
    json!({"upserted": 2}),
    json!({"upserted": 1, "refused": [
        {"field": "line 3, column opted_out", "line": 3, "column": "opted_out", "message": "must be true or false"}
    ]})
))]
pub struct Imported {
    /// The number of contacts that were created or changed.
    pub upserted: u64,
    /// The faults of the contacts that were left out, up to ten of each; absent unless the request has `refused=skip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub refused: Option<Vec<Fault>>,
}

/// The part of an erasure that one request did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "erased": {"contact": true, "deliveries": 3, "unknown_ids": 1},
    "kept": [{
        "broadcast_id": "019ac2f07d3e7c51a0e0b5c4d3e2f1a0", "page_id": "page-1", "status": "sent",
        "reason": "the job was completed a moment ago, and a worker that it lost may still be sending"
    }],
    "next_cursor": null
})))]
pub struct Erasure {
    /// The things that were erased.
    pub erased: Erased,
    /// The deliveries that are kept for now.
    pub kept: Vec<Kept>,
    /// The cursor with which to repeat the request; `null` if the erasure is done.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// The numbers of things that were erased.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Erased {
    /// True if the contact itself was deleted.
    pub contact: bool,
    /// Deliveries to the contact.
    pub deliveries: u64,
    /// Broadcasts that listed the id as unknown.
    pub unknown_ids: u64,
}

/// A delivery that is kept for now, or may still come about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Kept {
    /// The broadcast of the delivery.
    pub broadcast_id: BroadcastId,
    /// The Page that sends.
    pub page_id: PageId,
    /// The state of the delivery; `null` if there is none yet.
    #[schema(required)]
    pub status: Option<Status>,
    /// The reason to keep it.
    pub reason: String,
}
