//! Plots in SVG: CPU per request, latency, memory per connection; ours beside theirs.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use super::ratio::{pairs, span};
use super::record::{Record, Run};

const OURS: RGBColor = RGBColor(0x1b, 0x5e, 0x9c);
const THEIRS: RGBColor = RGBColor(0xb0, 0xb0, 0xb0);
const FLOOR: RGBColor = RGBColor(0x6a, 0xa8, 0x4f);
const LINES: [RGBColor; 5] = [
    RGBColor(0xc0, 0x50, 0x30),
    RGBColor(0x80, 0x60, 0xa0),
    RGBColor(0x50, 0x90, 0x50),
    RGBColor(0xb0, 0x90, 0x30),
    THEIRS,
];
const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "p99.99"];

/// (file, title, scenario, case, figure, divided by)
const BARS: &[(&str, &str, &str, &str, &str, f64)] = &[
    (
        "cpu-per-request.svg",
        "K1: microseconds of CPU per request (less is better)",
        "K1",
        "64",
        "cpu_us_per_request",
        1.0,
    ),
    (
        "cpu-per-connection.svg",
        "K3: microseconds of CPU per connection (less is better)",
        "K3",
        "close",
        "cpu_us_per_request",
        1.0,
    ),
    (
        "bulk-64k.svg",
        "K5: MB per CPU-second, 64 KiB bodies (more is better)",
        "K5",
        "64KiB",
        "bytes_per_cpu_second",
        1e6,
    ),
    (
        "bulk-1m.svg",
        "K5: MB per CPU-second, 1 MiB bodies (more is better)",
        "K5",
        "1MiB",
        "bytes_per_cpu_second",
        1e6,
    ),
    (
        "memory.svg",
        "K7: bytes per idle connection, kernel and both ends (less is better)",
        "K7",
        "15000",
        "bytes_per_connection",
        1.0,
    ),
    (
        "stream.svg",
        "L1: MB per CPU-second, one TCP stream (more is better)",
        "L1",
        "1",
        "bytes_per_cpu_second",
        1e6,
    ),
    (
        "messages.svg",
        "L2: microseconds of CPU per message of 64 bytes, there and back (less is better)",
        "L2",
        "64",
        "cpu_us_per_request",
        1.0,
    ),
    (
        "cpu-per-tcp-connection.svg",
        "L3: microseconds of CPU per TCP connection (less is better)",
        "L3",
        "close",
        "cpu_us_per_request",
        1.0,
    ),
    (
        "tunnel-memory.svg",
        "L4: bytes per idle tunnel, kernel and both ends (less is better)",
        "L4",
        "9000",
        "bytes_per_connection",
        1.0,
    ),
];

/// Draws what the journal has figures for, and returns the names of the files.
pub(super) fn draw(records: &[Record], folder: &Path) -> anyhow::Result<Vec<String>> {
    let runs: Vec<&Run> =
        records.iter().filter_map(|r| if let Record::Run(run) = r { Some(run) } else { None }).collect();
    let mut drawn = Vec::new();
    for (file, title, scenario, case, metric, unit) in BARS {
        let mut values: Vec<(String, f64)> = Vec::new();
        for run in runs.iter().filter(|r| r.scenario == *scenario && r.case == *case) {
            let found = pairs(&runs, scenario, case, &run.peer, metric);
            let median = span(&found.iter().map(|p| p.mean).collect::<Vec<_>>());
            if let Some(s) = median.filter(|_| values.iter().all(|(peer, _)| *peer != run.peer)) {
                values.push((run.peer.clone(), s.median / unit));
            }
        }
        if !values.is_empty() {
            bars(&folder.join(file), title, &values).map_err(|e| anyhow!("{file}: {e}"))?;
            drawn.push((*file).to_owned());
        }
    }
    let curves = curves(&runs);
    if !curves.is_empty() {
        let file = "latency.svg";
        latency(&folder.join(file), &curves).map_err(|e| anyhow!("{file}: {e}"))?;
        drawn.push(file.to_owned());
    }
    Ok(drawn)
}

