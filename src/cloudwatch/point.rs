//! What a metric has for a second or a minute: a statistic set, and the values it is made of as far as they are known.
//!
//! Owned by `keeper`, which merges and stores points; `query` merges them further and asks for statistics. Pure.
//!
//! Stored layout, big-endian:
//!
//! | field | width | |
//! |---|---|---|
//! | samples | f64 | |
//! | sum | f64 | |
//! | minimum | f64 | |
//! | maximum | f64 | |
//! | known | u8 | 1: the values follow, ascending |
//! | value, count | f64, f64 | as many as there are |
//!
//! Source: the CloudWatch API reference (PutMetricData, GetMetricStatistics), statistics definitions of its user guide.

use bytes::{Buf, BufMut};

/// Different values of a point; with more, percentiles of it are not told.
pub const VALUES_MAX: usize = 400;

/// Units by their place here, which is stored: new ones go to the end.
pub const UNITS: &[&str] = &[
    "None",
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Percent",
    "Count",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
];

/// A unit by its place in [`UNITS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit(pub u8);

impl Unit {
    pub fn of(name: &str) -> Option<Unit> {
        UNITS.iter().position(|unit| *unit == name).and_then(|place| u8::try_from(place).ok()).map(Unit)
    }

    pub fn name(self) -> &'static str {
        UNITS.get(usize::from(self.0)).copied().unwrap_or("None")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub samples: f64,
    pub sum: f64,
    pub minimum: f64,
    pub maximum: f64,
    /// Values, ascending, and how often each came; `None` when they are not known.
    values: Option<Vec<(f64, f64)>>,
}

impl Point {
    /// Of values and how often each came. `None` without any.
    pub fn of_values(values: impl IntoIterator<Item = (f64, f64)>) -> Option<Point> {
        let single = |(value, count): (f64, f64)| Point {
            samples: count,
            sum: value * count,
            minimum: value,
            maximum: value,
            values: Some(vec![(value, count)]),
        };
        values.into_iter().filter(|(_, count)| *count > 0.0).map(single).reduce(|mut whole, one| {
            whole.merge(&one);
            whole
        })
    }

    /// Of a statistic set, whose values are known only when all are the same.
    pub fn of_statistics(samples: f64, sum: f64, minimum: f64, maximum: f64) -> Point {
        let values = (samples == 1.0 || minimum == maximum).then(|| vec![(minimum, samples)]);
        Point { samples, sum, minimum, maximum, values }
    }

    /// The same of which the values are not known, even if the smallest is told to be the largest.
    pub fn of_unknown(samples: f64, sum: f64, minimum: f64, maximum: f64) -> Point {
        let values = (samples == 1.0).then(|| vec![(sum, samples)]);
        Point { samples, sum, minimum, maximum, values }
    }

