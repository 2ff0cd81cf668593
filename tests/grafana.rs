//! What `grafana/` shows and warns of against what the broker declares: a series or label that is renamed here and not there
//! would leave a panel empty or an alert silent. What the expressions give is looked at by `compat/prometheus`, and the
//! types of the files by `compat/grafana`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anabranch::metrics::{Declared, Kind, Metrics};
use regex::{Captures, Regex};
use serde_json::Value;

/// Labels that Prometheus adds, and those that expressions and alerts make themselves.
const OF_PROMETHEUS: &[&str] = &["instance", "job", "le", "of"];
/// Declared series that no page shows, and why.
const NOT_SHOWN: &[(&str, &str)] = &[
    ("process_virtual_memory_bytes", "address space tells nothing of what is used"),
    ("process_start_time_seconds", "the time since the start is shown"),
];

fn folder() -> PathBuf {
    PathBuf::from("grafana")
}

fn dashboards() -> BTreeMap<String, Value> {
    let files = fs::read_dir(folder().join("dashboards")).unwrap().map(|entry| entry.unwrap().path());
    let read = files.map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let page = serde_json::from_str(&fs::read_to_string(&path).unwrap());
        (name, page.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    });
    read.collect()
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Every expression that a page asks for, and where it is.
fn expressions(pages: &BTreeMap<String, Value>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, page) in pages {
        let mut ask =
            |what: &Value, text: &Value| found.push((format!("{name}: {what}"), text.as_str().unwrap().to_owned()));
        for panel in list(page, "/panels") {
            list(panel, "/targets").iter().for_each(|target| ask(&panel["title"], &target["expr"]));
        }
        for variable in list(page, "/templating/list").iter().filter(|variable| variable["type"] == "query") {
            ask(&variable["name"], &variable["query"]["query"]);
        }
        list(page, "/annotations/list").iter().for_each(|asked| ask(&asked["name"], &asked["target"]["expr"]));
    }
    found
}

/// The expressions of the alert rules. An expression over several lines is folded into one.
fn rules() -> Vec<(String, String)> {
    let text = fs::read_to_string(folder().join("prometheus/rules.yml")).unwrap();
    let rule = Regex::new(r"(?s)- alert: (\w+)\n(?:\s*#[^\n]*\n)?\s+expr: (?:>-)?(.*?)\n\s+for:").unwrap();
    let found: Vec<_> = rule.captures_iter(&text).map(|rule| (rule[1].to_owned(), rule[2].to_owned())).collect();
    assert_eq!(found.len(), text.matches("- alert:").count(), "an alert without an expression or a time");
    found
}

/// The declared series by each name that Prometheus knows it by.
fn declared() -> BTreeMap<String, Declared> {
    let mut known = BTreeMap::new();
    for series in Metrics::declared() {
        let parts: &[&str] = if series.kind == Kind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        known.extend(parts.iter().map(|part| (format!("{}{part}", series.name), series.clone())));
    }
    known
}

/// What an expression asks for that is not there. Adds the series that are to `shown`.
fn unknown(expression: &str, known: &BTreeMap<String, Declared>, shown: &mut BTreeSet<String>) -> Vec<String> {
    let word = Regex::new(r"\b(?:anabranch|process)_\w+").unwrap();
    let spelt = spelt_out(expression);
    let mut labels: BTreeSet<&str> = OF_PROMETHEUS.iter().copied().collect();
    let mut problems = Vec::new();
    for name in word.find_iter(&spelt) {
        match known.get(name.as_str()) {
            Some(series) => {
                labels.extend(series.labels.iter().map(String::as_str));
                shown.insert(series.name.clone());
            }
            None => problems.push(format!("{} is not declared", name.as_str())),
        }
    }
    if !word.is_match(&spelt) && !["ALERTS{", "up{"].iter().any(|own| spelt.contains(own)) {
        problems.push("asks for no series".to_owned());
    }
    // Which labels there are is known when all series are, and ALERTS and up have Prometheus's own.
    if problems.is_empty() && word.is_match(&spelt) {
        let asked = labels_of(&spelt).into_iter().filter(|label| !labels.contains(label.as_str()));
        problems.extend(asked.map(|label| format!("nothing in it has a label {label}: {expression}")));
    }
    problems
}