fn colour(peer: &str) -> RGBColor {
    if peer == "ringway" {
        OURS
    } else if peer.starts_with("floor") {
        FLOOR
    } else {
        THEIRS
    }
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Horizontal bars, one for each peer, with the figure at its end.
fn bars(path: &Path, title: &str, values: &[(String, f64)]) -> Drawn {
    let rows = u32::try_from(values.len())?;
    let root = SVGBackend::new(path, (760, 70 + 34 * rows)).into_drawing_area();
    root.fill(&WHITE)?;
    let most = values.iter().map(|(_, v)| *v).fold(f64::MIN_POSITIVE, f64::max);
    root.draw(&Text::new(title.to_owned(), (12, 12), ("sans-serif", 17)))?;
    for (row, (peer, value)) in (0..).zip(values) {
        let top = 48 + 34 * row;
        // The widest bar has 430 of the picture's 760 points; the rest is for names and figures.
        #[allow(clippy::cast_possible_truncation, reason = "between 0 and 430")]
        let width = (value.max(0.0) / most * 430.0) as i32;
        root.draw(&Text::new(peer.clone(), (12, top + 4), ("sans-serif", 15)))?;
        root.draw(&Rectangle::new([(200, top), (200 + width, top + 22)], colour(peer).filled()))?;
        root.draw(&Text::new(super::report::figure(*value), (208 + width, top + 4), ("sans-serif", 15)))?;
    }
    root.present()?;
    Ok(())
}

/// For each peer of K4 its percentiles, as (place on the axis, microseconds).
fn curves(runs: &[&Run]) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut curves: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for run in runs.iter().filter(|r| r.scenario == "K4") {
        if curves.iter().any(|(peer, _)| *peer == run.peer) {
            continue;
        }
        let mut points = Vec::new();
        for (place, percentile) in (0..).map(f64::from).zip(PERCENTILES) {
            let found = pairs(runs, "K4", &run.case, &run.peer, percentile);
            let median = span(&found.iter().map(|p| p.mean).collect::<Vec<_>>());
            points.extend(median.map(|s| (place, s.median)));
        }
        if !points.is_empty() {
            curves.push((run.peer.clone(), points));
        }
    }
    curves
}

fn latency(path: &Path, curves: &[(String, Vec<(f64, f64)>)]) -> Drawn {
    let root = SVGBackend::new(path, (760, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let all = || curves.iter().flat_map(|(_, points)| points.iter().map(|(_, us)| *us));
    let (least, most) = (all().fold(f64::MAX, f64::min).max(1.0), all().fold(1.0, f64::max));
    let mut chart = ChartBuilder::on(&root)
        .caption("K4: latency by the clock at half of nginx's best rate, microseconds", ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..4.0, (least / 1.5..most * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .x_labels(PERCENTILES.len())
        .x_label_formatter(&|x| {
            let near = (0..).map(f64::from).zip(PERCENTILES).find(|(place, _)| (place - x).abs() < 0.01);
            near.map_or_else(String::new, |(_, name)| name.to_owned())
        })
        .draw()?;
    for (i, (peer, points)) in curves.iter().enumerate() {
        let colour = if peer == "ringway" { OURS } else { LINES[i % LINES.len()] };
        let width = if peer == "ringway" { 3 } else { 1 };
        let style = colour.stroke_width(width);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(peer.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(scenario: &str, case: &str, metrics: &[(&str, f64)]) -> Record {
        Record::Run(Run {
            scenario: scenario.into(),
            case: case.into(),
            peer: "ringway".into(),
            round: 0,
            turn: 0,
            generator: String::new(),
            failed: None,
            metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        })
    }

    #[test]
    fn plots_are_drawn_from_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(draw(&[], folder.path()).unwrap().is_empty());
        let records = [
            run("K1", "64", &[("cpu_us_per_request", 8.5)]),
            run("K4", "half", &[("p50", 100.0), ("p99", 300.0), ("p99.9", 900.0)]),
        ];
        assert_eq!(draw(&records, folder.path()).unwrap(), ["cpu-per-request.svg", "latency.svg"]);
        let svg = std::fs::read_to_string(folder.path().join("cpu-per-request.svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("ringway") && svg.contains("8.50"));
    }
}
