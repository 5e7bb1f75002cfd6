//! A job's backlog: the next contact, the finished contacts, and how far the cursor may move. Pure, no I/O.
//!
//! The cursor moves over *contiguously finished* entries only. A contact that is requeued is handed out for a new segment at
//! the moment at which the cursor passes it, so that it has exactly one position at or after the cursor.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::domain::ids::ContactId;
use crate::domain::job::OutcomeCounts;
use crate::domain::reasons::{NotSent, Reasons};

/// The most contacts in one segment.
pub const SEGMENT_SIZE: usize = 1_000;

/// The most bytes of ids in one segment: DynamoDB takes items of at most 400 KB.
const SEGMENT_BYTES: usize = 300_000;

/// Splits contacts of a job into segments that are due at once, numbered from `first`.
pub fn split_into_segments(contacts: impl IntoIterator<Item = ContactId>, first: u32) -> Vec<Segment> {
    let (mut segments, mut bytes) = (Vec::<Segment>::new(), usize::MAX);
    for contact_id in contacts {
        bytes = bytes.saturating_add(contact_id.as_str().len());
        match segments.last_mut() {
            Some(last) if last.contacts.len() < SEGMENT_SIZE && bytes <= SEGMENT_BYTES => {
                last.contacts.push(contact_id);
            }
            _ => {
                bytes = contact_id.as_str().len();
                segments.push(Segment {
                    number: first + u32::try_from(segments.len()).unwrap_or(u32::MAX),
                    contacts: vec![contact_id],
                    due_at: None,
                });
            }
        }
    }
    segments
}

/// A numbered, immutable list of contacts of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The index among the job's segments, from 0.
    pub number: u32,
    /// The contacts, in order.
    pub contacts: Vec<ContactId>,
    /// The time from which the first of them is due; `None` for the segments that a job was accepted with, which are due at once.
    pub due_at: Option<Timestamp>,
}

/// A position in the backlog, unique within the job: segment × 1,000 + index in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

/// An entry of the backlog: a contact at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The position.
    pub position: Position,
    /// The contact.
    pub contact_id: ContactId,
    /// `true` if the contact was in the backlog before: the job's counters hold it as `waiting`.
    pub requeued: bool,
}

/// The end of the work on an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The delivery is `sent`; the cursor counts it.
    Sent,
    /// The delivery is `failed`, for a reason with this code; the cursor counts it.
    Failed(String),
    /// The delivery is `skipped`, for a reason with this code; the cursor counts it.
    Skipped(String),
    /// The row is marked `counted`: the job's counters hold its outcome already.
    Counted,
    /// The contact joins the end of the backlog, due at this time.
    Requeued(Timestamp),
}

/// The changes that a checkpoint writes when the cursor moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The new cursor.
    pub cursor: u64,
    /// The number of `sent` contacts that the cursor passes.
    pub sent: u64,
    /// The number of `failed` contacts that the cursor passes.
    pub failed: u64,
    /// The number of `skipped` contacts that the cursor passes.
    pub skipped: u64,
    /// The change of `waiting`: contacts that are requeued for the first time, less requeued contacts that are settled.
    pub waiting: i64,
    /// The contacts for a new segment, with their due times; as many as fit into one.
    pub requeued: Vec<(ContactId, Timestamp)>,
    /// The `failed` and `skipped` contacts that the cursor passes, by reason.
    pub reasons: Reasons,
}

impl Progress {
    /// Returns the outcomes before the cursor after this progress.
    pub fn add_to(&self, outcomes: &OutcomeCounts) -> OutcomeCounts {
        OutcomeCounts {
            waiting: outcomes.waiting.saturating_add_signed(self.waiting),
            sent: outcomes.sent + self.sent,
            failed: outcomes.failed + self.failed,
            skipped: outcomes.skipped + self.skipped,
            in_doubt: outcomes.in_doubt,
        }
    }
}

/// The next step that the backlog offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Work on this entry.
    Contact(Entry),
    /// Load this segment, then ask again.
    Load(u32),
    /// Wait for the entries in flight: they may be requeued.
    AfterInFlight,
    /// Wait until this time, at which the earliest of the remaining contacts is due.
    NotBefore(Timestamp),
    /// Nothing is left to do.
    Exhausted,
}

/// The part of a job's backlog from the cursor on.
#[derive(Debug)]
pub struct Backlog {
    first_segments: u32,
    segments: u32,
    cursor: u64,
    next: u64,
    loaded: VecDeque<Segment>,
    /// One slot per entry from the cursor to `next`.
    window: VecDeque<Slot>,
}

