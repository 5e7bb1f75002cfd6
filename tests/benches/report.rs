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

/// A result of each of several systems, in the order of the columns.
#[derive(Debug)]
struct Across {
    name: String,
    values: Vec<f64>,
    unit: &'static str,
}

/// The results of one benchmark.
#[derive(Debug)]
pub struct Section {
    name: &'static str,
    title: &'static str,
    rows: Vec<Row>,
    columns: &'static [&'static str],
    across: Vec<Across>,
    notes: Vec<String>,
}

impl Section {
    /// Returns a section without results. `name` is the word that selects the benchmark on the command line.
    pub fn new(name: &'static str, title: &'static str) -> Self {
        Self {
            name,
            title,
            rows: Vec::new(),
            columns: &[],
            across: Vec::new(),
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

    /// Names the systems that stand side by side in a second table.
    pub fn columns(&mut self, names: &'static [&'static str]) {
        self.columns = names;
    }

    /// Adds a result of each system, in the order of the columns.
    pub fn add_across(&mut self, name: &str, values: Vec<f64>, unit: &'static str) {
        for (column, value) in self.columns.iter().zip(&values) {
            eprintln!("{}: {name}, {column}: {} {unit}", self.name, number(*value));
        }
        self.across.push(Across {
            name: name.to_owned(),
            values,
            unit,
        });
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
        let across = self.across.iter().flat_map(|across| {
            let values = self.columns.iter().zip(&across.values);
            values.map(|(column, value)| {
                json!({"name": format!("{}, {column}", across.name), "value": value, "unit": across.unit})
            })
        });
        let rows: Vec<_> = rows.chain(across).collect();
        json!({"name": self.name, "title": self.title, "rows": rows, "notes": self.notes})
    }
}

/// A table in Markdown.
impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## {}: {}\n", self.name, self.title)?;
        let rows = self.rows.iter().map(|row| {
            let target = row.target.map(|target| target.to_string()).unwrap_or_default();
            let verdict = match row.target.map(|target| target.is_met_by(row.value)) {
                Some(true) => "met",
                Some(false) => "missed",
                None => "",
            };
            let unit = row.unit.to_owned();
            vec![row.name.clone(), number(row.value), unit, target, verdict.to_owned()]
        });
        write_table(f, &["", "result", "unit", "target", ""], rows, |column| column == 1)?;
        let across = self.across.iter().map(|across| {
            let values = across.values.iter().map(|value| number(*value));
            [across.name.clone(), across.unit.to_owned()]
                .into_iter()
                .chain(values)
                .collect()
        });
        write_table(f, &[&["", "unit"], self.columns].concat(), across, |column| column > 1)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "\n{note}"))
    }
}

/// Writes a table with these columns, of which some are aligned to the right; nothing if it has no rows.
fn write_table(
    f: &mut fmt::Formatter<'_>,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    is_right: impl Fn(usize) -> bool,
) -> fmt::Result {
    let head = head.iter().map(|name| (*name).to_owned()).collect();
    let rows: Vec<Vec<_>> = [head].into_iter().chain(rows).collect();
    if rows.len() == 1 {
        return Ok(());
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    for (index, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match is_right(column) {
                true => write!(f, "| {cell:>width$} ")?,
                false => write!(f, "| {cell:width$} ")?,
            }
        }
        writeln!(f, "|")?;
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let end = if is_right(column) { ':' } else { '-' };
                write!(f, "|-{}{end}", "-".repeat(*width))?;
            }
            writeln!(f, "|")?;
        }
    }
    Ok(())
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
        _ if value.fract() == 0.0 => 0,
        100.0.. => 0,
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
