//! Entity tags of reports and the header `If-None-Match` (RFC 9110, sections 8.8.3 and 13.1.2).

use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::problem::Problem;

/// A weak entity tag: representations with the same tag tell the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTag(String);

impl EntityTag {
    /// Returns the tag of what is shown. Another version of this program may show it in another form, so its tags differ.
    pub fn of(shown: &impl Serialize) -> Self {
        let shown = serde_json::to_vec(shown).unwrap_or_default();
        let digest = Sha256::new()
            .chain_update(env!("CARGO_PKG_VERSION"))
            .chain_update(shown)
            .finalize();
        Self(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns the value of the header `ETag`.
    pub fn to_header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.to_string()).ok()
    }
}

/// Writes the tag as a header holds it.
impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W/\"{}\"", self.0)
    }
}

/// The `If-None-Match` header: the representations that the caller has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IfNoneMatch {
    any: bool,
    tags: Vec<String>,
}

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut all = Self::default();
        for value in parts.headers.get_all(header::IF_NONE_MATCH) {
            let parsed = value.to_str().ok().and_then(Self::parse);
            let one = parsed.ok_or_else(|| {
                Problem::fault(
                    "If-None-Match",
                    "must be * or a list of entity tags, such as W/\"0a1b\"",
                )
            })?;
            all.any |= one.any;
            all.tags.extend(one.tags);
        }
        Ok(all)
    }
}

impl IfNoneMatch {
    /// Parses the value of a header; `None` if it is neither `*` nor a list of entity tags.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        if rest == "*" {
            let (any, tags) = (true, Vec::new());
            return Some(Self { any, tags });
        }
        let mut tags = Vec::new();
        loop {
            // A tag may have commas.
            let opaque = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
            let (tag, after) = opaque.split_once('"')?;
            if !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
                return None;
            }
            tags.push(tag.to_owned());
            rest = after.trim_start();
            if rest.is_empty() {
                return Some(Self { any: false, tags });
            }
            rest = rest.strip_prefix(',')?.trim_start();
        }
    }

    /// Returns true if the caller names no representation.
    pub fn is_absent(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true if the caller has the representation with this tag; strong and weak tags are compared alike.
    pub fn matches(&self, tag: &EntityTag) -> bool {
        self.any || self.tags.contains(&tag.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_entity_tags_is_parsed() {
        let tags = |text| IfNoneMatch::parse(text).map(|parsed| parsed.tags);
        let list = |tags: &[&str]| Some(tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>());
        assert_eq!(tags("W/\"a\""), list(&["a"]));
        assert_eq!(tags("\"a\",W/\"b,c\" , \"\""), list(&["a", "b,c", ""]));
        assert_eq!(tags("*"), list(&[]));
        for text in [
            "",
            "a",
            "\"a",
            "W/a",
            "w/\"a\"",
            "\"a\" \"b\"",
            "\"a\",",
            "*, \"a\"",
            "\"a b\"",
        ] {
            assert_eq!(tags(text), None, "{text:?}");
        }
    }
}
