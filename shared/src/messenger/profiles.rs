//! The profiles of contacts, which Messenger shows to apps that have access to them:
//! <https://developers.facebook.com/docs/messenger-platform/identity/user-profile>.

use serde_json::Number;

use crate::domain::contact::Profile;
use crate::domain::ids::ContactId;
use crate::domain::visible::{is_blank, trimmed};
use crate::messenger::MessengerClient;
use crate::messenger::codes::*;
use crate::messenger::errors::{Refusal, SendError, Verdict};
use crate::messenger::json::Object;

/// The most characters of a text of a profile, which is that of the API.
const MAX_TEXT: usize = 1_000;
/// The largest difference from UTC in hours, in either direction.
const MAX_HOURS: f64 = 24.0;

/// The fields to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileFields {
    /// All that a contact has.
    All,
    /// Those that need no permission of their own.
    Names,
}

impl ProfileFields {
    fn list(self) -> &'static str {
        match self {
            Self::All => "name,first_name,last_name,locale,timezone",
            Self::Names => "name,first_name,last_name",
        }
    }
}

/// Messenger's answer about a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileAnswer {
    /// The profile, as far as it is shown; that may be nothing.
    Shown(Profile),
    /// The contact has none, as an account that was made with a phone number.
    None,
    /// A field needs a permission that the app lacks, or does not exist; it may show others.
    FieldsRefused(SendError),
    /// The Page is shown no profile now: the limit of its calls, its token, or a permission.
    PageRefused(SendError),
    /// There was no answer that says anything.
    NoAnswer(SendError),
}

impl MessengerClient {
    /// Reads these fields of a contact's profile.
    pub async fn profile(&self, contact_id: &ContactId, fields: ProfileFields) -> ProfileAnswer {
        match self.get(&[contact_id.as_str()], &[("fields", fields.list())]).await {
            Ok((shown, _)) => parse(&shown, contact_id).map_or(
                ProfileAnswer::NoAnswer(SendError::NoAnswer("answer not readable")),
                ProfileAnswer::Shown,
            ),
            Err(error) => judge(error, fields),
        }
    }
}

/// Reads a profile; `None` if it is not this contact's. A value that no contact could have counts as not shown.
fn parse(json: &str, contact_id: &ContactId) -> Option<Profile> {
    let shown = Object::parse(json)?;
    let is_ours = shown.get("id").is_none() || shown.text("id").as_deref() == Some(contact_id.as_str());
    let text = |field| {
        let text = shown.text(field)?;
        let text = trimmed(&text);
        let is_text = !is_blank(text) && !text.contains('\0') && text.chars().count() <= MAX_TEXT;
        is_text.then(|| text.to_owned())
    };
    let hours = |hours: &Number| hours.as_f64().is_some_and(|hours| hours.abs() <= MAX_HOURS);
    let timezone = shown
        .text("timezone")
        .and_then(|hours| serde_json::from_str(&hours).ok());
    is_ours.then(|| Profile {
        name: text("name"),
        first_name: text("first_name"),
        last_name: text("last_name"),
        locale: text("locale"),
        timezone: timezone.filter(hours),
    })
}

fn judge(error: SendError, fields: ProfileFields) -> ProfileAnswer {
    if let SendError::Refused(refusal) = &error {
        if has_no_profile(refusal) {
            return ProfileAnswer::None;
        }
        if fields == ProfileFields::All && may_refuse_fields(refusal) {
            return ProfileAnswer::FieldsRefused(error);
        }
    }
    match error.verdict() {
        Verdict::Never => ProfileAnswer::None,
        Verdict::RateLimited(_) | Verdict::Stop | Verdict::StopIfConfirmed => ProfileAnswer::PageRefused(error),
        Verdict::Later | Verdict::InDoubt => ProfileAnswer::NoAnswer(error),
    }
}

