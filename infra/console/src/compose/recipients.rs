//! The fields that tell who gets the message.

use std::collections::BTreeMap;

use client::api::audiences::{AudienceChoice, AudienceRef};
use client::api::broadcasts::MAX_CONTACT_IDS;
use serde_json::Value;
use shared::domain::audience::{Audience, AudienceName};
use shared::domain::ids::{BroadcastId, ContactId, PageId};

use super::faults::Faults;
use crate::fields::Fields;
use crate::show;

/// The column of a file with the ids.
const COLUMN: &str = "contact_id";
/// The characters between ids, or between the columns of a file.
const SEPARATORS: [char; 3] = [',', ';', '\t'];
/// The most ids that are named with their faults.
const MAX_NAMED: usize = 5;
/// The hours of a day.
const DAY: u32 = 24;

/// The way in which the recipients are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By what is known of them.
    Filters,
    /// By the name of a saved audience.
    Saved,
    /// By their ids.
    Ids,
}

impl Way {
    /// Returns the way that the form chooses.
    pub fn of(fields: &Fields) -> Self {
        match fields.get("to") {
            Some("saved") => Self::Saved,
            Some("ids") => Self::Ids,
            _ => Self::Filters,
        }
    }
}

/// The recipients of a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// Contacts by their ids.
    Ids(Vec<ContactId>),
    /// An audience.
    Audience(AudienceChoice),
}

impl Recipients {
    /// Reads them.
    pub fn read(fields: &Fields, faults: &mut Faults) -> Option<Self> {
        match Way::of(fields) {
            Way::Ids => ids(fields, faults).map(Self::Ids),
            Way::Filters => filters(fields, faults).map(|filters| Self::Audience(AudienceChoice::Filters(filters))),
            Way::Saved => {
                let Some(name) = fields.all("audience").last() else {
                    faults.add("audience", "choose one");
                    return None;
                };
                let name = faults.check("audience", AudienceName::parse(name))?;
                Some(Self::Audience(AudienceChoice::Saved(AudienceRef { name })))
            }
        }
    }
}

/// Reads the filters of an audience.
pub fn filters(fields: &Fields, faults: &mut Faults) -> Option<Audience> {
    let pages = fields.all("page").map(PageId::parse);
    let pages: Vec<_> = pages.map(|page| faults.check("page", page)).collect();
    let earlier = fields
        .all("not_sent_in")
        .map(|id| BroadcastId::parse(id).ok_or("has an id that is none"));
    let earlier: Vec<_> = earlier.map(|id| faults.check("not_sent_in", id)).collect();
    let audience = Audience {
        everybody: fields.is_ticked("everybody"),
        page_ids: pages.into_iter().flatten().collect(),
        tags_any: words(fields, "tags_any"),
        tags_all: words(fields, "tags_all"),
        tags_none: words(fields, "tags_none"),
        attributes: attributes(fields, faults),
        active_within_hours: hours(fields, ("active_within", "active_unit"), faults),
        inactive_for_hours: hours(fields, ("inactive_for", "inactive_unit"), faults),
        not_sent_in: earlier.into_iter().flatten().collect(),
        ..Audience::default()
    };
    if audience == Audience::default() {
        faults.add(
            "everybody",
            "choose a filter, or tick this one to send to every contact",
        );
        return None;
    }
    if audience.everybody
        && audience
            != (Audience {
                everybody: true,
                ..Audience::default()
            })
    {
        faults.add("everybody", "must be ticked alone: a filter leaves somebody out");
        return None;
    }
    Some(audience)
}

fn words(fields: &Fields, name: &str) -> Vec<String> {
    let words = fields.all(name).flat_map(|text| text.split(','));
    words
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn hours(fields: &Fields, (name, unit): (&'static str, &str), faults: &mut Faults) -> Option<u32> {
    let hours = fields.get(name)?;
    let of_unit = if fields.get(unit) == Some("hours") { 1 } else { DAY };
    let hours = hours.parse::<u32>().ok().and_then(|number| number.checked_mul(of_unit));
    faults.check(name, hours.ok_or("must be a whole number"))
}

/// Reads attributes, one a line, such as `city = Porto, Faro`.
fn attributes(fields: &Fields, faults: &mut Faults) -> BTreeMap<String, Vec<Value>> {
    let mut attributes: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let lines = fields.raw("attributes").lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty()) {
        let Some((name, values)) = line.split_once('=') else {
            faults.add("attributes", format!("`{line}` has no =, as in city = Porto"));
            continue;
        };
        let wanted = attributes.entry(name.trim().to_owned()).or_default();
        for value in values.split(',').map(str::trim).filter(|value| !value.is_empty()) {
            wanted.push(Value::from(value));
            // An import keeps the types of JSON, so that 5 may be stored as a number or as a text.
            let typed = serde_json::from_str::<Value>(value).ok();
            wanted.extend(typed.filter(|value| value.is_number() || value.is_boolean()));
        }
    }
    attributes
}

/// Reads ids: one a line, or separated by commas, semicolons or space; or the column `contact_id` of a CSV file.
fn ids(fields: &Fields, faults: &mut Faults) -> Option<Vec<ContactId>> {
    let text = fields.raw("ids").trim_start_matches('\u{feff}');
    let header = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let is_column = |cell: &str| cell.trim().trim_matches('"').eq_ignore_ascii_case(COLUMN);
    let of_file = SEPARATORS
        .into_iter()
        .find(|separator| header.split(*separator).any(is_column));
    let (ids, mut wrong) = match of_file {
        Some(separator) => of_csv(text, separator, is_column),
        None => of_words(text),
    };
    let number = ids.len() + wrong.len();
    if number == 0 {
        faults.add("ids", "there is none yet");
    } else if number > MAX_CONTACT_IDS {
        let (most, number) = (show::number(&(MAX_CONTACT_IDS as u64)), show::number(&(number as u64)));
        let way = "import the contacts with a tag, and choose the tag as a filter: that has no limit";
        faults.add(
            "ids",
            format!("there are {number}, and a broadcast takes {most} at most; {way}"),
        );
    } else if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(MAX_NAMED);
        wrong.truncate(MAX_NAMED);
        let more = if more > 0 {
            format!("; and {more} more")
        } else {
            String::new()
        };
        faults.add("ids", format!("{}{more}", wrong.join("; ")));
    } else {
        return Some(ids);
    }
    None
}

