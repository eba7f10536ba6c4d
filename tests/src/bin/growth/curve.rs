//! A curve: its points, its figure, its table, what it should show.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use umbra::plot::{self, Axis, Scale};

/// What the values of a series should be.
#[derive(Clone, Copy)]
pub enum Aim {
    /// The most is at most so many percent above the least.
    Flat(f64),
    /// None is above this.
    AtMost(f64),
}

/// One quantity over what grows.
pub struct Series {
    pub name: String,
    pub show: fn(f64) -> String,
    pub points: Vec<(f64, f64)>,
    /// Without, it is in the table only: it has another unit than the figure.
    pub drawn: bool,
    pub aim: Option<Aim>,
}

impl Series {
    /// A series of the figure.
    pub fn drawn(
        name: impl Into<String>,
        show: fn(f64) -> String,
        points: Vec<(f64, f64)>,
    ) -> Series {
        Series { name: name.into(), show, points, drawn: true, aim: None }
    }

    /// A series that only the table has.
    pub fn listed(
        name: impl Into<String>,
        show: fn(f64) -> String,
        points: Vec<(f64, f64)>,
    ) -> Series {
        Series { drawn: false, ..Series::drawn(name, show, points) }
    }

    /// With an aim.
    pub fn aim(self, aim: Aim) -> Series {
        Series { aim: Some(aim), ..self }
    }

    /// How much the most is above the least, in percent.
    fn spread(&self) -> f64 {
        let values = || self.points.iter().map(|p| p.1);
        (values().fold(f64::MIN, f64::max) / values().fold(f64::MAX, f64::min) - 1.0) * 100.0
    }

    /// What became of the aim: in words, and whether it was met.
    fn verdict(&self) -> Option<(String, bool)> {
        let (text, met) = match self.aim? {
            Aim::Flat(within) => {
                let spread = self.spread();
                (
                    format!("the most is {spread:.1} % above the least (at most {within})"),
                    spread <= within,
                )
            }
            Aim::AtMost(most) => {
                let top = self.points.iter().map(|p| p.1).fold(f64::MIN, f64::max);
                (
                    format!("the most is {} (at most {})", (self.show)(top), (self.show)(most)),
                    top <= most,
                )
            }
        };
        Some((format!("- {}: {text}{}", self.name, if met { "" } else { ", **missed**" }), met))
    }
}

/// A figure with its table.
pub struct Curve {
    /// Names its file, and its place in the documentation.
    pub name: &'static str,
    pub title: &'static str,
    /// What grows.
    pub x: Axis<'static>,
    /// What the figure shows of it.
    pub y: Axis<'static>,
    pub scale: Scale,
    pub series: Vec<Series>,
}

impl Curve {
    /// The figure.
    pub fn svg(&self) -> Result<String, String> {
        let drawn = self.series.iter().filter(|s| s.drawn);
        let lines: Vec<plot::Line> = drawn.map(|s| (s.name.clone(), s.points.clone())).collect();
        plot::lines(self.title, self.x, self.y, self.scale, &lines)
    }

    /// The table, and what became of the aims.
    pub fn table(&self) -> String {
        // Counts and sizes: whole numbers.
        let rows: BTreeSet<u64> =
            self.series.iter().flat_map(|s| &s.points).map(|p| p.0 as u64).collect();
        let mut text = format!("| {} |", self.x.label);
        // Writing to a string cannot fail.
        for series in &self.series {
            let _ = write!(text, " {} |", series.name);
        }
        text += "\n|";
        text += &"---:|".repeat(self.series.len() + 1);
        for x in rows {
            let _ = write!(text, "\n| {} |", (self.x.show)(x as f64));
            for series in &self.series {
                let value =
                    series.points.iter().find(|p| p.0 as u64 == x).map(|p| (series.show)(p.1));
                let _ = write!(text, " {} |", value.unwrap_or_default());
            }
        }
        text += "\n";
        for (verdict, _) in self.series.iter().filter_map(Series::verdict) {
            let _ = write!(text, "\n{verdict}");
        }
        text
    }
}

/// All curves, for programs.
pub fn json(curves: &[Curve]) -> Value {
    let met = |s: &Series| s.verdict().map(|(_, met)| met);
    let series = |s: &Series| json!({ "name": s.name, "points": s.points, "aim_met": met(s) });
    let curve = |c: &Curve| {
        let all: Vec<Value> = c.series.iter().map(series).collect();
        json!({ "name": c.name, "x": c.x.label, "series": all })
    };
    json!({ "version": 1, "curves": curves.iter().map(curve).collect::<Vec<_>>() })
}

/// A number with its thousands apart.
pub fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in bytes.
pub fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = ((bytes.max(1.0).log2() / 10.0) as usize).min(units.len() - 1);
    let value = bytes / 1024f64.powi(unit as i32);
    let exact = (value - value.round()).abs() < 0.005;
    if exact {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// A time in nanoseconds.
pub fn time(ns: f64) -> String {
    umbra::bench::Unit::Nanoseconds.show(ns)
}

/// The value in the middle. The list is not empty.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
