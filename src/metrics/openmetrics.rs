//! The two forms in which series are told, which of them a client asks for, and the one that the `prometheus` crate does
//! not write: OpenMetrics, with units and exemplars.
//!
//! Source: OpenMetrics 1.0.0, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::fmt::Write;

use prometheus::proto::{Histogram, LabelPair, MetricFamily, MetricType};

use super::handles::Exemplar;

/// Units that names end with, as far as OpenMetrics is told of them.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// In which form series are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Prometheus' text format 0.0.4, which everybody reads.
    Prometheus,
    OpenMetrics,
}

impl TextFormat {
    pub fn content_type(self) -> &'static str {
        match self {
            TextFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            TextFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What a client prefers that sends this `Accept` header; the first of those it likes as well.
    pub fn negotiate(accept: Option<&str>) -> TextFormat {
        let mut best = (TextFormat::Prometheus, 0.0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut version, mut quality) = (None, 1.0);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim() {
                    "version" => version = Some(value.trim().trim_matches('"')),
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    _ => {}
                }
            }
            let format = match (&*media, version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => TextFormat::OpenMetrics,
                ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => TextFormat::Prometheus,
                _ => continue,
            };
            if quality > best.1 {
                best = (format, quality);
            }
        }
        best.0
    }
}

/// The exemplars of a series, one for each of its buckets; none for most.
pub(super) type Exemplars<'a> = &'a dyn Fn(&str, &[LabelPair]) -> Option<Vec<Option<Exemplar>>>;

/// Everything as OpenMetrics.
pub(super) fn encode(families: &[MetricFamily], exemplars: Exemplars) -> String {
    let mut text = Text(String::new());
    for family in families {
        let kind = family.get_field_type();
        let name = match kind {
            MetricType::COUNTER => family.name().strip_suffix("_total").unwrap_or(family.name()),
            _ => family.name(),
        };
        text.head(name, kind, family.help());
        for metric in family.get_metric() {
            let labels = metric.get_label();
            match kind {
                MetricType::COUNTER => text.sample(name, "_total", labels, None, metric.get_counter().get_value()),
                MetricType::HISTOGRAM => {
                    let exemplars = exemplars(family.name(), labels).unwrap_or_default();
                    text.histogram(name, labels, metric.get_histogram(), &exemplars);
                }
                // Nothing else is declared.
                _ => text.sample(name, "", labels, None, metric.get_gauge().get_value()),
            }
        }
    }
    text.0.push_str("# EOF\n");
    text.0
}

// Writing to a text does not fail.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: MetricType, help: &str) {
        let kind = match kind {
            MetricType::COUNTER => "counter",
            MetricType::HISTOGRAM => "histogram",
            _ => "gauge",
        };
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
        if let Some(unit) = UNITS.iter().find(|unit| name.strip_suffix(**unit).is_some_and(|rest| rest.ends_with('_')))
        {
            let _ = writeln!(self.0, "# UNIT {name} {unit}");
        }
        let _ = write!(self.0, "# HELP {name} ");
        self.escaped(help);
        self.0.push('\n');
    }

    /// Without the end of the line.
    fn begin(&mut self, name: &str, suffix: &str, labels: &[LabelPair], bucket: Option<&str>, value: f64) {
        self.0.push_str(name);
        self.0.push_str(suffix);
        let mut separator = '{';
        let pairs = labels.iter().map(|label| (label.name(), label.value()));
        for (name, value) in pairs.chain(bucket.map(|bound| ("le", bound))) {
            let _ = write!(self.0, "{separator}{name}=\"");
            self.escaped(value);
            self.0.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.0.push('}');
        }
        let _ = write!(self.0, " {}", number(value));
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &[LabelPair], bucket: Option<&str>, value: f64) {
        self.begin(name, suffix, labels, bucket, value);
        self.0.push('\n');
    }

    fn histogram(&mut self, name: &str, labels: &[LabelPair], histogram: &Histogram, exemplars: &[Option<Exemplar>]) {
        let bounds =
            histogram.get_bucket().iter().map(|bucket| (bound(bucket.upper_bound()), bucket.cumulative_count()));
        let all = ("+Inf".to_owned(), histogram.get_sample_count());
        for (at, (bound, count)) in bounds.chain([all]).enumerate() {
            self.begin(name, "_bucket", labels, Some(&bound), count as f64);
            if let Some(Some(Exemplar { trace, value })) = exemplars.get(at) {
                let _ = write!(self.0, " # {{trace_id=\"{:032x}\"}} {}", trace.0, number(*value));
            }
            self.0.push('\n');
        }
        self.sample(name, "_sum", labels, None, histogram.get_sample_sum());
        self.sample(name, "_count", labels, None, histogram.get_sample_count() as f64);
    }

    fn escaped(&mut self, text: &str) {
        for char in text.chars() {
            match char {
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '"' => self.0.push_str("\\\""),
                other => self.0.push(other),
            }
        }
    }
}

fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

/// A bucket's bound in its one form: a number with a point, or from 0.00001 down with an exponent of two digits.
fn bound(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, TraceId};

    #[test]
    fn the_form_is_what_the_client_likes_best() {
        let negotiate = |accept: &str| TextFormat::negotiate(Some(accept));
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(negotiate(prometheus), TextFormat::OpenMetrics);
        assert_eq!(
            negotiate("application/openmetrics-text; version=\"1.0.0\"; charset=utf-8"),
            TextFormat::OpenMetrics
        );
        assert_eq!(negotiate("Application/OpenMetrics-Text"), TextFormat::OpenMetrics);
        assert_eq!(negotiate("text/plain, application/openmetrics-text"), TextFormat::Prometheus);
        assert_eq!(negotiate("text/plain;q=0.5, application/openmetrics-text"), TextFormat::OpenMetrics);
        assert_eq!(negotiate("application/openmetrics-text;version=9.0.0"), TextFormat::Prometheus);
        assert_eq!(negotiate("application/openmetrics-text;q=0"), TextFormat::Prometheus);
        assert_eq!(negotiate("*/*"), TextFormat::Prometheus);
        assert_eq!(TextFormat::negotiate(None), TextFormat::Prometheus);
    }

    #[test]
    fn counters_units_and_exemplars_are_told_as_openmetrics_has_them() {
        let metrics = Metrics::new(10);
        let fetch = metrics.api("Fetch");
        fetch.observe("NONE", 0.0002, Some(TraceId(0xabc)));
        fetch.observe("NONE", 99.0, Some(TraceId(0xdef)));
        fetch.observe("NONE", 0.2, None);
        metrics.store_commit(0.00002, 1);
        metrics.stream("a\"b\\c\nd").incoming(crate::model::ids::ShardOrdinal(0), 1, 2);
        let text = metrics.render(TextFormat::OpenMetrics, |_| ());
        let has = |line: &str| assert!(text.lines().any(|one| one == line), "no {line}");
        has("# TYPE anabranch_kafka_requests counter");
        has("# HELP anabranch_kafka_requests Kafka requests answered");
        has("anabranch_kafka_requests_total{api=\"Fetch\",error=\"NONE\"} 3");
        has("# TYPE anabranch_kafka_request_seconds histogram");
        has("# UNIT anabranch_kafka_request_seconds seconds");
        has("anabranch_kafka_request_seconds_bucket{api=\"Fetch\",le=\"0.0001\"} 0");
        has("anabranch_kafka_request_seconds_bucket{api=\"Fetch\",le=\"0.00025\"} 1 \
             # {trace_id=\"00000000000000000000000000000abc\"} 0.0002");
        has("anabranch_kafka_request_seconds_bucket{api=\"Fetch\",le=\"1.0\"} 2");
        has("anabranch_kafka_request_seconds_bucket{api=\"Fetch\",le=\"+Inf\"} 3 \
             # {trace_id=\"00000000000000000000000000000def\"} 99");
        has("anabranch_kafka_request_seconds_count{api=\"Fetch\"} 3");
        has("anabranch_store_commit_seconds_bucket{le=\"2.5e-05\"} 1");
        has("anabranch_stream_incoming_bytes_total{stream=\"a\\\"b\\\\c\\nd\"} 2");
        has("# UNIT anabranch_stream_incoming_bytes bytes");
        assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
        assert!(!metrics.render(TextFormat::Prometheus, |_| ()).contains("trace_id"), "the older form has none");
    }

    #[test]
    fn no_two_families_have_one_name() {
        let mut names: Vec<_> = Metrics::declared().into_iter().map(|one| one.name).collect();
        let count = names.len();
        names.iter_mut().for_each(|name| *name = name.strip_suffix("_total").unwrap_or(name).to_owned());
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
