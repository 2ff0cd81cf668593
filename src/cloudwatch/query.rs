//! GetMetricStatistics and GetMetricData: points merged into periods, and what they come to.
//!
//! Periods of less than a minute are made of points of seconds, which are kept for three hours; others of minutes. They
//! are counted from the start, which is rounded down to what they are made of. One call at most reads
//! [`POINTS_READ_MAX`] points.
//!
//! Deviations: minutes are kept for 15 days and not merged into longer ones after that; statistics are those of
//! [`Statistic`]; expressions are those of [`super::math`].

use std::collections::BTreeMap;

use super::Door;
use super::answer::Node;
use super::error::Error;
use super::keeper::{Keeper, Name, Resolution};
use super::math::{self, Series};
use super::point::{Point, Statistic, Unit};
use super::shapes::{self, GetMetricData, GetMetricStatistics, MetricDataQuery, MetricStat};
use crate::http::Timestamp;

/// AWS's bounds.
const STATISTICS_POINTS_MAX: i64 = 1_440;
const QUERIES_MAX: usize = 500;
const DATAPOINTS_MAX: usize = 100_800;
/// Stored points that one call reads: 40 metrics for as long as minutes are kept.
const POINTS_READ_MAX: usize = 1_000_000;

/// Periods of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    from_s: i64,
    to_s: i64,
    period_s: i64,
}

impl Window {
    fn new(start_ms: i64, end_ms: i64, period_s: i64) -> Window {
        let base_s = if period_s < 60 { period_s } else { 60 };
        let floor = |ms: i64| ms.div_euclid(1_000).div_euclid(base_s) * base_s;
        Window { from_s: floor(start_ms), to_s: end_ms.div_euclid(1_000), period_s }
    }

    fn resolution(&self) -> Resolution {
        if self.period_s < 60 { Resolution::Seconds } else { Resolution::Minutes }
    }

    fn periods(&self) -> i64 {
        (self.to_s - self.from_s).max(0).unsigned_abs().div_ceil(self.period_s.max(1).unsigned_abs()) as i64
    }
}

/// What one metric has: by the begin of the period and the unit.
fn periods(
    keeper: &Keeper,
    name: &Name,
    window: Window,
    unit: Option<Unit>,
    left: &mut usize,
) -> Result<BTreeMap<(i64, Unit), Point>, Error> {
    let mut periods: BTreeMap<(i64, Unit), Point> = BTreeMap::new();
    let Some(metric) = keeper.metric(name) else { return Ok(periods) };
    let second = |s: i64| u32::try_from(s.max(0)).unwrap_or(u32::MAX);
    let read =
        keeper.points(&metric, window.resolution(), second(window.from_s), second(window.to_s), |at, of, point| {
            *left = left.saturating_sub(1);
            if unit.is_none_or(|unit| unit == of) {
                let begin =
                    window.from_s + (i64::from(at) - window.from_s).div_euclid(window.period_s) * window.period_s;
                match periods.get_mut(&(begin, of)) {
                    Some(whole) => whole.merge(&point),
                    None => drop(periods.insert((begin, of), point)),
                }
            }
            *left > 0
        });
    read.map_err(|error| Error::internal(&error))?;
    if *left == 0 {
        return Err(Error::LimitExceeded(format!("The request would read more than {POINTS_READ_MAX} stored points.")));
    }
    Ok(periods)
}

/// The period at `path`: a second or a few, or minutes.
fn period(path: &str, period: Option<i32>) -> Result<i64, Error> {
    match period {
        None => Err(Error::required(path)),
        Some(period) if matches!(period, 1 | 5 | 10 | 20 | 30) || (period >= 60 && period % 60 == 0) => {
            Ok(period.into())
        }
        Some(_) => Err(Error::invalid(format!(
            "The parameter {path} must be a value in the set [ 1, 5, 10, 20, 30 ] or a multiple of 60."
        ))),
    }
}

