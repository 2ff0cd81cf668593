//! Metric math, as far as it is served: `+ - * / ^`, brackets, numbers, ids of other queries, `METRICS()`, and the
//! functions of [`FUNCTIONS`]. Anything else is refused by name. Pure.
//!
//! A value is a number, a series, or several series. Arithmetic of two series has a value where both have one; of several
//! with one, each in turn.
//!
//! Source: metric math in the CloudWatch user guide.

use std::collections::BTreeMap;

/// Nesting of brackets and functions.
const DEPTH_MAX: usize = 32;
/// AWS's bound for an expression.
const CHARS_MAX: usize = 2_048;
/// Periods that FILL may add to one series.
const FILLED_MAX: i64 = 100_800;

/// What may be called.
const FUNCTIONS: &[&str] =
    &["ABS", "AVG", "CEIL", "DIFF", "FILL", "FLOOR", "MAX", "METRICS", "MIN", "PERIOD", "RATE", "SUM"];

/// Values by the second at which their period begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    pub values: BTreeMap<i64, f64>,
    /// From, to and period, in seconds, where there is one metric behind it.
    pub window: Option<(i64, i64, i64)>,
}

impl Series {
    fn map(&self, change: impl Fn(f64) -> f64) -> Series {
        let values = self.values.iter().map(|(at, value)| (*at, change(*value))).filter(|(_, value)| value.is_finite());
        Series { values: values.collect(), window: self.window }
    }

    fn with(&self, other: &Series, change: impl Fn(f64, f64) -> f64) -> Series {
        let both = self.values.iter().filter_map(|(at, value)| Some((*at, change(*value, *other.values.get(at)?))));
        Series { values: both.filter(|(_, value)| value.is_finite()).collect(), window: self.window.or(other.window) }
    }

    fn period_s(&self) -> f64 {
        self.window.map_or(60.0, |(_, _, period_s)| period_s as f64)
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(f64),
    One(Series),
    Several(Vec<Series>),
}

/// Evaluates expressions, each when what it speaks of is known. `series` has the metrics' already and is given the
/// expressions' own; `metrics` are the ids that `METRICS()` stands for.
pub fn evaluate_all<'a>(
    expressions: &[(&'a str, &str)],
    metrics: &[String],
    series: &mut BTreeMap<&'a str, Series>,
) -> Result<(), String> {
    let mut waiting = Vec::new();
    for (id, text) in expressions {
        let told = |error: String| format!("Error in expression '{id}': {error}");
        let tokens = tokens(text).map_err(told)?;
        waiting.push((*id, tokens));
    }
    while !waiting.is_empty() {
        let names: Vec<&str> = waiting.iter().map(|(id, _)| *id).collect();
        let is_ready = |tokens: &[Token]| {
            !tokens.iter().any(|token| matches!(token, Token::Name(name) if names.contains(&name.as_str())))
        };
        let (ready, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, tokens)| is_ready(tokens));
        if let (true, Some((id, _))) = (ready.is_empty(), rest.first()) {
            return Err(format!("Error in expression '{id}': Circular dependency between expressions"));
        }
        for (id, tokens) in ready {
            let told = |error: String| format!("Error in expression '{id}': {error}");
            let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, metrics, series };
            let value = parser.whole().map_err(told)?;
            match value {
                Value::One(one) => drop(series.insert(id, one)),
                Value::Number(_) => return Err(told("The expression does not come to a time series".to_owned())),
                Value::Several(_) => {
                    return Err(told("An expression that comes to several time series is not supported".to_owned()));
                }
            }
        }
        waiting = rest;
    }
    Ok(())
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Name(String),
    Sign(char),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    if text.len() > CHARS_MAX {
        return Err(format!("The expression is longer than {CHARS_MAX} characters"));
    }
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let length = match first {
            c if is_part(c) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            '+' | '-' | '*' | '/' | '^' | '(' | ')' | '[' | ']' | ',' => 1,
            other => return Err(format!("Unexpected character {other:?}")),
        };
        let (word, after) = rest.split_at(length);
        tokens.push(match first {
            c if c.is_ascii_digit() || c == '.' => {
                Token::Number(word.parse().map_err(|_| format!("{word} is no number"))?)
            }
            c if is_part(c) => Token::Name(word.to_owned()),
            c => Token::Sign(c),
        });
        rest = after.trim_start();
    }
    Ok(tokens)
}

