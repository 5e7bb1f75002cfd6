//! An audience in a request: its filters, checked, and the saved one that a name stands for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;
use shared::app::App;
use shared::domain::audience::{Audience, AudienceName};
use shared::domain::ids::{BroadcastId, Pages};

use crate::api::audiences::{AudienceChoice, AudienceRef};
use crate::caller::Caller;
use crate::contact_values::{self as values, ATTRIBUTE_NAME, is_attribute_name};
use crate::fields::{Faults, Fields};
use crate::import::page;
use crate::numbers::ChangedNumbers;
use crate::problem::Problem;

/// The maximum number of Pages: each is a job of a broadcast.
const MAX_PAGES: usize = 90;
/// The maximum number of tags, or of values of an attribute, in one filter.
const MAX_VALUES: usize = 100;
/// The maximum number of attributes.
const MAX_ATTRIBUTES: usize = 20;
/// The maximum number of broadcasts in one filter: the deliveries of each are read.
const MAX_BROADCASTS: usize = 20;
/// The maximum number of hours, ten years.
const MAX_HOURS: u64 = 87_600;
/// The maximum size of an audience in bytes of JSON. Broadcasts store a copy beside the message.
const MAX_BYTES: usize = 32_000;

const TAGS: [&str; 3] = ["tags_any", "tags_all", "tags_none"];
const HOURS: [&str; 2] = ["active_within_hours", "inactive_for_hours"];
const BROADCASTS: [&str; 2] = ["sent_in", "not_sent_in"];
const OTHERS: [&str; 4] = ["everybody", "page_id", "page_ids", "attributes"];

/// Reads an audience at this location of a body, which names only Pages that the caller may use, or the name of a saved one.
pub fn read_choice(body: &Value, location: &str, pages: &Pages, faults: &Faults) -> Option<AudienceChoice> {
    if body.get("name").is_none_or(Value::is_null) {
        return read(body, location, pages, faults).map(AudienceChoice::Filters);
    }
    let fields = Fields::of(body, location, &known(&["name"]), faults)?;
    for name in known(&[]) {
        if fields.optional(name).is_some() {
            fields.fault(
                name,
                "must not be there with the name of a saved audience, which has its own filters",
            );
        }
    }
    let name = fields.parsed("name", fields.optional("name"), |name| Ok(AudienceName::parse(name)?));
    name.map(|name| AudienceChoice::Saved(AudienceRef { name }))
}

/// Reads the filters of an audience at this location of a body.
pub fn read(body: &Value, location: &str, pages: &Pages, faults: &Faults) -> Option<Audience> {
    let fields = Fields::of(body, location, &known(&[]), faults)?;
    let filters = Filters {
        fields: &fields,
        faults,
        location,
    };
    let given: Vec<_> = known(&[])
        .into_iter()
        .filter(|name| fields.optional(name).is_some())
        .collect();
    match (fields.optional("everybody"), given.len()) {
        (None, 0) => faults.add(
            location,
            "must have a filter; for all contacts say {\"everybody\": true}",
        ),
        (None | Some(Value::Bool(true)), 1) | (None, _) => {}
        (Some(Value::Bool(true)), _) => fields.fault("everybody", "must be there alone: a filter leaves somebody out"),
        (Some(_), _) => fields.fault("everybody", "must be true, or absent"),
    }
    if body.to_string().len() > MAX_BYTES {
        faults.add(location, format!("must have at most {MAX_BYTES} bytes"));
    }
    if fields.optional("page_id").is_some() && fields.optional("page_ids").is_some() {
        fields.fault("page_ids", "must not be there with page_id");
    }
    let [tags_any, tags_all, tags_none] = TAGS.map(|name| filters.list(name, MAX_VALUES, "tags", tag));
    let [active_within_hours, inactive_for_hours] = HOURS.map(|name| filters.hours(name));
    let [sent_in, not_sent_in] = BROADCASTS.map(|name| filters.list(name, MAX_BROADCASTS, "ids", broadcast));
    for (wanted, name) in [(&tags_any, "tags_any"), (&tags_all, "tags_all")] {
        filters.contradiction((name, wanted), ("tags_none", &tags_none));
    }
    filters.contradiction(("sent_in", &sent_in), ("not_sent_in", &not_sent_in));
    if let (Some(active), Some(inactive)) = (active_within_hours, inactive_for_hours)
        && active <= inactive
    {
        fields.fault(
            "active_within_hours",
            "must be more than inactive_for_hours: nobody matches both",
        );
        fields.fault(
            "inactive_for_hours",
            "must be less than active_within_hours: nobody matches both",
        );
    }
    let page_id = fields.parsed("page_id", fields.optional("page_id"), |id| page(id, pages));
    Some(Audience {
        everybody: fields.optional("everybody").is_some(),
        page_id,
        page_ids: filters.list("page_ids", MAX_PAGES, "ids", |id| page(text(id)?, pages)),
        tags_any,
        tags_all,
        tags_none,
        attributes: filters.attributes(),
        active_within_hours,
        inactive_for_hours,
        sent_in,
        not_sent_in,
    })
}

