//! Figures, medians, and the table of them.

use serde_json::{Map, Value, json};
use std::fmt::Write;

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// It is only shown.
    None,
}

/// One line of the table.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    aim: Aim,
}

/// What was measured.
#[derive(Default)]
pub struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Adds a figure.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, aim: Aim) {
        self.figures.push(Figure { name: name.into(), value, unit, aim });
    }

    /// The table.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for figure in &self.figures {
            let (aim, met) = match figure.aim {
                Aim::AtMost(most) => (format!("at most {most}"), figure.value <= most),
                Aim::AtLeast(least) => (format!("at least {least}"), figure.value >= least),
                Aim::None => (String::new(), true),
            };
            let mark = if met { "" } else { "  MISSED" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{:<58} {:>10.3} {:<6} {aim}{mark}",
                figure.name, figure.value, figure.unit
            );
        }
        text
    }

    /// The same as JSON.
    pub fn json(&self) -> Value {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|figure| {
                (figure.name.clone(), json!({ "value": figure.value, "unit": figure.unit }))
            })
            .collect();
        json!({ "version": 1, "figures": figures })
    }
}

/// The value in the middle. The list is not empty.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The value that a part of all values does not exceed. The list is not empty.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len()) - 1;
    sorted[index]
}
