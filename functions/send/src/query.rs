//! The parameters of a request's URL. They are all parsed here: unknown, repeated and wrong ones are faults, which are told
//! together. Only Meta's verification of a webhook is read elsewhere, since Meta may add parameters to it.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::api::problems::Fault;
use crate::problem::Problem;

/// The parameters of a URL, of which each is taken once.
pub struct Query {
    values: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Self {
            values: BTreeMap::new(),
            faults: Vec::new(),
        };
        let mut repeated = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if query
                .values
                .insert(name.clone().into_owned(), value.into_owned())
                .is_some()
            {
                repeated.insert(name.into_owned(), "must not be repeated");
            }
        }
        for (name, message) in repeated {
            query.fault(&name, message);
        }
        query
    }

    /// Takes a parameter and parses it; `None` if it is absent or wrong.
    pub fn take<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.values.remove(name)?;
        parse(&value).map_err(|message| self.fault(name, message)).ok()
    }

    /// Adds a fault of a parameter.
    pub fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.faults.push(Fault::of(name, message));
    }

    /// Returns the identity of a list, to which its cursors are bound: its name and the parameters that choose its items.
    pub fn list_id(&self, name: &str) -> String {
        let filters = self.values.iter();
        let filters = filters.filter(|(name, _)| !["limit", "cursor"].contains(&name.as_str()));
        filters.fold(name.to_owned(), |id, (name, value)| format!("{id}\0{name}\0{value}"))
    }

    /// Checks that no parameter is left over, and none was wrong.
    ///
    /// # Errors
    /// If one was: a problem (400) that lists all faults.
    pub fn finish(mut self) -> Result<(), Problem> {
        for name in std::mem::take(&mut self.values).into_keys() {
            self.fault(&name, "is not a known parameter");
        }
        match self.faults.is_empty() {
            true => Ok(()),
            false => Err(Problem::invalid(self.faults)),
        }
    }
}

/// A request to a route without parameters. A parameter that would be ignored is refused: its caller expects something of it.
pub struct NoParameters;

impl<S: Sync> FromRequestParts<S> for NoParameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::parse(parts.uri.query().unwrap_or_default()).finish()?;
        Ok(Self)
    }
}

/// Parses a parameter that is `true` or `false`.
///
/// # Errors
/// If the value is neither.
pub fn flag(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| "must be true or false".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_all_parameters_are_told_together() {
        let mut query = Query::parse("limit=x&status=a&status=b&page=1");
        let limit = query.take("limit", |value| value.parse::<u8>().map_err(|error| error.to_string()));
        assert_eq!(limit, None);
        let status = query.take("status", |value| Ok(value.to_owned()));
        assert_eq!(status.as_deref(), Some("b"));
        let mut named: Vec<_> = query.faults.iter().map(|fault| fault.field.clone()).collect();
        named.sort();
        assert_eq!(named, ["limit", "status"]);
        let problem = query.finish().unwrap_err();
        assert!(format!("{problem:?}").contains("page"));
    }

    #[test]
    fn list_is_identified_by_its_filters_alone() {
        let id = |query: &str| Query::parse(query).list_id("broadcasts");
        assert_eq!(id("status=a&limit=5&cursor=x"), id("status=a"));
        assert_eq!(id("page_id=1&status=a"), id("status=a&page_id=1"));
        assert_ne!(id("status=a"), id("status=b"));
        assert_ne!(id("status=a"), id(""));
    }
}