/// The names of all filters, and some more.
fn known(more: &[&'static str]) -> Vec<&'static str> {
    [&OTHERS[..], &TAGS, &HOURS, &BROADCASTS, more].concat()
}

struct Filters<'a> {
    fields: &'a Fields<'a>,
    faults: &'a Faults,
    location: &'a str,
}

impl Filters<'_> {
    /// Reads a list, which has at least one entry if it is there: an empty one says nothing, or nobody.
    fn list<T>(&self, name: &str, max: usize, entries: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Vec<T> {
        let Some(list) = self.fields.list(name, self.fields.optional(name)) else {
            return Vec::new();
        };
        if !(1..=max).contains(&list.len()) {
            let message = format!("must have 1 to {max} {entries}, and has {}", list.len());
            self.fields.fault(name, message);
            return Vec::new();
        }
        let parsed = list.iter().enumerate().filter_map(|(n, value)| {
            let fault = |message| self.faults.add(format!("{}/{name}/{n}", self.location), message);
            parse(value).map_err(fault).ok()
        });
        parsed.collect()
    }

    fn hours(&self, name: &str) -> Option<u32> {
        let value = self.fields.optional(name)?;
        let hours = value.as_u64().filter(|hours| (1..=MAX_HOURS).contains(hours));
        let hours = hours.and_then(|hours| u32::try_from(hours).ok());
        if hours.is_none() {
            let message = format!("must be a whole number of hours from 1 to {MAX_HOURS}");
            self.fields.fault(name, message);
        }
        hours
    }

    fn attributes(&self) -> BTreeMap<String, Vec<Value>> {
        const NAME: &str = "attributes";
        let Some(value) = self.fields.optional(NAME) else {
            return BTreeMap::new();
        };
        let object = value.as_object();
        let Some(object) = object.filter(|object| (1..=MAX_ATTRIBUTES).contains(&object.len())) else {
            let message = format!("must be an object with 1 to {MAX_ATTRIBUTES} entries, each a list of values");
            self.fields.fault(NAME, message);
            return BTreeMap::new();
        };
        let mut attributes = BTreeMap::new();
        for (name, wanted) in object {
            match attribute_values(name, wanted) {
                Ok(wanted) => drop(attributes.insert(name.clone(), wanted)),
                Err(message) => self.fields.entry_fault(NAME, name, message),
            }
        }
        attributes
    }

    /// Adds a fault at both places of a value that is wanted and unwanted.
    fn contradiction<T: Ord>(&self, (wanting, wanted): (&str, &[T]), (refusing, unwanted): (&str, &[T])) {
        for ((name, values), (other, others)) in [
            ((wanting, wanted), (refusing, unwanted)),
            ((refusing, unwanted), (wanting, wanted)),
        ] {
            let others: BTreeSet<_> = others.iter().collect();
            for (n, _) in values.iter().enumerate().filter(|(_, value)| others.contains(value)) {
                let message = format!("must not be in {other}, too: that is a contradiction");
                self.faults.add(format!("{}/{name}/{n}", self.location), message);
            }
        }
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "must be a string".to_owned())
}

/// Parses a tag as an import does.
fn tag(value: &Value) -> Result<String, String> {
    match values::name(value)? {
        Some(Value::String(tag)) => Ok(tag),
        _ => Err("must have a visible character".to_owned()),
    }
}

fn broadcast(value: &Value) -> Result<BroadcastId, String> {
    let id = BroadcastId::parse(text(value)?);
    id.ok_or_else(|| "must be the id of a broadcast: 32 hexadecimal digits".to_owned())
}

fn attribute_values(name: &str, wanted: &Value) -> Result<Vec<Value>, String> {
    if !is_attribute_name(name) {
        return Err(ATTRIBUTE_NAME.to_owned());
    }
    let list = wanted.as_array().filter(|list| (1..=MAX_VALUES).contains(&list.len()));
    let list = list.ok_or_else(|| format!("must be a list of 1 to {MAX_VALUES} values"))?;
    let values = list.iter().map(|value| {
        let value = values::attribute(value, &ChangedNumbers::default())?;
        value.ok_or_else(|| "must be a list of strings, numbers, true or false".to_owned())
    });
    values.collect()
}

/// Returns the filters of an audience that a request has at this location: those of the saved one, if it is a name. They are
/// to be asked at this time.
///
/// # Errors
/// If there is no such saved audience, or a broadcast that it names is not kept until then (400), or DynamoDB does not answer
/// (503).
pub async fn chosen(
    app: &App,
    caller: &Caller,
    choice: &AudienceChoice,
    location: &str,
    at: Timestamp,
) -> Result<Audience, Problem> {
    match choice {
        AudienceChoice::Filters(audience) => {
            check_broadcasts(app, caller, audience, location, at).await?;
            Ok(audience.clone())
        }
        AudienceChoice::Saved(AudienceRef { name }) => {
            let found = app.store.audiences().get(name).await?;
            let found = found.filter(|seen| may_see(&caller.pages, &seen.saved.audience));
            let Some(seen) = found else {
                let message = "is the name of no saved audience; GET /v1/audiences lists them";
                return Err(Problem::fault(&format!("{location}/name"), message));
            };
            let audience = seen.saved.audience;
            if let Some((_, _, id)) = not_kept(app, caller, &audience, at).await?.first() {
                let message = format!("is an audience with the broadcast {id}, whose deliveries are not kept");
                return Err(Problem::fault(&format!("{location}/name"), message));
            }
            Ok(audience)
        }
    }
}

/// Returns `true` if the caller may use each Page that the audience names; one that names none is of the caller's own.
pub fn may_see(pages: &Pages, audience: &Audience) -> bool {
    audience.named_pages().all(|page_id| pages.allow(page_id))
}

/// Checks that the broadcasts that an audience names are kept until it is resolved, at this time.
///
/// # Errors
/// If one of them is not, or is of other Pages than the caller's (400), or DynamoDB does not answer (503).
pub async fn check_broadcasts(
    app: &App,
    caller: &Caller,
    audience: &Audience,
    location: &str,
    at: Timestamp,
) -> Result<(), Problem> {
    let faults = Faults::default();
    for (filter, n, _) in not_kept(app, caller, audience, at).await? {
        let message = "is the id of no broadcast whose deliveries are kept until the audience is resolved";
        faults.add(format!("{location}/{filter}/{n}"), message);
    }
    faults.or(Some(()))
}

/// Returns the broadcasts of an audience whose deliveries are not kept until this time, each with its filter and its place there.
async fn not_kept<'a>(
    app: &App,
    caller: &Caller,
    audience: &'a Audience,
    at: Timestamp,
) -> Result<Vec<(&'static str, usize, &'a BroadcastId)>, Problem> {
    let mut not_kept = Vec::new();
    for (filter, ids) in [("sent_in", &audience.sent_in), ("not_sent_in", &audience.not_sent_in)] {
        for (n, id) in ids.iter().enumerate() {
            let broadcasts = app.store.broadcasts();
            if !broadcasts.keeps_deliveries(id, &caller.pages, at).await? {
                not_kept.push((filter, n, id));
            }
        }
    }
    Ok(not_kept)
}
