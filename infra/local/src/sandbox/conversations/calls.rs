//! The rate limit of lookups. Messenger allows a Page two calls of the Conversations API per second:
//! <https://developers.facebook.com/documentation/business-messaging/messenger-platform/overview/rate-limiting>.

use std::collections::BTreeMap;

use crate::sandbox::faults::GraphError;
use crate::sandbox::peak::peak_within;

/// The number of calls that a Page may make within the span.
const CALLS_PER_SECOND: usize = 2;
/// The span in milliseconds. It is shorter than a second, so that a caller that keeps the rate is not refused when one
/// call arrives a little faster than the one before.
const RATE_SPAN_MS: i64 = 900;

/// The times of the calls of each Page, in milliseconds since 1970.
#[derive(Debug, Default)]
pub struct LookupCalls(BTreeMap<String, Vec<i64>>);

impl LookupCalls {
    /// Counts a call.
    ///
    /// # Errors
    ///
    /// Fails with error 613 if the Page has made too many calls within the span, including refused ones.
    pub fn admit(&mut self, page_id: &str, now: i64) -> Result<(), GraphError> {
        let calls = self.0.entry(page_id.to_owned()).or_default();
        calls.push(now);
        let recent = calls.iter().filter(|at| now - **at < RATE_SPAN_MS).count();
        if recent > CALLS_PER_SECOND {
            let message = "Calls to this api have exceeded the rate limit.";
            return Err(GraphError::new(613, message));
        }
        Ok(())
    }

    /// Returns the times of the calls for a Page in milliseconds since 1970, including refused ones.
    pub fn times(&self, page_id: &str) -> Vec<i64> {
        self.0.get(page_id).cloned().unwrap_or_default()
    }

    /// Returns the number of all calls, including refused ones.
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Returns the largest number of calls by one Page within the span of the limit.
    pub fn peak_per_second(&self) -> usize {
        let peak = |calls: &Vec<i64>| peak_within(RATE_SPAN_MS, calls.iter().copied());
        self.0.values().map(peak).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn third_call_within_a_second_is_refused_and_refused_calls_count() {
        let mut calls = LookupCalls::default();
        let mut code = |page: &str, now| calls.admit(page, now).err().map(|error| error.code);

        assert_eq!(code("page-1", 0), None);
        assert_eq!(code("page-1", 10), None);
        assert_eq!(code("page-2", 20), None);
        assert_eq!(code("page-1", 20), Some(613));
        assert_eq!(code("page-1", 915), None);
        assert_eq!(code("page-1", 919), Some(613), "the call at 20 ms is within the span");
        assert_eq!(code("page-1", 2_000), None);
        assert_eq!(calls.count(), 7);
        assert_eq!(calls.peak_per_second(), 3);
    }
}
