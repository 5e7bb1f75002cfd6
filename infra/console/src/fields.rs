//! The values of a query or of a form, as a browser sends them: an absent value and an empty one are the same.

use std::borrow::Cow;
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;

/// The values of a query or of a form, in their order. A name may have several.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Parses a query, or the body of a form.
    pub fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// Returns true if there is no value.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, value)| value.is_empty())
    }

    /// Returns the first value of a name as it was sent, without the space around it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns the values of a name that are not empty.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let of_name = self.0.iter().filter(move |(known, _)| known == name);
        of_name.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    /// Returns the first value of a name without any change; empty if there is none.
    pub fn raw(&self, name: &str) -> &str {
        let value = self.0.iter().find(|(known, _)| known == name);
        value.map_or("", |(_, value)| value)
    }

    /// Returns true if a box is ticked.
    pub fn is_ticked(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns a value as a word of the API; `None` if it is absent or not such a word.
    pub fn word<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Option<T> {
        let deserializer: serde::de::value::StrDeserializer<'_, Error> = self.get(name)?.into_deserializer();
        T::deserialize(deserializer).ok()
    }

    /// Returns the path with these values, of which some are replaced, or left out if they are empty.
    pub fn link(&self, path: &str, changes: &[(&str, &str)]) -> String {
        let is_kept = |name: &str, value: &str| {
            !value.is_empty() && !changes.iter().any(|(changed, _)| *changed == name) && name != PART
        };
        let kept = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let kept = kept.filter(|(name, value)| is_kept(name, value));
        let added = changes.iter().copied().filter(|(_, value)| !value.is_empty());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(kept.chain(added));
        match query.finish() {
            query if query.is_empty() => path.to_owned(),
            query => format!("{path}?{query}"),
        }
    }

    /// Returns the path by which a page asks for its part that changes.
    pub fn live_link(&self, path: &str) -> String {
        self.link(path, &[(PART, LIVE)])
    }

    /// Returns true if the page asks for its part that changes only.
    pub fn is_live(&self) -> bool {
        self.get(PART) == Some(LIVE)
    }
}

/// The name of the value by which a page asks for a part of itself.
const PART: &str = "part";
/// The part that changes.
const LIVE: &str = "live";

impl<S: Sync> FromRequestParts<S> for Fields {
    type Rejection = Infallible;

    /// Reads the query.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default().as_bytes()))
    }
}

/// Returns a value as a part of a path.
pub fn in_path(value: &str) -> Cow<'_, str> {
    form_urlencoded::byte_serialize(value.as_bytes()).fold(Cow::Borrowed(""), |path, part| match part {
        // In a path a plus is a plus.
        "+" => path + "%20",
        part => path + part,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_keeps_the_filters_and_replaces_the_cursor() {
        let fields = Fields::parse(b"status=paused&page_id=&cursor=old&part=live");

        assert_eq!(fields.link("/", &[("cursor", "a b")]), "/?status=paused&cursor=a+b");
        assert_eq!(fields.link("/", &[("cursor", ""), ("status", "")]), "/");
        assert!(fields.is_live());
    }

    #[test]
    fn id_is_one_part_of_a_path() {
        assert_eq!(in_path("a/b c?é"), "a%2Fb%20c%3F%C3%A9");
    }
}
