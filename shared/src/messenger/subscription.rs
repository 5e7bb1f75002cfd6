//! The webhook subscription of a Page: the kinds of events that Messenger sends to the app.
//!
//! Source: <https://developers.facebook.com/docs/graph-api/reference/page/subscribed_apps/>

use crate::messenger::MessengerClient;
use crate::messenger::errors::SendError;
use crate::messenger::json::Object;

/// The events that Oncecast needs, by their names at Meta: echoes settle doubts, and messages and postbacks make contacts, opt them
/// out and tell when they wrote last.
pub const NEEDED: [&str; 3] = ["message_echoes", "messages", "messaging_postbacks"];

impl MessengerClient {
    /// Reads which of the needed events no app is subscribed to. Messenger shows a Page's token the apps that it was installed for.
    ///
    /// # Errors
    /// If Messenger refuses the call, or does not answer it with a list of apps.
    pub async fn missing_subscriptions(&self) -> Result<Vec<&'static str>, SendError> {
        let path = [self.page_id.as_str(), "subscribed_apps"];
        let (listed, _) = self.get(&path, &[("fields", "subscribed_fields")]).await?;
        missing(&listed).ok_or(SendError::NoAnswer("list of apps not readable"))
    }
}

fn missing(json: &str) -> Option<Vec<&'static str>> {
    let apps = Object::parse(json)?.list("data")?;
    let mut missing = NEEDED.to_vec();
    for app in apps {
        let fields = Object::parse(app.get())?.list("subscribed_fields").unwrap_or_default();
        let fields: Vec<String> = fields
            .iter()
            .filter_map(|field| serde_json::from_str(field.get()).ok())
            .collect();
        missing.retain(|needed| !fields.iter().any(|field| field == needed));
    }
    Some(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_no_app_gets_are_missing() {
        assert_eq!(missing(r#"{"data": []}"#), Some(NEEDED.to_vec()));
        let one = r#"{"data": [{"id": "1", "subscribed_fields": ["messages", "message_echoes"]}, {"id": "2"}]}"#;
        assert_eq!(missing(one), Some(vec!["messaging_postbacks"]));
        let two = r#"{"data": [{"subscribed_fields": ["messages"]}, {"subscribed_fields": ["message_echoes", "messaging_postbacks"]}]}"#;
        assert_eq!(missing(two), Some(vec![]));
        assert_eq!(missing(r#"{"error": {}}"#), None);
    }
}
