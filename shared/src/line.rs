//! A job's line: which contact is next, which are finished, and how far the cursor may move. Pure, no I/O.
//!
//! The cursor moves over *contiguously finished* entries only; a contact that must stand in line again is handed out for
//! a new segment at the moment the cursor passes it, so it stands at exactly one place at or after the cursor.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::ids::ContactId;
use crate::job::Outcomes;

/// The most contacts in one segment.
pub const SEGMENT_SIZE: usize = 1_000;

/// The most bytes of ids in one segment: an item of DynamoDB takes 400 KB.
const SEGMENT_BYTES: usize = 300_000;

/// Cuts a line into segments.
pub fn cut(contacts: &[ContactId]) -> Vec<Segment> {
    let (mut segments, mut bytes) = (Vec::<Segment>::new(), usize::MAX);
    for contact_id in contacts {
        bytes = bytes.saturating_add(contact_id.as_str().len());
        match segments.last_mut() {
            Some(last) if last.contacts.len() < SEGMENT_SIZE && bytes <= SEGMENT_BYTES => {
                last.contacts.push(contact_id.clone());
            }
            _ => {
                bytes = contact_id.as_str().len();
                segments.push(Segment {
                    number: u32::try_from(segments.len()).unwrap_or(u32::MAX),
                    contacts: vec![contact_id.clone()],
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
    /// Its place among the job's segments, from 0.
    pub number: u32,
    /// Whom it holds, in order.
    pub contacts: Vec<ContactId>,
    /// When the first of them is due; segments that a job was accepted with are due at once.
    pub due_at: Option<Timestamp>,
}

/// A place in line, unique within the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

/// A contact to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub place: Place,
    /// Who it is.
    pub contact_id: ContactId,
    /// Stood in line before: the job's counters hold it as `waiting`.
    pub again: bool,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Settled; the cursor counts it.
    Sent,
    /// Settled; the cursor counts it.
    Failed,
    /// Settled; the cursor counts it.
    Skipped,
    /// Its row is `counted`: the job's counters hold its outcome already.
    Counted,
    /// Stands in line again, due at this time.
    Again(Timestamp),
}

/// What a checkpoint has to write when the cursor moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The new cursor.
    pub cursor: u64,
    /// Contacts that the cursor passes, by outcome.
    pub sent: u64,
    /// See `sent`.
    pub failed: u64,
    /// See `sent`.
    pub skipped: u64,
    /// How `waiting` changes: contacts that join the line's end, less those that leave their second place.
    pub waiting: i64,
    /// Contacts for a new segment, with their due times; as many as fit into one.
    pub again: Vec<(ContactId, Timestamp)>,
}

impl Progress {
    /// Adds itself to the outcomes before the cursor.
    pub fn add_to(&self, outcomes: &Outcomes) -> Outcomes {
        Outcomes {
            waiting: outcomes.waiting.saturating_add_signed(self.waiting),
            sent: outcomes.sent + self.sent,
            failed: outcomes.failed + self.failed,
            skipped: outcomes.skipped + self.skipped,
            in_doubt: outcomes.in_doubt,
        }
    }
}

/// What the line offers next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This contact.
    Contact(Entry),
    /// Load this segment first.
    Load(u32),
    /// Nothing more until what is under way is finished: it may join the line again.
    AfterTheRest,
    /// All that is left is due at this time.
    NotBefore(Timestamp),
    /// Nothing is left.
    Nothing,
}

/// The part of a job's line from the cursor on.
#[derive(Debug)]
pub struct Line {
    first_segments: u32,
    segments: u32,
    cursor: u64,
    next: u64,
    loaded: VecDeque<Segment>,
    /// One per entry from the cursor to `next`.
    window: VecDeque<Slot>,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    finish: Option<Finish>,
}

impl Line {
    /// The line of a job as it was claimed.
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

    /// Takes in a segment that [`Next::Load`] asked for.
    pub fn load(&mut self, segment: Segment) {
        self.loaded.push_back(segment);
    }

    /// Takes in a segment that a checkpoint appended.
    pub fn append(&mut self, segment: Segment) {
        self.segments = segment.number + 1;
        if self
            .loaded
            .back()
            .is_some_and(|last| last.number + 1 == segment.number)
        {
            self.loaded.push_back(segment);
        }
    }

    /// How many segments the line has.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// The cursor.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whether the cursor has passed everybody.
    pub fn is_finished(&self) -> bool {
        segment_of(self.cursor) >= self.segments
    }

    /// What to work on next; the entry given out counts as under way.
    pub fn next(&mut self, now: Timestamp) -> Next {
        let number = segment_of(self.next);
        if number >= self.segments {
            return if self.window.is_empty() {
                Next::Nothing
            } else {
                Next::AfterTheRest
            };
        }
        let place = place_in_segment(self.next);
        let Some(segment) = self.loaded.iter().find(|segment| segment.number == number) else {
            return Next::Load(number);
        };
        if place == 0 && segment.due_at.is_some_and(|due| due > now) {
            return self.next_when_a_segment_is_not_due(now);
        }
        let Some(contact_id) = segment.contacts.get(place) else {
            self.next = start_of(number + 1);
            return self.next(now);
        };
        let entry = Entry {
            place: Place(self.next),
            contact_id: contact_id.clone(),
            again: number >= self.first_segments,
        };
        self.next = if place + 1 == segment.contacts.len() {
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

    /// A later segment may be due earlier; if none is, the earliest time is the answer.
    fn next_when_a_segment_is_not_due(&mut self, now: Timestamp) -> Next {
        if !self.window.is_empty() {
            return Next::AfterTheRest;
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
            _ => self.next_in_spite_of_its_time(),
        }
    }

    /// Walks into a segment that is not due, because one behind it is: who is not due stands in line again.
    fn next_in_spite_of_its_time(&mut self) -> Next {
        let number = segment_of(self.next);
        if let Some(segment) = self
            .loaded
            .iter_mut()
            .find(|segment| segment.number == number)
        {
            segment.due_at = None;
        }
        self.next(Timestamp::MIN)
    }

    /// Notes what became of an entry that [`Line::next`] gave out.
    pub fn finish(&mut self, place: Place, finish: Finish) {
        let found = self
            .window
            .binary_search_by_key(&place, |slot| slot.entry.place);
        if let Some(slot) = found.ok().and_then(|index| self.window.get_mut(index)) {
            slot.finish = Some(finish);
        }
    }

    /// How far the cursor can move, and what that means for the job. Nothing changes until [`Line::advance`].
    pub fn progress(&self) -> Progress {
        let mut progress = Progress {
            cursor: self.cursor,
            ..Progress::default()
        };
        let mut bytes = 0;
        for (index, slot) in self.window.iter().enumerate() {
            let Some(finish) = &slot.finish else { break };
            match finish {
                Finish::Again(due) => {
                    bytes += slot.entry.contact_id.as_str().len();
                    if progress.again.len() == SEGMENT_SIZE || bytes > SEGMENT_BYTES {
                        break;
                    }
                    progress.again.push((slot.entry.contact_id.clone(), *due));
                }
                Finish::Sent => progress.sent += 1,
                Finish::Failed => progress.failed += 1,
                Finish::Skipped => progress.skipped += 1,
                Finish::Counted => {}
            }
            progress.waiting += match (finish, slot.entry.again) {
                (Finish::Again(_), false) => 1,
                (Finish::Sent | Finish::Failed | Finish::Skipped, true) => -1,
                (Finish::Again(_), true) | (Finish::Counted, _) | (_, false) => 0,
            };
            progress.cursor = self
                .window
                .get(index + 1)
                .map_or(self.next, |slot| slot.entry.place.0);
        }
        progress
    }

    /// Moves the cursor to where a written [`Progress`] says.
    pub fn advance(&mut self, progress: &Progress) {
        self.cursor = progress.cursor;
        while self
            .window
            .front()
            .is_some_and(|slot| slot.entry.place.0 < self.cursor)
        {
            self.window.pop_front();
        }
        let segment = segment_of(self.cursor);
        while self
            .loaded
            .front()
            .is_some_and(|loaded| loaded.number < segment)
        {
            self.loaded.pop_front();
        }
    }
}

fn segment_of(place: u64) -> u32 {
    u32::try_from(place / SEGMENT_SIZE as u64).unwrap_or(u32::MAX)
}

fn place_in_segment(place: u64) -> usize {
    usize::try_from(place % SEGMENT_SIZE as u64).unwrap_or(usize::MAX)
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
        range
            .map(|n| ContactId::parse(&n.to_string()).unwrap())
            .collect()
    }

    fn segment(number: u32, range: std::ops::Range<usize>, due_at: Option<Timestamp>) -> Segment {
        Segment {
            number,
            contacts: contacts(range),
            due_at,
        }
    }

    fn line_of(n: usize) -> Line {
        let mut line = Line::new(1, 1, 0);
        assert_eq!(line.next(at(0)), Next::Load(0));
        line.load(segment(0, 0..n, None));
        line
    }

    fn take(line: &mut Line) -> Entry {
        match line.next(at(0)) {
            Next::Contact(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_segment_holds_a_thousand_contacts_and_fits_into_an_item() {
        let short = cut(&contacts(0..2_500));
        let long: Vec<_> = (0..1_000)
            .map(|n| ContactId::parse(&format!("{n:04}{}", "🙂".repeat(124))).unwrap())
            .collect();
        let long = cut(&long);

        let lengths = |segments: &[Segment]| -> Vec<_> {
            segments
                .iter()
                .map(|segment| segment.contacts.len())
                .collect()
        };
        assert_eq!(lengths(&short), [1_000, 1_000, 500]);
        assert_eq!(lengths(&long), [600, 400]);
        assert_eq!(long[1].number, 1);
    }

    #[test]
    fn the_cursor_waits_for_the_slowest() {
        let mut line = line_of(3);
        let entries = [take(&mut line), take(&mut line), take(&mut line)];
        line.finish(entries[1].place, Finish::Sent);
        line.finish(entries[2].place, Finish::Failed);
        assert_eq!(line.progress().cursor, 0);

        line.finish(entries[0].place, Finish::Sent);

        let progress = line.progress();
        assert_eq!(
            (progress.cursor, progress.sent, progress.failed),
            (1_000, 2, 1)
        );
        line.advance(&progress);
        assert_eq!(line.next(at(0)), Next::Nothing);
    }

    #[test]
    fn who_stands_in_line_again_is_handed_out_when_the_cursor_passes() {
        let mut line = line_of(2);
        let (first, second) = (take(&mut line), take(&mut line));
        line.finish(second.place, Finish::Again(at(9)));
        assert_eq!(line.progress().again, []);
        line.finish(first.place, Finish::Sent);

        let progress = line.progress();
        assert_eq!(progress.again, [(second.contact_id.clone(), at(9))]);
        assert_eq!(progress.waiting, 1);
        line.append(Segment {
            number: 1,
            contacts: vec![second.contact_id.clone()],
            due_at: Some(at(9)),
        });
        line.advance(&progress);

        assert_eq!(line.next(at(8)), Next::NotBefore(at(9)));
        let Next::Contact(again) = line.next(at(9)) else {
            panic!()
        };
        assert!(again.again);
        line.finish(again.place, Finish::Sent);
        assert_eq!((line.progress().waiting, line.progress().sent), (-1, 1));
    }

    #[test]
    fn a_later_segment_that_is_due_is_reached() {
        let mut line = Line::new(1, 3, 1_000);
        assert_eq!(line.next(at(5)), Next::Load(1));
        line.load(segment(1, 0..1, Some(at(9))));
        assert_eq!(line.next(at(5)), Next::Load(2));
        line.load(segment(2, 1..2, Some(at(5))));

        let Next::Contact(not_due) = line.next(at(5)) else {
            panic!()
        };
        let Next::Contact(due) = line.next(at(5)) else {
            panic!()
        };
        assert_eq!(
            (not_due.contact_id, due.contact_id),
            (contacts(0..1).remove(0), contacts(1..2).remove(0))
        );
    }

    proptest! {
        /// However sends end, and in whatever order, each contact is counted once or stands in line once.
        #[test]
        fn nobody_is_counted_twice_or_lost(n in 1_usize..50, ends in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4), 1..400)) {
            let mut line = line_of(n);
            let mut outcomes = Outcomes::default();
            let (mut under_way, mut counted) = (Vec::new(), 0);
            for (which, end) in ends {
                match line.next(at(0)) {
                    Next::Contact(entry) => under_way.push(entry),
                    Next::Load(_) | Next::AfterTheRest | Next::NotBefore(_) | Next::Nothing => {}
                }
                if under_way.is_empty() { break; }
                let entry = under_way.swap_remove(which.index(under_way.len()));
                let finish = match end {
                    0 => Finish::Sent,
                    1 => Finish::Again(at(0)),
                    2 => Finish::Failed,
                    _ => { counted += 1; outcomes.waiting -= u64::from(entry.again); Finish::Counted }
                };
                line.finish(entry.place, finish);
                let progress = line.progress();
                outcomes = progress.add_to(&outcomes);
                if !progress.again.is_empty() {
                    line.append(Segment {
                        number: line.segments(),
                        contacts: progress.again.iter().map(|(id, _)| id.clone()).collect(),
                        due_at: None,
                    });
                }
                line.advance(&progress);
            }
            let mut left = 0;
            let finished_behind_the_cursor = line.window.iter().filter(|slot| {
                matches!(slot.finish, Some(Finish::Counted))
            }).count() as u64;
            left += line.window.len() as u64 - finished_behind_the_cursor;
            while let Next::Contact(_) = line.next(at(0)) { left += 1; }
            prop_assert_eq!(outcomes.sent + outcomes.failed + counted + left, n as u64);
        }
    }
}