/// Reads and evaluates at once, by rising precedence.
struct Parser<'a, 'b> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    metrics: &'a [String],
    series: &'a BTreeMap<&'b str, Series>,
}

impl Parser<'_, '_> {
    fn whole(&mut self) -> Result<Value, String> {
        let value = self.sum()?;
        match self.tokens.get(self.at) {
            None => Ok(value),
            Some(token) => Err(unexpected(token)),
        }
    }

    fn takes(&mut self, sign: char) -> bool {
        let is = self.tokens.get(self.at) == Some(&Token::Sign(sign));
        self.at += usize::from(is);
        is
    }

    fn wants(&mut self, sign: char) -> Result<(), String> {
        if self.takes(sign) {
            return Ok(());
        }
        Err(self.tokens.get(self.at).map_or_else(|| format!("{sign} is missing"), unexpected))
    }

    fn sum(&mut self) -> Result<Value, String> {
        let mut value = self.product()?;
        loop {
            if self.takes('+') {
                value = combine(value, self.product()?, |a, b| a + b)?;
            } else if self.takes('-') {
                value = combine(value, self.product()?, |a, b| a - b)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<Value, String> {
        let mut value = self.power()?;
        loop {
            if self.takes('*') {
                value = combine(value, self.power()?, |a, b| a * b)?;
            } else if self.takes('/') {
                value = combine(value, self.power()?, |a, b| a / b)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn power(&mut self) -> Result<Value, String> {
        let base = self.atom()?;
        if self.takes('^') { combine(base, self.atom()?, f64::powf) } else { Ok(base) }
    }

    fn atom(&mut self) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("The expression is nested too deeply".to_owned());
        }
        let value = self.atom_inside();
        self.depth -= 1;
        value
    }

    fn atom_inside(&mut self) -> Result<Value, String> {
        let token = self.tokens.get(self.at).ok_or("The expression ends too early")?;
        self.at += 1;
        match token {
            Token::Number(number) => Ok(Value::Number(*number)),
            Token::Sign('-') => combine(Value::Number(0.0), self.atom()?, |a, b| a - b),
            Token::Sign('(') => {
                let value = self.sum()?;
                self.wants(')')?;
                Ok(value)
            }
            Token::Sign('[') => {
                let list = self.list(']')?;
                Ok(Value::Several(list.into_iter().flat_map(all).collect()))
            }
            Token::Sign(_) => Err(unexpected(token)),
            Token::Name(name) if self.takes('(') => {
                if !FUNCTIONS.contains(&name.as_str()) {
                    return Err(format!("Unsupported function {name}"));
                }
                let arguments = self.list(')')?;
                self.call(name, arguments)
            }
            Token::Name(name) => match self.series.get(name.as_str()) {
                Some(series) => Ok(Value::One(series.clone())),
                None => Err(format!("There is no query with the id {name}")),
            },
        }
    }

    fn list(&mut self, end: char) -> Result<Vec<Value>, String> {
        let mut list = Vec::new();
        if self.takes(end) {
            return Ok(list);
        }
        loop {
            list.push(self.sum()?);
            if !self.takes(',') {
                self.wants(end)?;
                return Ok(list);
            }
        }
    }

    fn call(&self, name: &str, arguments: Vec<Value>) -> Result<Value, String> {
        let mut arguments = arguments.into_iter();
        match (name, arguments.next(), arguments.next(), arguments.next()) {
            ("METRICS", None, None, None) => {
                let of = |id: &String| self.series.get(id.as_str()).cloned();
                Ok(Value::Several(self.metrics.iter().filter_map(of).collect()))
            }
            ("ABS", Some(value), None, None) => Ok(each(value, |series| series.map(f64::abs))),
            ("CEIL", Some(value), None, None) => Ok(each(value, |series| series.map(f64::ceil))),
            ("FLOOR", Some(value), None, None) => Ok(each(value, |series| series.map(f64::floor))),
            ("DIFF", Some(value), None, None) => Ok(each(value, |series| differences(series, |_| 1.0))),
            ("RATE", Some(value), None, None) => Ok(each(value, |series| differences(series, |seconds| seconds))),
            ("PERIOD", Some(Value::One(series)), None, None) => Ok(Value::Number(series.period_s())),
            ("FILL", Some(value), Some(Value::Number(with)), None) => Ok(each(value, |series| filled(series, with))),
            ("SUM", Some(value), None, None) => Ok(reduced(value, |values| values.iter().sum())),
            ("AVG", Some(value), None, None) => {
                Ok(reduced(value, |values| values.iter().sum::<f64>() / values.len() as f64))
            }
            ("MIN", Some(value), None, None) => {
                Ok(reduced(value, |values| values.iter().copied().fold(f64::INFINITY, f64::min)))
            }
            ("MAX", Some(value), None, None) => {
                Ok(reduced(value, |values| values.iter().copied().fold(f64::NEG_INFINITY, f64::max)))
            }
            (name, ..) => Err(format!("The arguments of {name} are not supported")),
        }
    }
}

fn unexpected(token: &Token) -> String {
    match token {
        Token::Number(number) => format!("Unexpected {number}"),
        Token::Name(name) => format!("Unexpected {name}"),
        Token::Sign(sign) => format!("Unexpected {sign}"),
    }
}

fn all(value: Value) -> Vec<Series> {
    match value {
        Value::Number(_) => Vec::new(),
        Value::One(series) => vec![series],
        Value::Several(several) => several,
    }
}

fn each(value: Value, change: impl Fn(&Series) -> Series) -> Value {
    match value {
        Value::Number(number) => {
            let single = Series { values: BTreeMap::from([(0, number)]), window: None };
            Value::Number(change(&single).values.get(&0).copied().unwrap_or(number))
        }
        Value::One(series) => Value::One(change(&series)),
        Value::Several(several) => Value::Several(several.iter().map(change).collect()),
    }
}

fn combine(left: Value, right: Value, change: impl Fn(f64, f64) -> f64) -> Result<Value, String> {
    Ok(match (left, right) {
        (Value::Number(left), Value::Number(right)) => Value::Number(change(left, right)),
        (Value::Number(left), right) => each(right, |series| series.map(|right| change(left, right))),
        (left, Value::Number(right)) => each(left, |series| series.map(|left| change(left, right))),
        (Value::One(left), right) => each(right, |right| left.with(right, &change)),
        (left, Value::One(right)) => each(left, |left| left.with(&right, &change)),
        (Value::Several(_), Value::Several(_)) => {
            return Err("Arithmetic of two arrays of time series is not supported".to_owned());
        }
    })
}

/// Of one series its only number, in every period; of several one series across them.
fn reduced(value: Value, reduce: impl Fn(&[f64]) -> f64) -> Value {
    match value {
        Value::Number(number) => Value::Number(number),
        Value::One(series) => {
            let values: Vec<f64> = series.values.values().copied().collect();
            if values.is_empty() { Value::One(series) } else { Value::Number(reduce(&values)) }
        }
        Value::Several(several) => {
            let mut by_time: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
            for (at, value) in several.iter().flat_map(|series| &series.values) {
                by_time.entry(*at).or_default().push(*value);
            }
            let values = by_time.into_iter().map(|(at, values)| (at, reduce(&values))).collect();
            Value::One(Series { values, window: several.iter().find_map(|series| series.window) })
        }
    }
}

/// Each value less the one before, divided by what so many seconds come to.
fn differences(series: &Series, divisor: impl Fn(f64) -> f64) -> Series {
    let pairs = series.values.iter().zip(series.values.iter().skip(1));
    let values =
        pairs.map(|((before_at, before), (at, value))| (*at, (value - before) / divisor((at - before_at) as f64)));
    Series { values: values.collect(), window: series.window }
}

/// A value in every period that has none.
fn filled(series: &Series, with: f64) -> Series {
    let Some((from_s, to_s, period_s)) = series.window else { return series.clone() };
    let mut filled = series.clone();
    let periods = (0..FILLED_MAX).map(|index| from_s + index * period_s).take_while(|at| *at < to_s);
    for at in periods {
        filled.values.entry(at).or_insert(with);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[(i64, f64)]) -> Series {
        Series { values: values.iter().copied().collect(), window: Some((0, 240, 60)) }
    }

    fn evaluate(text: &str) -> Result<Vec<(i64, f64)>, String> {
        let metrics = ["m1".to_owned(), "m2".to_owned()];
        let mut known =
            BTreeMap::from([("m1", series(&[(0, 6.0), (60, 9.0)])), ("m2", series(&[(60, 3.0), (120, 1.0)]))]);
        evaluate_all(&[("e", text)], &metrics, &mut known)?;
        Ok(known["e"].values.clone().into_iter().collect())
    }

    #[test]
    fn expressions_come_to_series() {
        for (text, expected) in [
            ("m1 / m2", vec![(60, 3.0)]),
            ("-m1 + 2 * (m1 - 1)^2", vec![(0, 44.0), (60, 119.0)]),
            ("m1/0", vec![]),
            ("SUM(METRICS())", vec![(0, 6.0), (60, 12.0), (120, 1.0)]),
            ("AVG([m1, m2])", vec![(0, 6.0), (60, 6.0), (120, 1.0)]),
            ("MAX([m1,m2]) - MIN(METRICS())", vec![(0, 0.0), (60, 6.0), (120, 0.0)]),
            ("m1 - AVG(m1)", vec![(0, -1.5), (60, 1.5)]),
            ("FILL(m1, 0) / PERIOD(m1)", vec![(0, 0.1), (60, 0.15), (120, 0.0), (180, 0.0)]),
            ("RATE(m1)", vec![(60, 0.05)]),
            ("DIFF(m1)", vec![(60, 3.0)]),
            ("ABS(0 - CEIL(m1 / 4))", vec![(0, 2.0), (60, 3.0)]),
        ] {
            assert_eq!(evaluate(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused() {
        for (text, error) in [
            ("ANOMALY_DETECTION_BAND(m1)", "Unsupported function ANOMALY_DETECTION_BAND"),
            ("m3", "There is no query with the id m3"),
            ("m1 +", "The expression ends too early"),
            ("(m1", ") is missing"),
            ("m1 m2", "Unexpected m2"),
            ("2", "The expression does not come to a time series"),
            ("[m1, m2]", "An expression that comes to several time series is not supported"),
            ("FILL(m1, REPEAT)", "There is no query with the id REPEAT"),
            ("FILL(m1)", "The arguments of FILL are not supported"),
            ("1.2.3 + m1", "1.2.3 is no number"),
            ("SELECT AVG(x) FROM \"y\"", "Unexpected character '\"'"),
        ] {
            assert_eq!(evaluate(text), Err(format!("Error in expression 'e': {error}")), "{text}");
        }
        assert!(evaluate(&"(".repeat(1_000)).is_err());
    }

    #[test]
    fn expressions_may_use_each_other() {
        let mut known = BTreeMap::from([("m1", series(&[(0, 6.0)]))]);
        let expressions = [("e1", "e2 + 1"), ("e2", "m1 * 2")];
        evaluate_all(&expressions, &["m1".to_owned()], &mut known).unwrap();
        assert_eq!(known["e1"].values[&0], 13.0);
        let circle = evaluate_all(&[("e1", "e2"), ("e2", "e1")], &[], &mut known);
        assert_eq!(circle, Err("Error in expression 'e1': Circular dependency between expressions".to_owned()));
    }
}