/// The ids that were read, and what is wrong with others.
type Found = (Vec<ContactId>, Vec<String>);

fn add(found: &mut Found, line: usize, id: &str) {
    match ContactId::parse(id) {
        Ok(id) => found.0.push(id),
        Err(fault) => found.1.push(format!("line {line}: `{id}` {fault}")),
    }
}

fn of_words(text: &str) -> Found {
    let mut found = Found::default();
    for (line, text) in (1..).zip(text.lines()) {
        let ids = text.split(|c: char| c.is_whitespace() || SEPARATORS.contains(&c));
        ids.filter(|id| !id.is_empty()).for_each(|id| add(&mut found, line, id));
    }
    found
}

fn of_csv(text: &str, separator: char, is_column: impl Fn(&str) -> bool) -> Found {
    let mut found = Found::default();
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(u8::try_from(separator).unwrap_or(b','))
        .flexible(true)
        .from_reader(text.as_bytes());
    let column = reader
        .headers()
        .ok()
        .and_then(|header| header.iter().position(is_column));
    for (row, record) in (1..).zip(reader.records()) {
        match record {
            Ok(record) if record.iter().all(|cell| cell.trim().is_empty()) => {}
            Ok(record) => {
                let line = record
                    .position()
                    .map_or(row, |at| usize::try_from(at.line()).unwrap_or(row));
                add(
                    &mut found,
                    line,
                    record.get(column.unwrap_or_default()).unwrap_or_default().trim(),
                );
            }
            Err(error) => found.1.push(format!("row {row}: {error}")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compose::faults::Fault;

    fn form(pairs: &[(&str, &str)]) -> Fields {
        let mut form = form_urlencoded::Serializer::new(String::new());
        Fields::parse(form.extend_pairs(pairs).finish().as_bytes())
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Recipients, Vec<Fault>> {
        let mut faults = Faults::default();
        let recipients = Recipients::read(&form(pairs), &mut faults);
        faults
            .or(recipients.unwrap_or(Recipients::Ids(Vec::new())))
            .map_err(|refusal| refusal.faults)
    }

    fn read_ids(text: &str) -> Vec<String> {
        match read(&[("to", "ids"), ("ids", text)]) {
            Ok(Recipients::Ids(ids)) => ids.iter().map(|id| id.as_str().to_owned()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_are_read_however_they_are_separated() {
        for text in ["1 2\r\n3", "1,2;3", "\u{feff}1\n\n 2 \n3\n", "1\t2\t3"] {
            assert_eq!(read_ids(text), ["1", "2", "3"], "{text:?}");
        }
    }

    #[test]
    fn ids_of_a_file_are_those_of_its_column() {
        let file = "name;contact_id\r\n\"Sá; Ana\";6001\r\nRui;6002\r\n;\r\n";

        assert_eq!(read_ids(file), ["6001", "6002"]);
    }

    #[test]
    fn wrong_ids_are_named_with_their_lines() {
        let faults = read(&[("to", "ids"), ("ids", "6001\n'6002\n6003")]).unwrap_err();

        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].message.starts_with("line 2: `'6002` begins with '"),
            "{faults:?}"
        );
    }

    #[test]
    fn filters_are_read_as_the_api_has_them() {
        let filters = [
            ("page", "page-1"),
            ("page", "page-2"),
            ("tags_any", "vip, new customers,"),
            ("active_within", "7"),
            ("active_unit", "days"),
            ("inactive_for", "36"),
            ("inactive_unit", "hours"),
            ("attributes", "city = Porto, Faro\r\nvisits=5\r\n"),
        ];

        let Ok(Recipients::Audience(audience)) = read(&filters) else {
            panic!("no audience");
        };

        assert_eq!(
            json!(audience),
            json!({
                "page_ids": ["page-1", "page-2"], "tags_any": ["vip", "new customers"], "active_within_hours": 168,
                "inactive_for_hours": 36, "attributes": {"city": ["Porto", "Faro"], "visits": ["5", 5]}
            })
        );
    }

    #[test]
    fn everyone_has_to_be_asked_for() {
        assert_eq!(read(&[]).unwrap_err()[0].field, "everybody");
        assert_eq!(
            read(&[("everybody", "on"), ("tags_any", "vip")]).unwrap_err()[0].field,
            "everybody"
        );
        assert!(read(&[("everybody", "on")]).is_ok());
    }
}
