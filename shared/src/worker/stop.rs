//! The reasons for which a run starts nothing more, and their order.

use jiff::Timestamp;

use crate::store;

/// A reason to start nothing more in this run. A later one in this list prevails over an earlier one.
#[derive(Debug)]
pub enum Stop {
    /// The invocation ends, or another worker holds the Page.
    Yield,
    /// The Page pauses until this time.
    Pause(Timestamp),
    /// The quiet hours of the broadcast last until this time.
    Quiet(Timestamp),
    /// Sending is switched off.
    SwitchedOff,
    /// A command to stop has come: the hand-over obeys the one that stands by then.
    Commanded,
    /// Messenger refuses the Page's access token: every send would fail, unless the Page has another token by now.
    TokenRefused(String),
    /// Every send would fail, for this reason.
    Halt(String),
    /// A table did not answer, so that the right to go on is not known.
    Unsettled(store::Error),
    /// Another worker has claimed the job.
    Overtaken,
}

impl Stop {
    fn rank(&self) -> u8 {
        match self {
            Self::Yield => 0,
            Self::Pause(_) => 1,
            Self::Quiet(_) => 2,
            Self::SwitchedOff => 3,
            Self::Commanded => 4,
            Self::TokenRefused(_) => 5,
            Self::Halt(_) => 6,
            Self::Unsettled(_) => 7,
            Self::Overtaken => 8,
        }
    }

    /// Returns `true` if this reason replaces the standing one; of two pauses the longer prevails.
    pub fn prevails_over(&self, standing: &Self) -> bool {
        match (self, standing) {
            (Self::Pause(until), Self::Pause(standing)) => until > standing,
            _ => self.rank() > standing.rank(),
        }
    }

    /// Returns `true` if the results of sends were the reason.
    pub fn is_due_to_sends(&self) -> bool {
        matches!(self, Self::Pause(_) | Self::TokenRefused(_) | Self::Halt(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_pause_and_higher_rank_prevail() {
        let pause = |second| Stop::Pause(Timestamp::from_second(second).unwrap());
        let halt = || Stop::Halt(String::new());
        assert!(pause(2).prevails_over(&pause(1)));
        assert!(!pause(1).prevails_over(&pause(2)));
        assert!(halt().prevails_over(&pause(1)) && Stop::Overtaken.prevails_over(&halt()));
        assert!(!Stop::Yield.prevails_over(&pause(1)));
    }
}
