//! PutMetricData: what is put is checked whole, then kept whole.
//!
//! Source: the API reference's rules for values, times and names; AWS's texts.

use super::Door;
use super::answer::Node;
use super::error::Error;
use super::keeper::{Datum, Resolution};
use super::point::{Point, Unit};
use super::shapes::{self, MetricDatum, PutMetricData, StatisticSet};

/// AWS's bounds for one request and for one metric in it.
const DATA_MAX: usize = 1_000;
const VALUES_MAX: usize = 150;
/// How far a time may lie behind and before now.
const PAST_MS_MAX: i64 = 14 * 86_400_000;
const FUTURE_MS_MAX: i64 = 2 * 3_600_000;
/// Namespaces that begin so are AWS's own.
const RESERVED: &str = "AWS/";

pub async fn put_metric_data(door: &Door, input: PutMetricData) -> Result<Node, Error> {
    let namespace = input.namespace.as_ref().ok_or_else(|| Error::required("Namespace"))?;
    if namespace.starts_with(':') || namespace.starts_with(RESERVED) {
        let told = if namespace.starts_with(RESERVED) { RESERVED } else { namespace };
        return Err(Error::InvalidParameterValue(format!("The value {told} for parameter Namespace is invalid.")));
    }
    if input.metric_data.is_none() && input.entity_metric_data.is_none() {
        return Err(Error::required("MetricData"));
    }
    let entities = input.entity_metric_data.as_deref().unwrap_or_default();
    let in_entities = entities.iter().enumerate().flat_map(|(entity, data)| {
        let data = data.metric_data.as_deref().unwrap_or_default();
        data.iter().enumerate().map(move |(index, datum)| {
            (format!("EntityMetricData.member.{}.MetricData.member.{}.", entity + 1, index + 1), datum)
        })
    });
    let bare = input.metric_data.as_deref().unwrap_or_default().iter().enumerate();
    let bare = bare.map(|(index, datum)| (format!("MetricData.member.{}.", index + 1), datum));
    let given: Vec<(String, &MetricDatum)> = bare.chain(in_entities).collect();
    if given.len() > DATA_MAX {
        return Err(Error::invalid(format!("The collection MetricData must not have a size greater than {DATA_MAX}.")));
    }
    let now_ms = door.now_ms();
    let data: Vec<Datum> = given
        .iter()
        .map(|(path, datum)| read(path, namespace, datum, now_ms))
        .collect::<Result<Vec<Option<Datum>>, Error>>()?
        .into_iter()
        .flatten()
        .collect();
    if !data.is_empty() {
        door.keeper.put(data).await?;
    }
    Ok(Node::Structure(Vec::new()))
}

/// `None` for a datum without samples.
fn read(path: &str, namespace: &String, datum: &MetricDatum, now_ms: i64) -> Result<Option<Datum>, Error> {
    let name = shapes::name(path, Some(namespace), datum.metric_name.as_ref(), datum.dimensions.as_ref())?;
    let at_ms = datum.timestamp.map_or(now_ms, |timestamp| timestamp.0);
    if at_ms < now_ms - PAST_MS_MAX {
        return Err(Error::invalid(format!(
            "The parameter {path}Timestamp must specify a time within the past two weeks."
        )));
    }
    if at_ms > now_ms + FUTURE_MS_MAX {
        let text = format!("The parameter {path}Timestamp must specify a time no more than two hours in the future.");
        return Err(Error::InvalidParameterValue(text));
    }
    let unit = shapes::unit(&format!("{path}Unit"), datum.unit.as_ref())?.unwrap_or(Unit::default());
    let resolution = match datum.storage_resolution {
        None | Some(60) => Resolution::Minutes,
        Some(1) => Resolution::Seconds,
        Some(_) => {
            return Err(Error::invalid(format!("The parameter {path}StorageResolution must be either 1 or 60.")));
        }
    };
    let point = point(path, datum)?;
    Ok(point.map(|point| Datum { name, at_ms, unit, resolution, point }))
}

/// What a datum has: one value, values with their counts, or a statistic set.
fn point(path: &str, datum: &MetricDatum) -> Result<Option<Point>, Error> {
    let exclusive = |one: &str, other: &str| {
        Error::InvalidParameterCombination(format!(
            "The parameters {path}{one} and {path}{other} are mutually exclusive and you have specified both."
        ))
    };
    match (datum.value, datum.values.as_deref(), &datum.statistic_values) {
        (Some(_), Some(_), _) => Err(exclusive("Value", "Values")),
        (Some(_), _, Some(_)) => Err(exclusive("Value", "StatisticValues")),
        (None, Some(_), Some(_)) => Err(exclusive("Values", "StatisticValues")),
        (None, None, None) => Err(Error::MissingParameter(format!(
            "At least one of the parameters {path}Value, {path}Values or {path}StatisticValues must be specified."
        ))),
        (Some(value), None, None) => Ok(Point::of_values([(checked(path, "Value", value)?, 1.0)])),
        (None, None, Some(set)) => statistic_set(path, set).map(Some),
        (None, Some(values), None) => {
            let counts = datum.counts.as_deref();
            if counts.is_some_and(|counts| counts.len() != values.len()) {
                let text = format!("The parameters {path}Values and {path}Counts must be of the same size.");
                return Err(Error::InvalidParameterValue(text));
            }
            if values.len() > VALUES_MAX {
                let text = format!("The collection {path}Values must not have a size greater than {VALUES_MAX}.");
                return Err(Error::InvalidParameterValue(text));
            }
            let mut counted = Vec::with_capacity(values.len());
            for (index, value) in values.iter().enumerate() {
                let value = checked(path, &format!("Values.member.{}", index + 1), *value)?;
                let count = counts.and_then(|counts| counts.get(index)).copied().unwrap_or(1.0);
                let parameter = format!("Counts.member.{}", index + 1);
                let count = checked(path, &parameter, count)?;
                if count < 0.0 {
                    return Err(Error::invalid(format!("The parameter {path}{parameter} must be greater than 0.")));
                }
                counted.push((value, count));
            }
            Ok(Point::of_values(counted))
        }
    }
}

fn statistic_set(path: &str, set: &StatisticSet) -> Result<Point, Error> {
    let path = format!("{path}StatisticValues.");
    let member = |name: &str, value: Option<f64>| match value {
        Some(value) => checked(&path, name, value),
        None => Err(Error::required(&format!("{path}{name}"))),
    };
    let samples = member("SampleCount", set.sample_count)?;
    let sum = member("Sum", set.sum)?;
    let (minimum, maximum) = (member("Minimum", set.minimum)?, member("Maximum", set.maximum)?);
    if samples <= 0.0 {
        return Err(Error::invalid(format!("The parameter {path}SampleCount must be greater than 0.")));
    }
    if maximum < minimum {
        return Err(Error::invalid(format!("The parameter {path}Maximum must be greater than {path}Minimum.")));
    }
    Ok(Point::of_statistics(samples, sum, minimum, maximum))
}

/// Numbers are between -2^360 and 2^360.
fn checked(path: &str, parameter: &str, value: f64) -> Result<f64, Error> {
    if value.is_finite() && value.abs() <= 2f64.powi(360) {
        // There is one zero.
        return Ok(value + 0.0);
    }
    let told = match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        value => format!("{value:e}"),
    };
    Err(Error::invalid(format!("The value {told} for parameter {path}{parameter} is invalid.")))
}
