//! A line chart as SVG, readable on a light and on a dark page.

use std::fmt::Write as _;

use crate::report::number;

/// The size of the picture and of its margins.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;
/// The least distance of two names.
const LINE: f64 = 18.0;

/// The colours, from <https://personal.sron.nl/~pault/> (vibrant), which people who see fewer colours can tell apart.
const STYLE: &str = "
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 }
  .grid { stroke: #d0d7de }
  line.target { stroke: #57606a; stroke-dasharray: 5 4 }
  .s0 { --c: #0077bb } .s1 { --c: #cc3311 } .s2 { --c: #009988 } .s3 { --c: #aa3377 }
  path { fill: none; stroke: var(--c); stroke-width: 2 }
  circle { fill: var(--c) }
  text.s0, text.s1, text.s2, text.s3 { fill: var(--c) }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .grid { stroke: #30363d }
    line.target { stroke: #8b949e }
    .s0 { --c: #33bbee } .s1 { --c: #ff7755 } .s2 { --c: #33ccaa } .s3 { --c: #ee88bb }
  }
";

/// A named line.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// A chart with a logarithmic horizontal axis.
pub struct Chart {
    pub title: &'static str,
    pub horizontal: &'static str,
    /// The values of the horizontal axis that are named.
    pub marks: Vec<f64>,
    /// The height of the dashed line.
    pub target: f64,
    pub lines: Vec<Line>,
}

impl Chart {
    /// Draws the chart.
    pub fn to_svg(&self) -> String {
        let values = self.lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
        let top = (values.fold(self.target, f64::max) * 1.1 * 4.0).ceil() / 4.0;
        let (least, most) = (self.marks[0].log10(), self.marks[self.marks.len() - 1].log10());
        let x = |x: f64| LEFT + (x.log10() - least) / (most - least) * (WIDTH - LEFT - RIGHT);
        let y = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);
        let (right, low) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
             <title>{0}</title>\n<style>{STYLE}</style>\n<text class=\"title\" x=\"{LEFT}\" y=\"24\">{0}</text>\n",
            self.title
        );
        let mut element = |element: String| {
            // A string takes every write.
            let _ = writeln!(svg, "{element}");
        };
        let mut height = 0.0;
        while height <= top {
            let at = y(height);
            element(format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            ));
            element(format!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{height}</text>",
                LEFT - 8.0,
                at + 4.0
            ));
            height += 0.5;
        }
        for mark in &self.marks {
            let (at, name) = (x(*mark), number(*mark));
            element(format!(
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
                low + 20.0
            ));
        }
        let middle = f64::midpoint(LEFT, right);
        element(format!(
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 10.0,
            self.horizontal
        ));
        let at = y(self.target);
        element(format!(
            "<line class=\"target\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
        ));
        let mut names: Vec<(f64, String, String)> = vec![(at, "target".to_owned(), format!("target: {}", self.target))];
        for (n, line) in self.lines.iter().enumerate() {
            let places: Vec<_> = line.points.iter().map(|(a, b)| (x(*a), y(*b))).collect();
            let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            element(format!("<path class=\"s{n}\" d=\"M{}\"/>", path.join(" L")));
            for (x, y) in &places {
                element(format!(
                    "<circle class=\"s{n}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"
                ));
            }
            if let (Some((_, at)), Some((_, value))) = (places.last(), line.points.last()) {
                names.push((*at, format!("s{n}"), format!("{}: {value:.2}", line.name)));
            }
        }
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = TOP;
        for (at, class, name) in names {
            let at = f64::max(at + 4.0, free);
            free = at + LINE;
            element(format!(
                "<text class=\"{class}\" x=\"{}\" y=\"{at:.1}\">{name}</text>",
                right + 10.0
            ));
        }
        svg + "</svg>\n"
    }
}
