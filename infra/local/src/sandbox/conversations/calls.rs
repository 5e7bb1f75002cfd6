//! How often each Page looks up: Messenger allows two calls a second.

use std::collections::BTreeMap;

use crate::sandbox::faults::GraphError;
use crate::sandbox::ledger::peak_per_second;

/// Calls that a Page may make.
const CALLS_PER_SECOND: usize = 2;
/// Less than a second, so that who keeps the pace is not refused because a call came a little faster than the one before.
const RATE_SPAN_MS: i64 = 900;

/// When each Page called.
#[derive(Debug, Default)]
pub struct Calls(BTreeMap<String, Vec<i64>>);

impl Calls {
    /// Counts a call. It is too many if the Page's last ones, refused ones included, were not long enough ago.
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

    /// All of them, refused ones included.
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// The most of one Page within any one second.
    pub fn peak_per_second(&self) -> usize {
        let peak = |calls: &Vec<i64>| peak_per_second(calls.iter().copied());
        self.0.values().map(peak).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_may_call_twice_a_second_and_refused_calls_count_too() {
        let mut calls = Calls::default();
        let mut code = |page: &str, now| calls.admit(page, now).err().map(|error| error.code);

        assert_eq!(code("page-1", 0), None);
        assert_eq!(code("page-1", 10), None);
        assert_eq!(code("page-2", 20), None);
        assert_eq!(code("page-1", 20), Some(613));
        assert_eq!(code("page-1", 915), None);
        assert_eq!(code("page-1", 919), Some(613), "20 is still near");
        assert_eq!(code("page-1", 2_000), None);
        assert_eq!(calls.count(), 7);
        assert_eq!(calls.peak_per_second(), 5);
    }
}
