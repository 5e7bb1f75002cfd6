//! The results: a table for each section with the targets beside them, and all of them as JSON.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

/// The bound that a result is meant to keep.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {}", number(*most)),
            Self::AtLeast(least) => write!(f, "≥ {}", number(*least)),
        }
    }
}

/// One result.
#[derive(Debug)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
}

/// The results of one benchmark.
#[derive(Debug)]
pub struct Section {
    name: &'static str,
    title: &'static str,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Section {
    /// Returns a section without results. `name` is the word that selects the benchmark on the command line.
    pub fn new(name: &'static str, title: &'static str) -> Self {
        Self {
            name,
            title,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a result that has no target.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(name.into(), value, unit, None);
    }

    /// Adds a result with its target.
    pub fn compare(&mut self, name: impl Into<String>, value: f64, unit: &'static str, target: Target) {
        self.push(name.into(), value, unit, Some(target));
    }

    /// Adds a sentence below the table.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn push(&mut self, name: String, value: f64, unit: &'static str, target: Option<Target>) {
        // A long run shows each result as it comes.
        eprintln!("{}: {name}: {} {unit}", self.name, number(value));
        self.rows.push(Row {
            name,
            value,
            unit,
            target,
        });
    }

    fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let (most, least) = match row.target {
                Some(Target::AtMost(most)) => (Some(most), None),
                Some(Target::AtLeast(least)) => (None, Some(least)),
                None => (None, None),
            };
            json!({
                "name": row.name, "value": row.value, "unit": row.unit, "at_most": most, "at_least": least,
                "met": row.target.map(|target| target.is_met_by(row.value)),
            })
        });
        json!({"name": self.name, "title": self.title, "rows": rows.collect::<Vec<_>>(), "notes": self.notes})
    }
}

/// A table in Markdown.
impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["", "result", "unit", "target", ""].map(str::to_owned);
        let rows = self.rows.iter().map(|row| {
            let target = row.target.map(|target| target.to_string()).unwrap_or_default();
            let verdict = match row.target.map(|target| target.is_met_by(row.value)) {
                Some(true) => "met",
                Some(false) => "missed",
                None => "",
            };
            let unit = row.unit.to_owned();
            [row.name.clone(), number(row.value), unit, target, verdict.to_owned()]
        });
        let rows: Vec<_> = [head].into_iter().chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: [usize; 5] = std::array::from_fn(|column| width(column).unwrap_or_default());
        writeln!(f, "\n## {}: {}\n", self.name, self.title)?;
        for (index, [name, value, unit, target, verdict]) in rows.iter().enumerate() {
            let [a, b, c, d, e] = widths;
            writeln!(
                f,
                "| {name:a$} | {value:>b$} | {unit:c$} | {target:d$} | {verdict:e$} |"
            )?;
            if index == 0 {
                let [a, b, c, d, e] = widths.map(|width| "-".repeat(width));
                writeln!(f, "|-{a}-|-{b}:|-{c}-|-{d}-|-{e}-|")?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "\n{note}"))
    }
}

/// Writes all results as JSON, with the machine that they come from.
pub fn write(sections: &[Section], path: &Path) -> io::Result<()> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map(|model| model.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let sections: Vec<_> = sections.iter().map(Section::to_json).collect();
    let report = json!({"machine": {"cores": cores, "model": model}, "sections": sections});
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, format!("{report:#}\n"))
}

/// Returns the middle one of some values, which are not none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Shows three significant digits, and all digits of a whole number.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let shown = format!("{value:.digits$}");
    let (whole, fraction) = shown.split_at(shown.find('.').unwrap_or(shown.len()));
    let (sign, whole) = whole.split_at(usize::from(whole.starts_with('-')));
    let groups: Vec<_> = whole.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    format!("{sign}{}{fraction}", groups.join(","))
}