/// Returns `true` if the contact has no profile, or is unknown to Messenger.
fn has_no_profile(refusal: &Refusal) -> bool {
    let no_profile = refusal.code == NO_PROFILE || refusal.subcode == Some(NO_PROFILE);
    let unknown = [sub::NO_MATCHING_USER, sub::NO_SUCH_OBJECT]
        .map(Some)
        .contains(&refusal.subcode);
    no_profile || refusal.no_matching_user || (refusal.code == BAD_PARAMETER && unknown)
}

/// Returns `true` for the codes with which a field is refused.
fn may_refuse_fields(refusal: &Refusal) -> bool {
    match refusal.code {
        BAD_PARAMETER => !refusal.refuses_call,
        PERMISSION_DENIED => refusal.subcode.is_none(),
        CAPABILITY | PERMISSION..=LAST_PERMISSION => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(shown: &str) -> Option<Profile> {
        parse(shown, &ContactId::parse("7").unwrap())
    }

    #[test]
    fn shown_values_are_read_verbatim_and_odd_ones_left_out() {
        let text = |text: &str| Some(text.to_owned());
        let full = r#"{"id": "7", "name": " Zoë 🙂 de Sá ", "first_name": "Zoë 🙂", "last_name": "de Sá", "locale": "pt_PT", "timezone": -3.5}"#;
        let expected = Profile {
            name: text("Zoë 🙂 de Sá"),
            first_name: text("Zoë 🙂"),
            last_name: text("de Sá"),
            locale: text("pt_PT"),
            timezone: Number::from_f64(-3.5),
        };
        assert_eq!(read(full), Some(expected));
        let none = Some(Profile::default());
        for shown in [
            "{}".to_owned(),
            r#"{"id": 7, "email": "ana@example.com"}"#.to_owned(),
            r#"{"name": "", "first_name": " \u200b", "last_name": null, "locale": {}, "timezone": "noon"}"#.to_owned(),
            r#"{"name": "a\u0000b", "first_name": ["Ana"], "timezone": 24.5}"#.to_owned(),
            json!({"name": "x".repeat(1_001), "timezone": -25}).to_string(),
        ] {
            assert_eq!(read(&shown), none, "{shown}");
        }
        let longest = json!({"name": "x".repeat(1_000), "timezone": 24}).to_string();
        let longest = read(&longest).unwrap();
        assert!(longest.name.is_some() && longest.timezone.is_some());
        assert_eq!(read(r#"{"id": "8", "first_name": "Ben"}"#), None, "another contact's");
    }

    #[test]
    fn refusal_concerns_the_fields_the_contact_or_the_page() {
        let kind = |code, subcode, fields| {
            let refusal = Refusal {
                code,
                subcode,
                ..Refusal::default()
            };
            match judge(SendError::Refused(refusal), fields) {
                ProfileAnswer::Shown(_) => "shown",
                ProfileAnswer::None => "none",
                ProfileAnswer::FieldsRefused(_) => "fields",
                ProfileAnswer::PageRefused(_) => "page",
                ProfileAnswer::NoAnswer(_) => "no answer",
            }
        };
        for (code, subcode, all, names) in [
            (100, None, "fields", "none"),
            (100, Some(2_018_218), "none", "none"),
            (2_018_218, None, "none", "none"),
            (100, Some(2_018_001), "none", "none"),
            (100, Some(33), "none", "none"),
            (10, None, "fields", "page"),
            (200, None, "fields", "page"),
            (3, None, "fields", "page"),
            (551, None, "none", "none"),
            (190, Some(460), "page", "page"),
            (4, None, "page", "page"),
            (80_006, None, "page", "page"),
            (1, None, "no answer", "no answer"),
            (999_999, None, "no answer", "no answer"),
        ] {
            let kinds = [ProfileFields::All, ProfileFields::Names].map(|fields| kind(code, subcode, fields));
            assert_eq!(kinds, [all, names], "{code}/{subcode:?}");
        }
        let lost = judge(SendError::NotConnected, ProfileFields::All);
        assert_eq!(lost, ProfileAnswer::NoAnswer(SendError::NotConnected));
    }
}
