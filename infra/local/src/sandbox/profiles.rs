//! The profiles of contacts: `GET /v25.0/{contact_id}?fields=first_name,last_name,…`, see
//! <https://developers.facebook.com/docs/messenger-platform/identity/user-profile>.
//!
//! A contact whose profile nobody set has an empty one, as Messenger shows it to an app without access.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::faults::GraphError;

/// The fields of a profile.
const FIELDS: [&str; 8] = [
    "id",
    "name",
    "first_name",
    "last_name",
    "profile_pic",
    "locale",
    "timezone",
    "gender",
];

/// The profiles that were set, and the calls for them.
#[derive(Debug, Default)]
pub struct Profiles {
    /// By contact id. A field that is missing is not shown.
    pub by_contact: BTreeMap<String, Map<String, Value>>,
    /// The fields that need a permission which the app lacks.
    pub refused_fields: BTreeSet<String>,
    /// The contact and the fields of each call.
    pub calls: Vec<(String, String)>,
}

impl Profiles {
    /// Returns these fields of a contact's profile, as far as they are known.
    ///
    /// # Errors
    ///
    /// Fails with an error of the Graph API if a field does not exist or needs a permission.
    pub fn shown(&self, contact_id: &str, fields: &str) -> Result<Map<String, Value>, GraphError> {
        let fields: Vec<&str> = fields.split(',').collect();
        if let Some(field) = fields.iter().find(|field| !FIELDS.contains(field)) {
            return Err(GraphError::no_field(field));
        }
        if let Some(field) = fields.iter().find(|field| self.refused_fields.contains(**field)) {
            let message = format!("(#10) To show the field {field}, the app needs the permission pages_user_{field}");
            return Err(GraphError::new(10, message));
        }
        let Some(profile) = self.by_contact.get(contact_id) else {
            return Ok(Map::new());
        };
        let mut shown = profile.clone();
        shown.retain(|name, _| fields.contains(&name.as_str()));
        shown.insert("id".to_owned(), contact_id.into());
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn profile_shows_the_known_fields_that_are_asked_for() {
        let ana = json!({"first_name": "Ana", "name": "Ana Sá", "locale": "pt_PT"});
        let profiles = Profiles {
            by_contact: BTreeMap::from([("ana".to_owned(), ana.as_object().unwrap().clone())]),
            refused_fields: BTreeSet::from(["timezone".to_owned()]),
            calls: Vec::new(),
        };
        let shown = |contact_id, fields| profiles.shown(contact_id, fields).map_err(|error| error.code);

        let expected = json!({"id": "ana", "first_name": "Ana", "locale": "pt_PT"});
        assert_eq!(
            shown("ana", "first_name,last_name,locale"),
            Ok(expected.as_object().unwrap().clone())
        );
        assert_eq!(shown("ben", "first_name"), Ok(Map::new()));
        assert_eq!(shown("ana", "first_name,timezone"), Err(10));
        assert_eq!(shown("ana", "nickname"), Err(100));
    }
}
