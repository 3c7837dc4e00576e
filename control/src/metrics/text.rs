//! Metrics as text: the exposition format of Prometheus (version 0.0.4), and OpenMetrics 1.0.0, which differ in the names of
//! counters' families and in the last line.

use dataplane::stats::histogram::{Merged, bound_us};
use std::fmt::{Display, Write as _};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// By the Accept of a request (RFC 9110 12.5.1): OpenMetrics if it is named and not wanted less than plain text.
    pub(crate) fn accepted(accept: &str) -> Self {
        let weight = |kind: &str| {
            let range = accept.split(',').map(str::trim).find(|range| {
                range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(kind))
            })?;
            let q = range.split(';').find_map(|part| part.trim().strip_prefix("q=")?.parse::<f64>().ok());
            Some(q.unwrap_or(1.0))
        };
        let open = weight("application/openmetrics-text").unwrap_or(0.0);
        if open > 0.0 && open >= weight("text/plain").unwrap_or(0.0) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows; its samples end in `_total`, which the name that is given here does not.
    Counter,
    Gauge,
    Histogram,
}

/// Bounds of exported buckets: powers of two from 32 µs to 67 s, each of which is a bound of the shards' own buckets.
const POWERS: std::ops::RangeInclusive<u32> = 5..=26;

/// All families, one after the other.
#[derive(Debug)]
pub(super) struct Text {
    out: String,
    format: Format,
}

impl Text {
    pub(super) fn new(format: Format, bytes: usize) -> Self {
        Self { out: String::with_capacity(bytes), format }
    }

    /// Begins a family. Its samples follow, and then the next family.
    pub(super) fn family<'t>(&'t mut self, name: &'t str, kind: Kind, help: &str) -> Family<'t> {
        let (word, end) = match kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
            Kind::Histogram => ("histogram", ""),
        };
        // In OpenMetrics the family is named without what its samples end in.
        let shown = if self.format == Format::OpenMetrics { "" } else { end };
        let out = &mut self.out;
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name}{shown} ");
        escape(out, help, false);
        let _ = write!(out, "\n# TYPE {name}{shown} {word}\n");
        Family { out, name, end }
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// A family that is being written.
#[derive(Debug)]
pub(super) struct Family<'t> {
    out: &'t mut String,
    name: &'t str,
    end: &'static str,
}

impl Family<'_> {
    /// One sample: names of labels with their values, and the number.
    pub(super) fn put(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.sample(self.end, labels, None, value);
    }

    /// The samples of one histogram.
    pub(super) fn put_histogram(&mut self, labels: &[(&str, &str)], merged: &Merged) {
        let (mut below, mut next) = (0, 0);
        for power in POWERS {
            while next < merged.buckets.len() && bound_us(next) <= 1 << power {
                below += merged.buckets[next];
                next += 1;
            }
            let bound = seconds(1 << power);
            self.sample("_bucket", labels, Some(&bound), below);
        }
        let count = merged.count();
        self.sample("_bucket", labels, Some(&"+Inf"), count);
        self.sample("_sum", labels, None, seconds(merged.sum_us));
        self.sample("_count", labels, None, count);
    }

    fn sample(&mut self, end: &str, labels: &[(&str, &str)], le: Option<&dyn Display>, value: impl Display) {
        self.out.push_str(self.name);
        self.out.push_str(end);
        let mut before = '{';
        for (name, text) in labels {
            self.out.push(before);
            before = ',';
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(self.out, text, true);
            self.out.push('"');
        }
        if let Some(le) = le {
            let _ = write!(self.out, "{before}le=\"{le}\"");
            before = ',';
        }
        self.out.push_str(if before == '{' { " " } else { "} " });
        let _ = writeln!(self.out, "{value}");
    }
}

/// Microseconds as seconds, the base unit.
pub(super) fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn escape(out: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quoted => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::stats::histogram::Histogram;

    fn written(format: Format) -> String {
        let mut text = Text::new(format, 0);
        text.family("a", Kind::Counter, "One \\ two\nthree \"four\".").put(&[("n", "x\\y\n\"z\"")], 7);
        text.family("b_seconds", Kind::Gauge, "B.").put(&[], 0.25);
        text.finish()
    }

    #[test]
    fn both_formats_are_written_as_they_want_it() {
        let sample = "a_total{n=\"x\\\\y\\n\\\"z\\\"\"} 7\n";
        let help = "One \\\\ two\\nthree \"four\".";
        let rest = "# HELP b_seconds B.\n# TYPE b_seconds gauge\nb_seconds 0.25\n";
        assert_eq!(
            written(Format::Prometheus),
            format!("# HELP a_total {help}\n# TYPE a_total counter\n{sample}{rest}")
        );
        assert_eq!(
            written(Format::OpenMetrics),
            format!("# HELP a {help}\n# TYPE a counter\n{sample}{rest}# EOF\n")
        );
    }

    #[test]
    fn buckets_are_cumulative_and_exact_at_their_bounds() {
        let histogram = Histogram::default();
        [1, 32, 33, 64, 1 << 26, (1 << 26) + 1].into_iter().for_each(|us| histogram.record(us));
        let mut text = Text::new(Format::Prometheus, 0);
        let merged = Merged::of([&histogram].into_iter());
        text.family("h", Kind::Histogram, "H.").put_histogram(&[("p", "q")], &merged);
        let text = text.finish();
        for line in [
            "h_bucket{p=\"q\",le=\"0.000032\"} 2",
            "h_bucket{p=\"q\",le=\"0.000064\"} 4",
            "h_bucket{p=\"q\",le=\"33.554432\"} 4",
            "h_bucket{p=\"q\",le=\"67.108864\"} 5",
            "h_bucket{p=\"q\",le=\"+Inf\"} 6",
            "h_sum{p=\"q\"} 134.217859",
            "h_count{p=\"q\"} 6",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=0.1, text/plain;q=0.2", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }
}