/// An entry in flight or finished, which the cursor has not passed.
#[derive(Debug)]
struct Slot {
    entry: Entry,
    finish: Option<Finish>,
}

impl Backlog {
    /// Returns the backlog of a job from its cursor on, as the job was claimed.
    pub fn new(first_segments: u32, segments: u32, cursor: u64) -> Self {
        Self {
            first_segments,
            segments,
            cursor,
            next: cursor,
            loaded: VecDeque::new(),
            window: VecDeque::new(),
        }
    }

    /// Adds a segment that [`Next::Load`] asked for.
    pub fn load(&mut self, segment: Segment) {
        self.loaded.push_back(segment);
    }

    /// Adds a segment that a checkpoint has appended to the job.
    pub fn append(&mut self, segment: Segment) {
        self.segments = segment.number + 1;
        if self.loaded.back().is_some_and(|last| last.number + 1 == segment.number) {
            self.loaded.push_back(segment);
        }
    }

    /// Returns the number of segments.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Returns the cursor.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Returns `true` if the cursor has passed every contact.
    pub fn is_finished(&self) -> bool {
        segment_of(self.cursor) >= self.segments
    }

    /// Returns the next step. An entry that is handed out counts as in flight until [`Backlog::finish`].
    pub fn next(&mut self, now: Timestamp) -> Next {
        let number = segment_of(self.next);
        if number >= self.segments {
            return if self.window.is_empty() {
                Next::Exhausted
            } else {
                Next::AfterInFlight
            };
        }
        let index = index_in_segment(self.next);
        let Some(segment) = self.loaded.iter().find(|segment| segment.number == number) else {
            return Next::Load(number);
        };
        if index == 0 && segment.due_at.is_some_and(|due| due > now) {
            return self.next_if_segment_is_not_due(now);
        }
        let Some(contact_id) = segment.contacts.get(index) else {
            self.next = start_of(number + 1);
            return self.next(now);
        };
        let entry = Entry {
            position: Position(self.next),
            contact_id: contact_id.clone(),
            requeued: number >= self.first_segments,
        };
        self.next = if index + 1 == segment.contacts.len() {
            start_of(number + 1)
        } else {
            self.next + 1
        };
        self.window.push_back(Slot {
            entry: entry.clone(),
            finish: None,
        });
        Next::Contact(entry)
    }

    /// Returns the contacts that [`Backlog::next`] offers next, as far as they are in the same segment and it is loaded.
    pub fn upcoming(&self, now: Timestamp) -> impl Iterator<Item = &ContactId> {
        let (number, index) = (segment_of(self.next), index_in_segment(self.next));
        let segment = self.loaded.iter().find(|segment| segment.number == number);
        let is_due = |segment: &&Segment| index > 0 || segment.due_at.is_none_or(|due| due <= now);
        let contacts = segment.filter(is_due).map(|segment| segment.contacts.iter());
        contacts.into_iter().flatten().skip(index)
    }

    /// Returns the number of the segment of the next contact, or of a contact `within` so many after it, if it is not loaded.
    pub fn not_loaded(&self, within: usize) -> Option<u32> {
        let number = segment_of(self.next);
        let loaded = |number| self.loaded.iter().find(|segment| segment.number == number);
        let missing = match loaded(number) {
            None => number,
            Some(segment) if segment.contacts.len() <= index_in_segment(self.next) + within => number + 1,
            Some(_) => return None,
        };
        (missing < self.segments && loaded(missing).is_none()).then_some(missing)
    }

    /// Returns the next step when the next segment is not due: a later segment may be due earlier; if none is due, the step is
    /// to wait for the earliest.
    fn next_if_segment_is_not_due(&mut self, now: Timestamp) -> Next {
        if !self.window.is_empty() {
            return Next::AfterInFlight;
        }
        let mut earliest: Option<Timestamp> = None;
        for number in segment_of(self.next)..self.segments {
            let Some(segment) = self.loaded.iter().find(|segment| segment.number == number) else {
                return Next::Load(number);
            };
            let due = segment.due_at.unwrap_or(now);
            earliest = Some(earliest.map_or(due, |earliest| earliest.min(due)));
        }
        match earliest {
            Some(due) if due > now => Next::NotBefore(due),
            _ => self.enter_segment_early(),
        }
    }

    /// Enters a segment that is not due, because a segment behind it is: the contacts that are not due are requeued.
    fn enter_segment_early(&mut self) -> Next {
        let number = segment_of(self.next);
        if let Some(segment) = self.loaded.iter_mut().find(|segment| segment.number == number) {
            segment.due_at = None;
        }
        self.next(Timestamp::MIN)
    }