fn times(start: Option<Timestamp>, end: Option<Timestamp>) -> Result<(i64, i64), Error> {
    let start_ms = start.ok_or_else(|| Error::required("StartTime"))?.0;
    let end_ms = end.ok_or_else(|| Error::required("EndTime"))?.0;
    // Far beyond any time that a point can have.
    let bounded = |ms: i64| ms.clamp(0, i64::from(u32::MAX) * 1_000);
    Ok((bounded(start_ms), bounded(end_ms)))
}

const BACKWARDS: &str = "The parameter StartTime must be less than the parameter EndTime.";

/// Blocks.
pub fn get_metric_statistics(door: &Door, input: &GetMetricStatistics) -> Result<Node, Error> {
    let dimensions = input.dimensions.as_ref();
    let name = shapes::name("", input.namespace.as_ref(), input.metric_name.as_ref(), dimensions)?;
    let (start_ms, end_ms) = times(input.start_time, input.end_time)?;
    let period_s = period("Period", input.period)?;
    let unit = shapes::unit("Unit", input.unit.as_ref())?;
    let (simple, extended) = statistics(input)?;
    if start_ms >= end_ms {
        return Err(Error::InvalidParameterValue(BACKWARDS.to_owned()));
    }
    let window = Window::new(start_ms, end_ms, period_s);
    if window.periods() > STATISTICS_POINTS_MAX {
        return Err(Error::InvalidParameterCombination(format!(
            "You have requested up to {} datapoints, which exceeds the limit of 1,440. You may reduce the datapoints \
             requested by increasing Period, or decreasing the time range.",
            grouped(window.periods())
        )));
    }
    let periods = periods(&door.keeper, &name, window, unit, &mut POINTS_READ_MAX.clone())?;
    let datapoints = periods.iter().filter_map(|((at_s, unit), point)| {
        let mut members = vec![("Timestamp", Node::Time(at_s * 1_000))];
        for (name, statistic) in &simple {
            members.extend(point.statistic(*statistic).map(|value| (*name, Node::Number(value))));
        }
        members.push(("Unit", Node::text(unit.name())));
        let extended: Vec<_> = extended
            .iter()
            .filter_map(|(name, statistic)| Some((name.clone(), Node::Number(point.statistic(*statistic)?))))
            .collect();
        let has_any = members.len() > 2 || !extended.is_empty();
        if !extended.is_empty() {
            members.push(("ExtendedStatistics", Node::Map(extended)));
        }
        has_any.then_some(Node::Structure(members))
    });
    let datapoints = datapoints.collect();
    Ok(Node::Structure(vec![("Label", Node::text(&name.metric)), ("Datapoints", Node::List(datapoints))]))
}

