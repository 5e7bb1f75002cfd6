//! Transactions that are sent again, since their answer was lost: they are answered as before.
//!
//! dynoxide does so, too, as DynamoDB does for ten minutes, but looks at all transactions of these ten minutes at each one, and
//! remembers what each has written.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dynoxide::DynoxideError;
use serde_json::Value;

/// The time for which an answer is kept. The callers of the stack try for some seconds.
const KEPT: Duration = Duration::from_secs(60);

/// The answers of the last transactions by their tokens.
#[derive(Debug, Default)]
pub struct Transactions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    answers: HashMap<String, Answer>,
    /// The tokens in order of time.
    tokens: VecDeque<(Instant, String)>,
}

#[derive(Debug)]
struct Answer {
    /// The hash of the transaction.
    of: u64,
    body: String,
}

impl Transactions {
    /// Commits a transaction, unless one with its token was committed a moment ago.
    ///
    /// # Errors
    ///
    /// Fails if the commit does, or if the other transaction of this token is not the same.
    pub fn run(
        &self,
        body: &[u8],
        commit: impl FnOnce() -> Result<String, DynoxideError>,
    ) -> Result<String, DynoxideError> {
        let Some((token, of)) = token_and_hash(body) else {
            return commit();
        };
        // Locked until the answer is kept, so that the same transaction waits for it.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget_until(Instant::now().checked_sub(KEPT));
        match kept.answers.get(&token) {
            Some(answer) if answer.of == of => return Ok(answer.body.clone()),
            Some(_) => {
                let message = "the token is that of another transaction".to_owned();
                return Err(DynoxideError::IdempotentParameterMismatchException(message));
            }
            None => {}
        }
        let body = commit()?;
        kept.tokens.push_back((Instant::now(), token.clone()));
        kept.answers.insert(token, Answer { of, body: body.clone() });
        Ok(body)
    }
}

impl Kept {
    fn forget_until(&mut self, end: Option<Instant>) {
        while let Some((_, token)) = self.tokens.pop_front_if(|(at, _)| Some(*at) <= end) {
            self.answers.remove(&token);
        }
    }
}

/// Returns the token of a transaction, if it has one, and the hash of the rest, in which the order of an object's keys is all the
/// same.
fn token_and_hash(body: &[u8]) -> Option<(String, u64)> {
    let mut call: Value = serde_json::from_slice(body).ok()?;
    let Value::String(token) = call.as_object_mut()?.remove("ClientRequestToken")? else {
        return None;
    };
    let mut hasher = DefaultHasher::new();
    call.to_string().hash(&mut hasher);
    Some((token, hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSACTION: &[u8] = br#"{"TransactItems": [{"Put": {"a": 1, "b": 2}}], "ClientRequestToken": "t"}"#;

    #[test]
    fn repeated_transaction_is_committed_once() {
        let (transactions, mut commits) = (Transactions::default(), 0);
        let same = br#"{"ClientRequestToken": "t", "TransactItems": [{"Put": {"b": 2, "a": 1}}]}"#;
        for body in [TRANSACTION, same] {
            let answer = transactions.run(body, || {
                commits += 1;
                Ok(format!("answer {commits}"))
            });
            assert_eq!(answer.unwrap(), "answer 1");
        }
    }

    #[test]
    fn token_of_another_transaction_is_refused() {
        let transactions = Transactions::default();
        transactions.run(TRANSACTION, || Ok(String::new())).unwrap();
        let other = br#"{"TransactItems": [], "ClientRequestToken": "t"}"#;

        let error = transactions.run(other, || Ok(String::new())).unwrap_err();

        assert!(matches!(error, DynoxideError::IdempotentParameterMismatchException(_)));
    }

    #[test]
    fn failed_transaction_and_one_without_a_token_are_committed_again() {
        let transactions = Transactions::default();
        let failure = || Err(DynoxideError::InternalServerError(String::new()));
        assert!(transactions.run(TRANSACTION, failure).is_err());
        for body in [TRANSACTION, br#"{"TransactItems": []}"#, br#"{"TransactItems": []}"#] {
            let mut is_committed = false;
            let answer = transactions.run(body, || {
                is_committed = true;
                Ok(String::new())
            });
            assert!(answer.is_ok() && is_committed);
        }
    }

    #[test]
    fn old_answers_are_forgotten() {
        let transactions = Transactions::default();
        transactions.run(TRANSACTION, || Ok(String::new())).unwrap();
        let mut kept = transactions.0.lock().unwrap();
        let now = Instant::now();

        kept.forget_until(now.checked_sub(KEPT));
        assert_eq!((kept.answers.len(), kept.tokens.len()), (1, 1));
        kept.forget_until(Some(now));
        assert_eq!((kept.answers.len(), kept.tokens.len()), (0, 0));
    }
}
