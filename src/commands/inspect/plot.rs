//! Plots the journal as curves over frames: loss, rank, alignment and uniformity, TR@1, with promotions as vertical
//! lines.
use plotters::prelude::*;
use serde_json::Value;

use crate::error::{Error, Result};

const WIDTH: u32 = 1000;
const HEIGHT: u32 = 1240;
const HEADING: u32 = 40;

/// One curve: name, colour, points.
struct Curve {
    name: &'static str,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

const BLUE: RGBColor = RGBColor(31, 119, 180);
const ORANGE: RGBColor = RGBColor(230, 120, 20);
const GREY: RGBColor = RGBColor(110, 110, 110);
const GREEN: RGBColor = RGBColor(30, 140, 60);
const RED: RGBColor = RGBColor(200, 40, 40);

/// The plot of a run as SVG.
///
/// # Errors
/// The events contain nothing to plot, or drawing fails.
pub(super) fn draw(run: &str, events: &[Value]) -> Result<String> {
    let curve = |name, colour, event: &[&str], path: &'static [&'static str]| Curve {
        name,
        colour,
        points: points(events, event, path),
    };
    let (fits, checks) = (&["fit", "promotion", "demotion"][..], &["health"][..]);
    let panels = [
        ("loss, nats", vec![curve("loss of the residual", BLUE, checks, &["loss"])]),
        (
            "rank (RankMe)",
            vec![
                curve("frozen", GREY, fits, &["frozen_health", "rank"]),
                curve("exported", GREEN, fits, &["exported_health", "rank"]),
                curve("slow head", ORANGE, checks, &["slow", "rank"]),
                curve("residual", BLUE, checks, &["residual", "rank"]),
            ],
        ),
        (
            "alignment",
            vec![
                curve("frozen", GREY, fits, &["frozen_health", "alignment"]),
                curve("exported", GREEN, fits, &["exported_health", "alignment"]),
                curve("residual", BLUE, checks, &["residual", "alignment"]),
            ],
        ),
        (
            "uniformity",
            vec![
                curve("frozen", GREY, fits, &["frozen_health", "uniformity"]),
                curve("exported", GREEN, fits, &["exported_health", "uniformity"]),
                curve("residual", BLUE, checks, &["residual", "uniformity"]),
            ],
        ),
        (
            "TR@1, share",
            vec![
                curve("frozen", GREY, fits, &["frozen_health", "retrieval"]),
                curve("exported", GREEN, fits, &["exported_health", "retrieval"]),
                curve("slow head", ORANGE, checks, &["slow", "retrieval"]),
                curve("residual", BLUE, checks, &["residual", "retrieval"]),
            ],
        ),
    ];
    let all = panels.iter().flat_map(|(_, curves)| curves).flat_map(|curve| &curve.points);
    let last = all.map(|point| point.0).fold(0.0, f64::max);
    if last == 0.0 {
        return Err(Error::check_failed(format!("run {run} has made no fit yet: there is nothing to draw")));
    }
    let marks = [("promotion", GREEN), ("demotion", RED)].map(|(event, colour)| (frames(events, event), colour));
    let rolled = events.iter().filter(|event| event["event"] == "state" && event["to"] == "rolled-back");
    let rolled: Vec<f64> = rolled.filter_map(|event| event["frame"].as_f64()).collect();
    let mut svg = String::new();
    paint(&mut svg, run, &panels, &marks, &rolled, last)
        .map_err(|why| Error::runtime(format!("the drawing of run {run} failed: {why}")))?;
    Ok(svg)
}

type Panel = (&'static str, Vec<Curve>);

fn paint(
    svg: &mut String,
    run: &str,
    panels: &[Panel],
    marks: &[(Vec<f64>, RGBColor)],
    rolled: &[f64],
    last: f64,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let heading = format!("{run}   green lines: promotions, red: demotions, dashes: rollbacks");
    root.draw(&Text::new(heading, (14, 14), ("sans-serif", 17).into_font()))?;
    let (_, body) = root.split_vertically(HEADING);
    for (area, (name, curves)) in body.split_evenly((panels.len(), 1)).iter().zip(panels) {
        let values = || curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1));
        let (least, most) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        let (least, most) = if least.is_finite() { (least, most) } else { (0.0, 1.0) };
        // Leave room at the top for the legend.
        let margin = ((most - least) * 0.06).max(1e-3);
        let (low, high) = (least - margin, most + margin);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(170)
            .x_label_area_size(36)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..last, low..high)?;
        chart
            .configure_mesh()
            .x_desc("frame")
            .y_desc(*name)
            .x_labels(9)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 15))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (frames, colour) in marks {
            let lines = frames.iter().map(|x| PathElement::new(vec![(*x, low), (*x, high)], colour.mix(0.6)));
            chart.draw_series(lines)?;
        }
        let dashes = rolled.iter().flat_map(|x| (0..12).map(move |i| (*x, f64::from(i) / 12.0)));
        chart.draw_series(dashes.map(|(x, at)| {
            let (from, to) = (low + (high - low) * at, low + (high - low) * (at + 0.04));
            PathElement::new(vec![(x, from), (x, to)], RED)
        }))?;
        let (plane_x, plane_y) = chart.plotting_area().get_pixel_range();
        for curve in curves {
            chart.draw_series(LineSeries::new(curve.points.iter().copied(), curve.colour.stroke_width(2)))?;
            chart.draw_series(curve.points.iter().map(|point| Circle::new(*point, 2, curve.colour.filled())))?;
        }
        for (i, curve) in curves.iter().enumerate() {
            let (x, y) = (plane_x.end + 14, plane_y.start + 12 + 22 * i as i32);
            root.draw(&PathElement::new(vec![(x, y), (x + 22, y)], curve.colour.stroke_width(3)))?;
            let name = if curve.points.is_empty() { format!("{} (none)", curve.name) } else { curve.name.to_owned() };
            root.draw(&Text::new(name, (x + 28, y - 8), ("sans-serif", 14).into_font()))?;
        }
    }
    root.present()?;
    Ok(())
}

/// The values at `path` in the events with these names, over their frames.
fn points(events: &[Value], names: &[&str], path: &[&str]) -> Vec<(f64, f64)> {
    let of = events.iter().filter(|event| event["event"].as_str().is_some_and(|name| names.contains(&name)));
    let value = |event: &Value| path.iter().try_fold(event, |at, key| at.get(key))?.as_f64();
    of.filter_map(|event| event["frame"].as_f64().zip(value(event))).collect()
}

/// The frames of all events with this name.
fn frames(events: &[Value], name: &str) -> Vec<f64> {
    events.iter().filter(|event| event["event"] == name).filter_map(|event| event["frame"].as_f64()).collect()
}