type Simple = Vec<(&'static str, Statistic)>;
type Extended = Vec<(String, Statistic)>;

fn statistics(input: &GetMetricStatistics) -> Result<(Simple, Extended), Error> {
    const NAMES: [&str; 5] = ["SampleCount", "Average", "Sum", "Minimum", "Maximum"];
    let simple = input.statistics.as_deref().unwrap_or_default();
    let extended = input.extended_statistics.as_deref().unwrap_or_default();
    if simple.is_empty() && extended.is_empty() {
        let text = "Must specify either Statistics or ExtendedStatistics.";
        return Err(Error::InvalidParameterCombination(text.to_owned()));
    }
    let invalid = |parameter: &str, index: usize, name: &str| {
        let text = format!("The value {name} for parameter {parameter}.member.{} is invalid.", index + 1);
        Err(Error::InvalidParameterValue(text))
    };
    let mut found = (Vec::new(), Vec::new());
    for (index, name) in simple.iter().enumerate() {
        match (NAMES.iter().find(|known| *known == name), Statistic::simple(name)) {
            (Some(name), Some(statistic)) if !found.0.contains(&(*name, statistic)) => found.0.push((*name, statistic)),
            (Some(_), Some(_)) => {}
            (None, _) | (_, None) => return invalid("Statistics", index, name),
        }
    }
    if extended.len() > 10 {
        let text = "The collection ExtendedStatistics must not have a size greater than 10.";
        return Err(Error::InvalidParameterValue(text.to_owned()));
    }
    for (index, name) in extended.iter().enumerate() {
        match Statistic::percentile(name) {
            Some(statistic) => found.1.push((name.clone(), statistic)),
            None => return invalid("ExtendedStatistics", index, name),
        }
    }
    Ok(found)
}

/// A number with commas between its thousands.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Blocks.
pub fn get_metric_data(door: &Door, input: &GetMetricData) -> Result<Node, Error> {
    let queries = input.metric_data_queries.as_deref().ok_or_else(|| Error::required("MetricDataQueries"))?;
    let (start_ms, end_ms) = times(input.start_time, input.end_time)?;
    if start_ms >= end_ms {
        return Err(Error::Validation(BACKWARDS.to_owned()));
    }
    if queries.len() > QUERIES_MAX {
        let text = format!("The collection MetricDataQueries must not have a size greater than {QUERIES_MAX}.");
        return Err(Error::Validation(text));
    }
    let descending = match input.scan_by.as_deref() {
        None | Some("TimestampDescending") => true,
        Some("TimestampAscending") => false,
        Some(other) => return Err(Error::Validation(format!("The value {other} for parameter ScanBy is invalid."))),
    };
    let most = usize::try_from(input.max_datapoints.unwrap_or(i32::MAX)).unwrap_or(0).min(DATAPOINTS_MAX);
    if most == 0 {
        return Err(Error::Validation("The parameter MaxDatapoints must be greater than 0.".to_owned()));
    }
    let skipped = match &input.next_token {
        None => 0,
        Some(token) => token.parse().map_err(|_| Error::InvalidNextToken)?,
    };
    let series = evaluate(door, queries, start_ms, end_ms)?;
    Ok(page(queries, &series, descending, skipped, most))
}

/// The values of every query, in their order.
fn evaluate(
    door: &Door,
    queries: &[MetricDataQuery],
    start_ms: i64,
    end_ms: i64,
) -> Result<Vec<(String, Series)>, Error> {
    let mut left = POINTS_READ_MAX;
    let mut known: BTreeMap<&str, (String, Series)> = BTreeMap::new();
    for (index, query) in queries.iter().enumerate() {
        let path = format!("MetricDataQueries.member.{}", index + 1);
        let id = checked_id(&path, query)?;
        if known.contains_key(id) {
            return Err(Error::Validation(format!(
                "The values for parameter id in MetricDataQueries are not unique: {id}."
            )));
        }
        let found = match (&query.metric_stat, &query.expression) {
            (Some(_), Some(_)) => return Err(exclusive(&path, "Expression")),
            (None, None) => {
                let text =
                    format!("Exactly one of the parameters {path}.MetricStat and {path}.Expression must be specified.");
                return Err(Error::Validation(text));
            }
            (Some(_), None) if query.period.is_some() => return Err(exclusive(&path, "Period")),
            (Some(stat), None) => metric_stat(door, &path, stat, (start_ms, end_ms), &mut left)?,
            // Once what it speaks of is known.
            (None, Some(expression)) => (expression.clone(), Series::default()),
        };
        known.insert(id, found);
    }
    let expressions: Vec<(&str, &str)> =
        queries.iter().filter_map(|query| Some((query.id.as_deref()?, query.expression.as_deref()?))).collect();
    let mut series: BTreeMap<&str, Series> = known.iter().map(|(id, (_, series))| (*id, series.clone())).collect();
    let is_expression = |id: &str| expressions.iter().any(|(other, _)| *other == id);
    let metrics: Vec<String> = known.keys().filter(|id| !is_expression(id)).map(|id| (*id).to_owned()).collect();
    math::evaluate_all(&expressions, &metrics, &mut series).map_err(Error::Validation)?;
    let of = |query: &MetricDataQuery| {
        let id = query.id.as_deref().unwrap_or_default();
        let label = known.get(id).map(|(label, _)| label.clone()).unwrap_or_default();
        (label, series.get(id).cloned().unwrap_or_default())
    };
    Ok(queries.iter().map(of).collect())
}

fn exclusive(path: &str, other: &str) -> Error {
    Error::Validation(format!(
        "The parameters {path}.{other} and {path}.MetricStat are mutually exclusive and you have specified both."
    ))
}

/// A small letter, then letters, digits and underscores.
fn checked_id<'a>(path: &str, query: &'a MetricDataQuery) -> Result<&'a str, Error> {
    let id = query.id.as_deref().ok_or_else(|| Error::required(&format!("{path}.Id")))?;
    let is_right = id.len() <= 255
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_right {
        Ok(id)
    } else {
        Err(Error::Validation(format!("The value {id} for parameter {path}.Id is invalid.")))
    }
}

