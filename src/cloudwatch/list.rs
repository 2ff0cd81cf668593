//! ListMetrics: which metrics had points in the last two weeks, by parts of their names.

use std::sync::atomic::Ordering;

use super::Door;
use super::answer::Node;
use super::error::Error;
use super::keeper::Name;
use super::shapes::{self, Dimension, ListMetrics};

/// AWS's bounds.
const PAGE_MAX: usize = 500;
const FILTERS_MAX: usize = 10;
const LISTED_MS: i64 = 14 * 86_400_000;
const RECENT_MS: i64 = 3 * 3_600_000;

pub fn list_metrics(door: &Door, input: &ListMetrics) -> Result<Node, Error> {
    let filters = input.dimensions.as_deref().unwrap_or_default();
    if filters.len() > FILTERS_MAX {
        let text = format!("The collection Dimensions must not have a size greater than {FILTERS_MAX}.");
        return Err(Error::InvalidParameterValue(text));
    }
    for (index, filter) in filters.iter().enumerate() {
        filter.name.as_ref().ok_or_else(|| Error::required(&format!("Dimensions.member.{}.Name", index + 1)))?;
    }
    let since_ms = match input.recently_active.as_deref() {
        None => LISTED_MS,
        Some("PT3H") => RECENT_MS,
        Some(other) => {
            return Err(Error::invalid(format!("The value {other} for parameter RecentlyActive is invalid.")));
        }
    };
    let after = match &input.next_token {
        None => None,
        Some(token) => Some(token.parse().map_err(|_| Error::invalid(Error::InvalidNextToken.message()))?),
    };
    let oldest_ms = door.now_ms() - since_ms;
    let (mut listed, mut last, mut more) = (Vec::new(), None, false);
    door.keeper.each_after(after, |metric| {
        if metric.last_ms.load(Ordering::Relaxed) < oldest_ms || !matches(&metric.name, input, filters) {
            return true;
        }
        more = listed.len() == PAGE_MAX;
        if !more {
            listed.push(shapes::metric(&metric.name));
            last = Some(metric.id);
        }
        !more
    });
    let mut answer = vec![("Metrics", Node::List(listed))];
    if let Some(last) = last.filter(|_| more) {
        answer.push(("NextToken", Node::Text(last.to_string())));
    }
    Ok(Node::Structure(answer))
}

fn matches(name: &Name, input: &ListMetrics, filters: &[Dimension]) -> bool {
    let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
    let has = |filter: &Dimension| {
        name.dimensions.iter().any(|(name, value)| filter.name.as_ref() == Some(name) && is(&filter.value, value))
    };
    is(&input.namespace, &name.namespace) && is(&input.metric_name, &name.metric) && filters.iter().all(has)
}
