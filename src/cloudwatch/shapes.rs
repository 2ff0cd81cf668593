//! What operations take, as the service model has it. Members that mean nothing here (entities, other accounts) are read
//! over, like members that are not known.

use serde::Deserialize;

use super::answer::Node;
use super::error::Error;
use super::keeper::Name;
use super::point::{UNITS, Unit};
use crate::http::Timestamp;

/// AWS's bounds.
const NAME_CHARS_MAX: usize = 255;
const DIMENSION_VALUE_CHARS_MAX: usize = 1_024;
const DIMENSIONS_MAX: usize = 30;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutMetricData {
    pub namespace: Option<String>,
    pub metric_data: Option<Vec<MetricDatum>>,
    pub entity_metric_data: Option<Vec<EntityMetricData>>,
}

/// Metrics of an entity; which one is not kept.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EntityMetricData {
    pub metric_data: Option<Vec<MetricDatum>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MetricDatum {
    pub metric_name: Option<String>,
    pub dimensions: Option<Vec<Dimension>>,
    pub timestamp: Option<Timestamp>,
    pub value: Option<f64>,
    pub statistic_values: Option<StatisticSet>,
    pub values: Option<Vec<f64>>,
    pub counts: Option<Vec<f64>>,
    pub unit: Option<String>,
    pub storage_resolution: Option<i32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Dimension {
    pub name: Option<String>,
    pub value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StatisticSet {
    pub sample_count: Option<f64>,
    pub sum: Option<f64>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetMetricStatistics {
    pub namespace: Option<String>,
    pub metric_name: Option<String>,
    pub dimensions: Option<Vec<Dimension>>,
    pub start_time: Option<Timestamp>,
    pub end_time: Option<Timestamp>,
    pub period: Option<i32>,
    pub statistics: Option<Vec<String>>,
    pub extended_statistics: Option<Vec<String>>,
    pub unit: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetMetricData {
    pub metric_data_queries: Option<Vec<MetricDataQuery>>,
    pub start_time: Option<Timestamp>,
    pub end_time: Option<Timestamp>,
    pub next_token: Option<String>,
    pub scan_by: Option<String>,
    pub max_datapoints: Option<i32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MetricDataQuery {
    pub id: Option<String>,
    pub metric_stat: Option<MetricStat>,
    pub expression: Option<String>,
    pub label: Option<String>,
    pub return_data: Option<bool>,
    pub period: Option<i32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MetricStat {
    pub metric: Option<Metric>,
    pub period: Option<i32>,
    pub stat: Option<String>,
    pub unit: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metric {
    pub namespace: Option<String>,
    pub metric_name: Option<String>,
    pub dimensions: Option<Vec<Dimension>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListMetrics {
    pub namespace: Option<String>,
    pub metric_name: Option<String>,
    pub dimensions: Option<Vec<Dimension>>,
    pub next_token: Option<String>,
    pub recently_active: Option<String>,
}

/// A metric's name from its parts, which stand at `path` of the request.
pub fn name(
    path: &str,
    namespace: Option<&String>,
    metric: Option<&String>,
    dimensions: Option<&Vec<Dimension>>,
) -> Result<Name, Error> {
    let namespace = text("Namespace", namespace, NAME_CHARS_MAX)?;
    let metric = text(&format!("{path}MetricName"), metric, NAME_CHARS_MAX)?;
    let given = dimensions.map(Vec::as_slice).unwrap_or_default();
    if given.len() > DIMENSIONS_MAX {
        let text = format!("The collection {path}Dimensions must not have a size greater than {DIMENSIONS_MAX}.");
        return Err(Error::InvalidParameterValue(text));
    }
    let mut dimensions = Vec::with_capacity(given.len());
    for (index, dimension) in given.iter().enumerate() {
        let path = format!("{path}Dimensions.member.{}", index + 1);
        let name = text(&format!("{path}.Name"), dimension.name.as_ref(), NAME_CHARS_MAX)?;
        let value = text(&format!("{path}.Value"), dimension.value.as_ref(), DIMENSION_VALUE_CHARS_MAX)?;
        dimensions.push((name, value));
    }
    Ok(Name::new(namespace, metric, dimensions))
}

fn text(path: &str, value: Option<&String>, chars_max: usize) -> Result<String, Error> {
    match value.map(|value| (value, value.chars().count())) {
        None => Err(Error::required(path)),
        Some((_, 0)) => Err(Error::InvalidParameterValue(format!("The parameter {path} must not be empty."))),
        Some((_, chars)) if chars > chars_max => {
            let text = format!("The parameter {path} must be shorter than {} characters.", chars_max + 1);
            Err(Error::InvalidParameterValue(text))
        }
        Some((value, _)) => Ok(value.clone()),
    }
}

pub fn unit(path: &str, name: Option<&String>) -> Result<Option<Unit>, Error> {
    let Some(name) = name else { return Ok(None) };
    let wrong = || {
        let set = UNITS.join(", ");
        Error::InvalidParameterValue(format!("The parameter {path} must be a value in the set [ {set} ]."))
    };
    Unit::of(name).map(Some).ok_or_else(wrong)
}

/// A metric in an answer.
pub fn metric(name: &Name) -> Node {
    let dimensions = name
        .dimensions
        .iter()
        .map(|(name, value)| Node::Structure(vec![("Name", Node::text(name)), ("Value", Node::text(value))]));
    Node::Structure(vec![
        ("Namespace", Node::text(&name.namespace)),
        ("MetricName", Node::text(&name.metric)),
        ("Dimensions", Node::List(dimensions.collect())),
    ])
}