fn metric_stat(
    door: &Door,
    path: &str,
    stat: &MetricStat,
    (start_ms, end_ms): (i64, i64),
    left: &mut usize,
) -> Result<(String, Series), Error> {
    let path = format!("{path}.MetricStat.");
    let metric = stat.metric.as_ref().ok_or_else(|| Error::required(&format!("{path}Metric")))?;
    let dimensions = metric.dimensions.as_ref();
    let in_metric = format!("{path}Metric.");
    let name = shapes::name(&in_metric, metric.namespace.as_ref(), metric.metric_name.as_ref(), dimensions)?;
    let period_s = period(&format!("{path}Period"), stat.period)?;
    let wanted = stat.stat.as_deref().ok_or_else(|| Error::required(&format!("{path}Stat")))?;
    let statistic = Statistic::simple(wanted).or_else(|| Statistic::percentile(wanted));
    let invalid = || Error::Validation(format!("The value {wanted} for parameter {path}Stat is not supported."));
    let statistic = statistic.ok_or_else(invalid)?;
    let unit = shapes::unit(&format!("{path}Unit"), stat.unit.as_ref())?;
    let window = Window::new(start_ms, end_ms, period_s);
    let mut points: BTreeMap<i64, Point> = BTreeMap::new();
    for ((at_s, _), point) in periods(&door.keeper, &name, window, unit, left)? {
        match points.get_mut(&at_s) {
            Some(whole) => whole.merge(&point),
            None => drop(points.insert(at_s, point)),
        }
    }
    let values = points.iter().filter_map(|(at_s, point)| Some((*at_s, point.statistic(statistic)?)));
    let label = name.metric.clone();
    Ok((label, Series { values: values.collect(), window: Some((window.from_s, window.to_s, window.period_s)) }))
}

/// The part of all datapoints that one answer has.
fn page(
    queries: &[MetricDataQuery],
    series: &[(String, Series)],
    descending: bool,
    skipped: usize,
    most: usize,
) -> Node {
    let (mut skip, mut left) = (skipped, most);
    let mut more = false;
    let mut results = Vec::new();
    for (query, (label, series)) in queries.iter().zip(series) {
        if query.return_data == Some(false) {
            continue;
        }
        let count = series.values.len();
        let from = skip.min(count);
        skip -= from;
        let taken = left.min(count - from);
        left -= taken;
        let is_complete = from + taken == count;
        more |= !is_complete;
        let mut values: Vec<(i64, f64)> = series.values.iter().map(|(at_s, value)| (*at_s, *value)).collect();
        if descending {
            values.reverse();
        }
        let values = values.get(from..from + taken).unwrap_or_default();
        let status = if is_complete { "Complete" } else { "PartialData" };
        results.push(Node::Structure(vec![
            ("Id", Node::text(query.id.as_deref().unwrap_or_default())),
            ("Label", Node::text(query.label.as_ref().unwrap_or(label))),
            ("Timestamps", Node::List(values.iter().map(|(at_s, _)| Node::Time(at_s * 1_000)).collect())),
            ("Values", Node::List(values.iter().map(|(_, value)| Node::Number(*value)).collect())),
            ("StatusCode", Node::text(status)),
        ]));
    }
    let mut answer = vec![("MetricDataResults", Node::List(results))];
    if more {
        answer.push(("NextToken", Node::Text((skipped + most).to_string())));
    }
    answer.push(("Messages", Node::List(Vec::new())));
    Node::Structure(answer)
}