/// The same with a choice of names as each of them.
fn spelt_out(expression: &str) -> String {
    let choice = Regex::new(r#"__name__=~"(\w+)\(([\w|]+)\)(\w+)""#).unwrap();
    let each = |choice: &Captures| {
        let names = choice[2].split('|').map(|middle| format!("{}{middle}{}", &choice[1], &choice[3]));
        names.collect::<Vec<_>>().join(" ")
    };
    choice.replace(expression, each).into_owned()
}

/// The labels that an expression compares or groups by.
fn labels_of(expression: &str) -> BTreeSet<String> {
    let compared = Regex::new(r#"(\w+)\s*(?:=~|!~|!=|=)\s*""#).unwrap();
    let grouped = Regex::new(r"\b(?:by|on|without) ?\(([^)]*)\)").unwrap();
    let one = compared.captures_iter(expression).map(|found| found[1].to_owned());
    let lists = grouped.captures_iter(expression).map(|found| found[1].to_owned());
    one.chain(lists.flat_map(|list| list.split(", ").map(str::to_owned).collect::<Vec<_>>())).collect()
}

#[test]
fn every_series_and_label_that_is_asked_for_is_declared() {
    let (known, pages) = (declared(), dashboards());
    let (mut problems, mut shown) = (Vec::new(), BTreeSet::new());
    for (place, expression) in expressions(&pages).into_iter().chain(rules()) {
        problems.extend(unknown(&expression, &known, &mut shown).into_iter().map(|what| format!("{place}: {what}")));
    }
    let left_out: BTreeSet<&str> = NOT_SHOWN.iter().map(|(name, _)| *name).collect();
    for series in Metrics::declared() {
        match (shown.contains(&series.name), left_out.contains(series.name.as_str())) {
            (false, false) => problems.push(format!("{} is on no page", series.name)),
            (true, true) => problems.push(format!("{} is on a page, and NOT_SHOWN lists it", series.name)),
            _ => {}
        }
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn pages_are_whole_and_lead_to_each_other() {
    let pages = dashboards();
    let uids: BTreeSet<&str> = pages.values().map(|page| page["uid"].as_str().unwrap()).collect();
    assert!(pages.len() >= 6 && uids.len() == pages.len(), "{uids:?}");
    let leads = Regex::new(r"/d/([a-z-]+)\?").unwrap();
    for (name, page) in &pages {
        assert_eq!(name, page["uid"].as_str().unwrap(), "a file is named by its page");
        assert!(list(page, "/tags").iter().any(|tag| tag == "anabranch"), "{name}: pages find each other by this tag");
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in list(page, "/panels") {
            let title = &panel["title"];
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title} has another's id");
            let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{name}: {title} is beyond the edge");
            for y in at("y")..at("y") + at("h") {
                for x in at("x")..at("x") + at("w") {
                    assert!(taken.insert((x, y)), "{name}: {title} lies over another");
                }
            }
            if panel["type"] != "row" {
                let text = panel["description"].as_str().unwrap_or_default();
                assert!(
                    !text.is_empty() && panel["fieldConfig"]["defaults"].is_object(),
                    "{name}: {title} says nothing"
                );
                assert!(!list(panel, "/targets").is_empty(), "{name}: {title} asks for nothing");
            }
        }
        for link in leads.captures_iter(&page.to_string()) {
            assert!(uids.contains(&link[1]), "{name} leads to {}, which is not there", &link[1]);
        }
    }
}

#[test]
fn what_is_behind_enhanced_monitoring_says_so() {
    for (name, page) in dashboards() {
        for panel in list(&page, "/panels") {
            let asked = list(panel, "/targets")
                .iter()
                .any(|target| target["expr"].as_str().unwrap().contains("anabranch_shard_"));
            let told = panel["description"].as_str().unwrap_or_default().contains("EnableEnhancedMonitoring");
            assert_eq!(asked, told, "{name}: {}", panel["title"]);
        }
    }
}

#[test]
fn the_table_of_cloudwatchs_names_is_what_the_broker_maps() {
    let told = fs::read_to_string(folder().join("METRICS.md")).unwrap();
    let table = anabranch::metrics::cloudwatch::table();
    assert!(told.contains(&table), "grafana/METRICS.md should hold\n{table}");
}
