//! Figures as SVG.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use std::fmt::Display;

const FONT: &str = "sans-serif";
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x8c, 0x56, 0x4b),
];

/// One line of a figure: its name, and points.
pub type Line = (String, Vec<(f64, f64)>);

/// What an axis shows.
#[derive(Clone, Copy, Debug)]
pub struct Axis<'a> {
    /// What, and in which unit.
    pub label: &'a str,
    /// How a number is written.
    pub show: fn(f64) -> String,
}

fn text(error: impl Display) -> String {
    format!("cannot draw: {error}")
}

/// Bars on a logarithmic scale, from the top down; one group for each name, one bar for each
/// series.
pub fn bars(
    title: &str,
    axis: Axis,
    series: &[&str],
    groups: &[(String, Vec<f64>)],
) -> Result<String, String> {
    let values = || groups.iter().flat_map(|(_, values)| values).copied().filter(|v| *v > 0.0);
    let low = 10f64.powf(values().fold(f64::INFINITY, f64::min).log10().floor());
    let high = values().fold(1.0, f64::max) * 1.5;
    let (rows, count) = (groups.len() as f64, series.len().max(1) as f64);
    let mut svg = String::new();
    {
        let area = area(&mut svg, 120 + 16 * (groups.len() * series.len().max(1)) as u32)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(230)
            .build_cartesian_2d((low..high).log_scale(), 0f64..rows)
            .map_err(text)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc(axis.label)
            .x_label_formatter(&|x| (axis.show)(*x))
            .draw()
            .map_err(text)?;
        for (at, name) in series.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let bar = |(row, value): (usize, f64)| {
                let top = rows - row as f64 - 0.1 - 0.8 * at as f64 / count;
                Rectangle::new([(low, top), (value.max(low), top - 0.75 / count)], colour.filled())
            };
            let of_this =
                groups.iter().enumerate().filter_map(|(row, g)| Some((row, *g.1.get(at)?)));
            let drawn = chart.draw_series(of_this.map(bar)).map_err(text)?;
            if series.len() > 1 {
                drawn.label(*name).legend(move |(x, y)| {
                    Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled())
                });
            }
        }
        legend(&mut chart, series.len() > 1)?;
        let height = area.dim_in_pixel().1 as f64;
        let (top, bottom) = (12.0 + 30.0, height - 12.0 - 40.0);
        for (row, (name, _)) in groups.iter().enumerate() {
            let y = top + (row as f64 + 0.35) * (bottom - top) / rows;
            area.draw(&Text::new(name.clone(), (14, y as i32), (FONT, 13))).map_err(text)?;
        }
        area.present().map_err(text)?;
    }
    Ok(svg)
}

/// How what goes up is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// By decades.
    Logarithmic,
}

/// Lines over a logarithmic scale, with a mark at each point.
pub fn lines(
    title: &str,
    x: Axis,
    y: Axis,
    scale: Scale,
    lines: &[Line],
) -> Result<String, String> {
    let values = || lines.iter().flat_map(|line| &line.1).map(|p| p.1);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    match scale {
        Scale::Linear => draw_lines(title, x, y, lines, 0f64..high * 1.2),
        Scale::Logarithmic => {
            let range = low / 1.5..high * 1.5;
            let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
            let marks =
                decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|first| first * 10f64.powi(decade)));
            let marks = marks.filter(|mark| range.contains(mark)).collect();
            draw_lines(title, x, y, lines, range.log_scale().with_key_points(marks))
        }
    }
}

fn draw_lines<Y>(title: &str, x: Axis, y: Axis, lines: &[Line], up: Y) -> Result<String, String>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    // What was measured is marked, not round numbers.
    let mut marks: Vec<f64> = lines.iter().flat_map(|line| &line.1).map(|p| p.0).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    let (Some(&low), Some(&high)) = (marks.first(), marks.last()) else {
        return Err("cannot draw: there are no points".to_string());
    };
    let mut svg = String::new();
    {
        let (head, area) = area(&mut svg, 430)?.split_vertically(64);
        head.draw(&Text::new(title.to_string(), (90, 14), (FONT, 18))).map_err(text)?;
        let mut left = 90;
        for (at, (name, _)) in lines.iter().enumerate().filter(|_| lines.len() > 1) {
            let colour = COLOURS[at % COLOURS.len()];
            let key = PathElement::new([(left, 49), (left + 18, 49)], colour.stroke_width(2));
            head.draw(&key).map_err(text)?;
            head.draw(&Text::new(name.clone(), (left + 24, 42), (FONT, 13))).map_err(text)?;
            left += 54 + 7 * name.chars().count() as i32;
        }
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_top(4)
            .margin_right(40)
            .x_label_area_size(44)
            .y_label_area_size(90)
            .build_cartesian_2d((low..high * 1.05).log_scale().with_key_points(marks), up)
            .map_err(text)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(7)
            .x_desc(x.label)
            .y_desc(y.label)
            .x_label_formatter(&|value| (x.show)(*value))
            .y_label_formatter(&|value| (y.show)(*value))
            .draw()
            .map_err(text)?;
        for (at, (_, points)) in lines.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let line =
                LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3);
            chart.draw_series(line).map_err(text)?;
        }
        area.present().map_err(text)?;
    }
    Ok(svg)
}

fn area(svg: &mut String, height: u32) -> Result<DrawingArea<SVGBackend<'_>, Shift>, String> {
    let area = SVGBackend::with_string(svg, (860, height)).into_drawing_area();
    area.fill(&WHITE).map_err(text)?;
    Ok(area)
}

fn legend<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    wanted: bool,
) -> Result<(), String>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    if wanted {
        let mut labels = chart.configure_series_labels();
        labels
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .label_font((FONT, 13))
            .draw()
            .map_err(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AXIS: Axis<'_> = Axis { label: "ns", show: |value| format!("{value}") };

    #[test]
    fn figures_name_what_they_show() {
        let groups =
            [("create".to_string(), vec![100.0, 2000.0]), ("unlink".to_string(), vec![5.0, 0.0])];
        let svg = bars("Operations", AXIS, &["umbra", "xfs"], &groups).unwrap();
        for part in ["<svg", "create", "unlink", "umbra", "xfs", "Operations", "</svg>"] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        let all = [("clone".to_string(), vec![(4096.0, 10.0), (1e9, 11.0)])];
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let svg = lines("Clones", AXIS, AXIS, scale, &all).unwrap();
            for part in ["Clones", "polyline", "4096", "1000000000"] {
                assert!(svg.contains(part), "{part} is not in {svg}");
            }
            assert!(!svg.contains("clone"), "one line needs no name: {svg}");
            assert!(lines("Clones", AXIS, AXIS, scale, &[]).is_err());
        }
    }
}