    /// Records the end of the work on an entry that [`Backlog::next`] handed out.
    pub fn finish(&mut self, position: Position, finish: Finish) {
        let found = self.window.binary_search_by_key(&position, |slot| slot.entry.position);
        if let Some(slot) = found.ok().and_then(|index| self.window.get_mut(index)) {
            slot.finish = Some(finish);
        }
    }

    /// Returns how far the cursor can move, and the changes to the job. The backlog does not change until
    /// [`Backlog::advance`].
    pub fn progress(&self) -> Progress {
        let mut progress = Progress {
            cursor: self.cursor,
            ..Progress::default()
        };
        let mut bytes = 0;
        for (index, slot) in self.window.iter().enumerate() {
            let Some(finish) = &slot.finish else { break };
            match finish {
                Finish::Requeued(due) => {
                    bytes += slot.entry.contact_id.as_str().len();
                    if progress.requeued.len() == SEGMENT_SIZE || bytes > SEGMENT_BYTES {
                        break;
                    }
                    progress.requeued.push((slot.entry.contact_id.clone(), *due));
                }
                Finish::Sent => progress.sent += 1,
                Finish::Failed(code) => {
                    progress.failed += 1;
                    progress.reasons.add(NotSent::Failed, code, 1);
                }
                Finish::Skipped(code) => {
                    progress.skipped += 1;
                    progress.reasons.add(NotSent::Skipped, code, 1);
                }
                Finish::Counted => {}
            }
            progress.waiting += match (finish, slot.entry.requeued) {
                (Finish::Requeued(_), false) => 1,
                (Finish::Sent | Finish::Failed(_) | Finish::Skipped(_), true) => -1,
                (Finish::Requeued(_), true) | (Finish::Counted, _) | (_, false) => 0,
            };
            progress.cursor = self
                .window
                .get(index + 1)
                .map_or(self.next, |slot| slot.entry.position.0);
        }
        progress
    }

    /// Moves the cursor as a [`Progress`] says that has been written.
    pub fn advance(&mut self, progress: &Progress) {
        self.cursor = progress.cursor;
        while self
            .window
            .front()
            .is_some_and(|slot| slot.entry.position.0 < self.cursor)
        {
            self.window.pop_front();
        }
        let segment = segment_of(self.cursor);
        while self.loaded.front().is_some_and(|loaded| loaded.number < segment) {
            self.loaded.pop_front();
        }
    }
}

fn segment_of(position: u64) -> u32 {
    u32::try_from(position / SEGMENT_SIZE as u64).unwrap_or(u32::MAX)
}

fn index_in_segment(position: u64) -> usize {
    usize::try_from(position % SEGMENT_SIZE as u64).unwrap_or(usize::MAX)
}

