//! What `/metrics` says at one moment: Prometheus' text format, read. Pure.
//!
//! Source: Prometheus documentation, "Exposition formats".

use std::collections::HashMap;

/// Series of one answer.
const SERIES_MAX: usize = 1_000_000;

/// Series by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    by_name: HashMap<String, Vec<Series>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    labels: Vec<(String, String)>,
    pub value: f64,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    #[error("line {0} of the metrics cannot be read")]
    Line(usize),
    #[error("there are more than {SERIES_MAX} series")]
    TooMany,
}

impl Series {
    /// Empty where the series has no such label.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| label == name).map_or("", |(_, value)| value)
    }
}

impl Sample {
    pub fn parse(text: &str) -> Result<Sample, SampleError> {
        let mut sample = Sample::default();
        let mut count = 0;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            count += 1;
            if count > SERIES_MAX {
                return Err(SampleError::TooMany);
            }
            let (name, series) = parse_line(line).ok_or(SampleError::Line(index + 1))?;
            match sample.by_name.get_mut(name) {
                Some(all) => all.push(series),
                None => {
                    sample.by_name.insert(name.to_owned(), vec![series]);
                }
            }
        }
        // So that another sample finds each of them at once.
        sample.by_name.values_mut().for_each(|all| all.sort_by(|a, b| a.labels.cmp(&b.labels)));
        Ok(sample)
    }

    pub fn all(&self, name: &str) -> &[Series] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The one series of a name; none where there is none.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.all(name).first().map(|series| series.value)
    }

    /// Of all series of a name; none where there is none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let all = self.all(name);
        (!all.is_empty()).then(|| all.iter().map(|series| series.value).sum())
    }

    pub fn find(&self, name: &str, labels: &Series) -> Option<&Series> {
        let all = self.all(name);
        all.get(all.binary_search_by(|series| series.labels.cmp(&labels.labels)).ok()?)
    }
}

/// `name{label="value",...} number [timestamp]`
fn parse_line(line: &str) -> Option<(&str, Series)> {
    let name_end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then_some((name, Series { labels, value }))
}

/// What stands in braces, and what follows them.
fn parse_labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, behind) = parse_quoted(quoted)?;
        labels.push((name.trim().to_owned(), value));
        rest = behind;
    }
}

/// Up to the closing quote, and what follows it.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_line_is_read() {
        let text = "# HELP a_total What a is.\n# TYPE a_total counter\na_total 3\n\
            a_total{stream=\"x\",note=\"say \\\"hi\\\", {or} \\\\ not\\n\"} 1e3 1700000000000\n\
            b{ } +Inf\n  c{x=\"1\",} NaN\nd_total{x=\"1\"} 7 # {trace_id=\"t\"} 0.1\n# EOF\n";
        let sample = Sample::parse(text).unwrap();
        assert_eq!((sample.sum("a_total"), sample.value("a_total")), (Some(1_003.0), Some(3.0)));
        let labelled = &sample.all("a_total")[1];
        assert_eq!((labelled.label("stream"), labelled.label("other")), ("x", ""));
        assert_eq!(labelled.label("note"), "say \"hi\", {or} \\ not\n");
        assert_eq!(sample.value("b"), Some(f64::INFINITY));
        assert!(sample.value("c").unwrap().is_nan());
        assert_eq!(sample.value("d_total"), Some(7.0));
        assert_eq!((sample.value("e"), sample.sum("e")), (None, None));
        assert_eq!(sample.find("a_total", labelled), Some(labelled));
    }

    #[test]
    fn what_is_no_metric_is_told_by_its_line() {
        for line in ["a", "{x=\"1\"} 1", "a{x=\"1\" 1", "a{x=1} 1", "a{x=\"1} 1", "a one", "<html>", "a{x=\"\\"] {
            assert_eq!(Sample::parse(&format!("ok 1\n{line}\n")), Err(SampleError::Line(2)), "{line}");
        }
        assert_eq!(Sample::parse(""), Ok(Sample::default()));
    }
}