    pub fn merge(&mut self, other: &Point) {
        self.samples += other.samples;
        self.sum += other.sum;
        self.minimum = self.minimum.min(other.minimum);
        self.maximum = self.maximum.max(other.maximum);
        let (Some(ours), Some(theirs)) = (&mut self.values, &other.values) else {
            self.values = None;
            return;
        };
        for (value, count) in theirs {
            match ours.binary_search_by(|(ours, _)| ours.total_cmp(value)) {
                Ok(place) => {
                    if let Some((_, ours)) = ours.get_mut(place) {
                        *ours += count;
                    }
                }
                Err(place) => ours.insert(place, (*value, *count)),
            }
        }
        if ours.len() > VALUES_MAX {
            self.values = None;
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let values = self.values.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(33 + 16 * values.len());
        for number in [self.samples, self.sum, self.minimum, self.maximum] {
            out.put_f64(number);
        }
        out.put_u8(u8::from(self.values.is_some()));
        for (value, count) in values {
            out.put_f64(*value);
            out.put_f64(*count);
        }
        out
    }

    pub fn parse(mut bytes: &[u8]) -> Option<Point> {
        if bytes.len() < 33 || !(bytes.len() - 33).is_multiple_of(16) {
            return None;
        }
        let (samples, sum, minimum, maximum) = (bytes.get_f64(), bytes.get_f64(), bytes.get_f64(), bytes.get_f64());
        let known = bytes.get_u8() == 1;
        let mut values = Vec::with_capacity(bytes.len() / 16);
        while bytes.has_remaining() {
            values.push((bytes.get_f64(), bytes.get_f64()));
        }
        Some(Point { samples, sum, minimum, maximum, values: known.then_some(values) })
    }

    /// `None` where it cannot be told.
    pub fn statistic(&self, statistic: Statistic) -> Option<f64> {
        match statistic {
            Statistic::SampleCount => Some(self.samples),
            Statistic::Sum => Some(self.sum),
            Statistic::Minimum => Some(self.minimum),
            Statistic::Maximum => Some(self.maximum),
            Statistic::Average => (self.samples > 0.0).then(|| self.sum / self.samples),
            Statistic::Percentile(percent) => self.percentile(percent),
        }
    }

    /// The smallest value that so much of the samples do not exceed.
    fn percentile(&self, percent: f64) -> Option<f64> {
        let values = self.values.as_deref().filter(|_| self.minimum >= 0.0)?;
        let wanted = self.samples * percent / 100.0;
        let mut seen = 0.0;
        let reached = values.iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        reached.or(values.last()).map(|(value, _)| *value)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    SampleCount,
    Average,
    Sum,
    Minimum,
    Maximum,
    /// Of a hundred.
    Percentile(f64),
}

impl Statistic {
    /// One of the five that every point has.
    pub fn simple(name: &str) -> Option<Statistic> {
        Some(match name {
            "SampleCount" => Statistic::SampleCount,
            "Average" => Statistic::Average,
            "Sum" => Statistic::Sum,
            "Minimum" => Statistic::Minimum,
            "Maximum" => Statistic::Maximum,
            _ => return None,
        })
    }

    /// `p0` to `p100`, with at most ten digits behind the point.
    pub fn percentile(name: &str) -> Option<Statistic> {
        let number = name.strip_prefix('p')?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |digits: &str, most| {
            (1..=most).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit())
        };
        if !is_number(whole, 3) || !is_number(fraction, 10) {
            return None;
        }
        number.parse().ok().filter(|percent| *percent <= 100.0).map(Statistic::Percentile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_sets_add_up() {
        let mut point = Point::of_values([(3.0, 1.0), (1.0, 2.0), (3.0, 1.0), (9.0, 0.0)]).unwrap();
        assert_eq!((point.samples, point.sum, point.minimum, point.maximum), (4.0, 8.0, 1.0, 3.0));
        assert_eq!(Point::parse(&point.encode()), Some(point.clone()));
        let percentile = |point: &Point, name| point.statistic(Statistic::percentile(name).unwrap());
        assert_eq!((percentile(&point, "p50"), percentile(&point, "p50.1")), (Some(1.0), Some(3.0)));
        assert_eq!((percentile(&point, "p0"), percentile(&point, "p100")), (Some(1.0), Some(3.0)));
        // A set whose values are all the same tells them, another does not.
        point.merge(&Point::of_statistics(6.0, 30.0, 5.0, 5.0));
        assert_eq!((percentile(&point, "p90"), point.statistic(Statistic::Average)), (Some(5.0), Some(3.8)));
        point.merge(&Point::of_statistics(2.0, 3.0, 1.0, 2.0));
        assert_eq!((percentile(&point, "p90"), point.statistic(Statistic::SampleCount)), (None, Some(12.0)));
        assert_eq!(Point::parse(&point.encode()), Some(point));
        assert_eq!(Point::of_values([]), None);
        let below = Point::of_values([(-1.0, 1.0)]).unwrap();
        assert_eq!((percentile(&below, "p50"), below.statistic(Statistic::Minimum)), (None, Some(-1.0)));
    }

    #[test]
    fn a_point_is_bounded() {
        let values = |count: usize| Point::of_values((0..count).map(|value| (value as f64, 1.0))).unwrap();
        assert!(values(VALUES_MAX).statistic(Statistic::Percentile(50.0)).is_some());
        let many = values(VALUES_MAX + 1);
        assert_eq!((many.statistic(Statistic::Percentile(50.0)), many.encode().len()), (None, 33));
        assert_eq!(many.samples, (VALUES_MAX + 1) as f64);
    }

    #[test]
    fn statistics_have_names() {
        for name in ["p", "p101", "p-1", "p1e1", "p.5", "99", "p99.", "p100.1", "pp", "p\u{e9}"] {
            assert_eq!(Statistic::percentile(name), None, "{name}");
        }
        assert_eq!(Statistic::percentile("p99.9"), Some(Statistic::Percentile(99.9)));
        assert_eq!((Statistic::simple("Sum"), Statistic::simple("sum")), (Some(Statistic::Sum), None));
        assert!(UNITS.iter().all(|name| Unit::of(name).is_some_and(|unit| unit.name() == *name)));
        assert_eq!((Unit::of("Furlongs"), Unit(200).name()), (None, "None"));
    }
}