fn start_of(segment: u32) -> u64 {
    u64::from(segment) * SEGMENT_SIZE as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn contacts(range: std::ops::Range<usize>) -> Vec<ContactId> {
        range.map(|n| ContactId::parse(&n.to_string()).unwrap()).collect()
    }

    fn segment(number: u32, range: std::ops::Range<usize>, due_at: Option<Timestamp>) -> Segment {
        Segment {
            number,
            contacts: contacts(range),
            due_at,
        }
    }

    fn backlog_of(n: usize) -> Backlog {
        let mut backlog = Backlog::new(1, 1, 0);
        assert_eq!(backlog.next(at(0)), Next::Load(0));
        backlog.load(segment(0, 0..n, None));
        backlog
    }

    fn take(backlog: &mut Backlog) -> Entry {
        match backlog.next(at(0)) {
            Next::Contact(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn segment_holds_a_thousand_contacts_and_fits_into_an_item() {
        let short = split_into_segments(contacts(0..2_500), 0);
        let long: Vec<_> = (0..1_000)
            .map(|n| ContactId::parse(&format!("{n:04}{}", "🙂".repeat(124))).unwrap())
            .collect();
        let long = split_into_segments(long, 0);

        let lengths =
            |segments: &[Segment]| -> Vec<_> { segments.iter().map(|segment| segment.contacts.len()).collect() };
        assert_eq!(lengths(&short), [1_000, 1_000, 500]);
        assert_eq!(lengths(&long), [600, 400]);
        assert_eq!(long[1].number, 1);
    }

    #[test]
    fn next_segment_is_asked_for_before_its_first_contact_comes() {
        let mut backlog = Backlog::new(2, 2, 0);
        assert_eq!(backlog.not_loaded(2), Some(0));
        backlog.load(segment(0, 0..4, None));
        assert_eq!(backlog.not_loaded(3), None);
        take(&mut backlog);
        assert_eq!((backlog.not_loaded(3), backlog.not_loaded(0)), (Some(1), None));
        backlog.load(segment(1, 4..8, None));
        assert_eq!(backlog.not_loaded(3), None);
        for _ in 0..4 {
            take(&mut backlog);
        }
        assert_eq!(backlog.not_loaded(1_000), None);
    }

    #[test]
    fn cursor_waits_for_the_slowest_entry() {
        let mut backlog = backlog_of(3);
        let entries = [take(&mut backlog), take(&mut backlog), take(&mut backlog)];
        backlog.finish(entries[1].position, Finish::Sent);
        backlog.finish(entries[2].position, Finish::Failed("551".to_owned()));
        assert_eq!(backlog.progress().cursor, 0);

        backlog.finish(entries[0].position, Finish::Sent);

        let progress = backlog.progress();
        assert_eq!((progress.cursor, progress.sent, progress.failed), (1_000, 2, 1));
        backlog.advance(&progress);
        assert_eq!(backlog.next(at(0)), Next::Exhausted);
    }

    #[test]
    fn requeued_contact_is_handed_out_when_the_cursor_passes() {
        let mut backlog = backlog_of(2);
        let (first, second) = (take(&mut backlog), take(&mut backlog));
        backlog.finish(second.position, Finish::Requeued(at(9)));
        assert_eq!(backlog.progress().requeued, []);
        backlog.finish(first.position, Finish::Sent);

        let progress = backlog.progress();
        assert_eq!(progress.requeued, [(second.contact_id.clone(), at(9))]);
        assert_eq!(progress.waiting, 1);
        backlog.append(Segment {
            number: 1,
            contacts: vec![second.contact_id.clone()],
            due_at: Some(at(9)),
        });
        backlog.advance(&progress);

        assert_eq!(backlog.next(at(8)), Next::NotBefore(at(9)));
        let Next::Contact(again) = backlog.next(at(9)) else {
            panic!()
        };
        assert!(again.requeued);
        backlog.finish(again.position, Finish::Sent);
        assert_eq!((backlog.progress().waiting, backlog.progress().sent), (-1, 1));
    }

    #[test]
    fn later_segment_that_is_due_is_reached() {
        let mut backlog = Backlog::new(1, 3, 1_000);
        assert_eq!(backlog.next(at(5)), Next::Load(1));
        backlog.load(segment(1, 0..1, Some(at(9))));
        assert_eq!(backlog.next(at(5)), Next::Load(2));
        backlog.load(segment(2, 1..2, Some(at(5))));

        let Next::Contact(not_due) = backlog.next(at(5)) else {
            panic!()
        };
        let Next::Contact(due) = backlog.next(at(5)) else {
            panic!()
        };
        assert_eq!(
            (not_due.contact_id, due.contact_id),
            (contacts(0..1).remove(0), contacts(1..2).remove(0))
        );
    }

    proptest! {
        /// However sends end, and in whatever order, each contact is counted once or has one position in the backlog.
        #[test]
        fn each_contact_is_counted_once_or_left_once(n in 1_usize..50, ends in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4), 1..400)) {
            let mut backlog = backlog_of(n);
            let mut outcomes = OutcomeCounts::default();
            let (mut in_flight, mut counted) = (Vec::new(), 0);
            for (which, end) in ends {
                match backlog.next(at(0)) {
                    Next::Contact(entry) => in_flight.push(entry),
                    Next::Load(_) | Next::AfterInFlight | Next::NotBefore(_) | Next::Exhausted => {}
                }
                if in_flight.is_empty() { break; }
                let entry = in_flight.swap_remove(which.index(in_flight.len()));
                let finish = match end {
                    0 => Finish::Sent,
                    1 => Finish::Requeued(at(0)),
                    2 => Finish::Failed("551".to_owned()),
                    _ => { counted += 1; outcomes.waiting -= u64::from(entry.requeued); Finish::Counted }
                };
                backlog.finish(entry.position, finish);
                let progress = backlog.progress();
                outcomes = progress.add_to(&outcomes);
                if !progress.requeued.is_empty() {
                    backlog.append(Segment {
                        number: backlog.segments(),
                        contacts: progress.requeued.iter().map(|(id, _)| id.clone()).collect(),
                        due_at: None,
                    });
                }
                backlog.advance(&progress);
            }
            let mut left = 0;
            let finished_behind_the_cursor = backlog.window.iter().filter(|slot| {
                matches!(slot.finish, Some(Finish::Counted))
            }).count() as u64;
            left += backlog.window.len() as u64 - finished_behind_the_cursor;
            while let Next::Contact(_) = backlog.next(at(0)) { left += 1; }
            prop_assert_eq!(outcomes.sent + outcomes.failed + counted + left, n as u64);
        }
    }
}
