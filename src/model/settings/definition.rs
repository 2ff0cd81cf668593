//! What a setting is, and the judgement of one value. Called by the tables of this folder; the texts of
//! [`SettingError`] are Kafka's own, because its clients show them and their tests read them.

use std::fmt;

use super::group::OffsetReset;

/// The longest name and the longest value: older versions of the protocol write a string's length as an i16.
pub const TEXT_BYTES_MAX: usize = i16::MAX as usize;

/// As DescribeConfigs names types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    Boolean,
    String,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    Double,
    /// Comma separated.
    List,
    /// Of a name that is no setting of Kafka's: see [`super::broker`].
    Unknown,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    pub name: &'static str,
    pub value_type: ValueType,
    /// `None` where Kafka's default is null.
    pub default: Option<&'static str>,
    pub check: Check,
    pub documentation: &'static str,
}

/// What a value of the right type must satisfy besides.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    OneOf(&'static [&'static str]),
    /// 1 to 9, or -1 for the codec's own default.
    GzipLevel,
    /// `*`, or a list of `partition:broker`.
    ThrottledReplicas,
    /// A list of any of these.
    EachOf(&'static [&'static str]),
    /// Where share groups begin: [`OffsetReset`].
    OffsetReset,
    /// Must be off, because there is no tiered storage.
    NoTieredStorage,
}

/// A value of its setting's type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Boolean(bool),
    Number(i64),
    Double(f64),
    Text(String),
    List(Vec<String>),
}

/// Why a setting was refused. For a topic, and where an operation does not fit a type, Kafka answers INVALID_CONFIG; for
/// the broker's own settings, INVALID_REQUEST.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("Unknown topic config name: {0}")]
    UnknownName(String),
    #[error("Unknown group config name: {0}")]
    UnknownGroupName(String),
    #[error("{name} must be {relation} {bound}")]
    OutOfBounds { name: String, relation: &'static str, bound: String },
    #[error("Null value not supported for topic configs: {}", .0.join(","))]
    Null(Vec<String>),
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Invalid { name: String, value: String, reason: String },
    #[error(
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
    )]
    NoTieredStorage,
    #[error("conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})")]
    CompactionLags { min: i64, max: i64 },
    #[error("Can't {operation} to key {name} because its type is not LIST.")]
    NotAList { operation: &'static str, name: String },
    #[error("Cannot update these configs dynamically: Set({})", .0.join(", "))]
    NotDynamic(Vec<String>),
    #[error(
        "The configuration value cannot be added because it exceeds the maximum value size of {TEXT_BYTES_MAX} bytes."
    )]
    TooLong,
    #[error("More than {max} configs that are not the broker's own")]
    TooManyCustom { max: usize },
}

impl Definition {
    /// Judges `raw` as a value of this setting.
    pub fn parse(&self, raw: &str) -> Result<Value, SettingError> {
        self.parse_as(self.name, raw)
    }

    /// [`Definition::parse`] for a setting that goes by another name: a topic setting's name on the broker.
    pub fn parse_as(&self, name: &str, raw: &str) -> Result<Value, SettingError> {
        let value = self.typed(name, raw)?;
        self.check.judge(name, &value)?;
        Ok(value)
    }

    /// Reads a value that was judged when it was set: only its type is looked at.
    pub(super) fn typed(&self, name: &str, raw: &str) -> Result<Value, SettingError> {
        typed(self.value_type, raw).map_err(|reason| invalid(name, raw, reason))
    }
}

impl Check {
    fn judge(&self, name: &str, value: &Value) -> Result<(), SettingError> {
        match (*self, value) {
            (Check::AtLeast(min), _) => above(name, value, min),
            (Check::Between(min, max), _) => above(name, value, min).and_then(|()| below(name, value, max)),
            (Check::OneOf(allowed), Value::Text(text)) => one_of(name, text, allowed),
            (Check::GzipLevel, Value::Number(level)) if *level != -1 && !(1..=9).contains(level) => {
                Err(invalid(name, &level.to_string(), "Value must be between 1 and 9 or equal to -1"))
            }
            (Check::ThrottledReplicas, Value::List(items)) => throttled_replicas(name, items),
            (Check::EachOf(allowed), Value::List(items)) => {
                items.iter().try_for_each(|item| one_of(name, item, allowed))
            }
            (Check::OffsetReset, Value::Text(text)) => offset_reset(name, text),
            (Check::NoTieredStorage, Value::Boolean(true)) => Err(SettingError::NoTieredStorage),
            _ => Ok(()),
        }
    }
}

impl Value {
    /// A number as Kafka compares it with bounds.
    fn number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number as f64),
            Value::Double(number) => Some(*number),
            Value::Boolean(_) | Value::Text(_) | Value::List(_) => None,
        }
    }
}

/// The canonical text: what is stored and what clients read.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(value) => value.fmt(f),
            Value::Number(value) => value.fmt(f),
            // `Debug` keeps the fraction of a whole number ("1.0"), as Java prints it.
            Value::Double(value) => write!(f, "{value:?}"),
            Value::Text(value) => f.write_str(value),
            Value::List(items) => f.write_str(&items.join(",")),
        }
    }
}

fn typed(value_type: ValueType, raw: &str) -> Result<Value, &'static str> {
    let text = raw.trim();
    match value_type {
        ValueType::Boolean if text.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
        ValueType::Boolean if text.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
        ValueType::Boolean => Err("Expected value to be either true or false"),
        ValueType::String => Ok(Value::Text(text.to_owned())),
        ValueType::Int => {
            text.parse::<i32>().map(|value| Value::Number(value.into())).map_err(|_| "Not a number of type INT")
        }
        ValueType::Long => text.parse().map(Value::Number).map_err(|_| "Not a number of type LONG"),
        ValueType::Double => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Value::Double(value)),
            Ok(_) | Err(_) => Err("Not a number of type DOUBLE"),
        },
        ValueType::List => Ok(Value::List(items(text))),
        ValueType::Unknown => Ok(Value::Text(raw.to_owned())),
    }
}

/// The items of a list; none if the text is blank.
fn items(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(|item| item.trim().to_owned()).collect() }
}

fn above(name: &str, value: &Value, min: i64) -> Result<(), SettingError> {
    match value.number() {
        Some(number) if number < min as f64 => {
            Err(invalid(name, &value.to_string(), &format!("Value must be at least {min}")))
        }
        Some(_) | None => Ok(()),
    }
}

fn below(name: &str, value: &Value, max: i64) -> Result<(), SettingError> {
    match value.number() {
        Some(number) if number > max as f64 => {
            Err(invalid(name, &value.to_string(), &format!("Value must be no more than {max}")))
        }
        Some(_) | None => Ok(()),
    }
}

fn one_of(name: &str, text: &str, allowed: &[&str]) -> Result<(), SettingError> {
    if allowed.contains(&text) {
        return Ok(());
    }
    Err(invalid(name, text, &format!("String must be one of: {}", allowed.join(", "))))
}

fn throttled_replicas(name: &str, items: &[String]) -> Result<(), SettingError> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let replica = |item: &String| {
        item.is_empty() || item.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
    };
    if items.iter().all(replica) || items.concat() == "*" {
        return Ok(());
    }
    let reason = format!(
        "{name} must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
    );
    Err(invalid(name, &format!("[{}]", items.join(", ")), &reason))
}

fn offset_reset(name: &str, text: &str) -> Result<(), SettingError> {
    let reason = format!(
        "Invalid value `{text}` for configuration {name}. The value must be either 'earliest', 'latest' or of the \
         format 'by_duration:<PnDTnHnMn.nS>'."
    );
    text.parse::<OffsetReset>().map(drop).map_err(|()| invalid(name, text, &reason))
}

/// Refuses what could be stored but not told to every client.
pub(super) fn check_length(name: &str, value: &str) -> Result<(), SettingError> {
    match name.len().max(value.len()) > TEXT_BYTES_MAX {
        true => Err(SettingError::TooLong),
        false => Ok(()),
    }
}

pub(super) fn invalid(name: &str, value: &str, reason: &str) -> SettingError {
    SettingError::Invalid { name: name.to_owned(), value: value.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value_type: ValueType, check: Check, raw: &str) -> Result<String, String> {
        let definition = Definition { name: "x.y", value_type, default: None, check, documentation: "" };
        definition.parse(raw).map(|value| value.to_string()).map_err(|error| error.to_string())
    }

    fn refused(value: &str, reason: &str) -> Result<String, String> {
        Err(format!("Invalid value {value} for configuration x.y: {reason}"))
    }

    #[test]
    fn values_become_canonical() {
        for (value_type, raw, canonical) in [
            (ValueType::Boolean, " TRUE ", "true"),
            (ValueType::Int, "+7 ", "7"),
            (ValueType::Long, "9223372036854775807", "9223372036854775807"),
            (ValueType::Double, "1", "1.0"),
            (ValueType::String, " a b ", "a b"),
            (ValueType::List, " a , b,", "a,b,"),
            (ValueType::List, "  ", ""),
        ] {
            assert_eq!(parse(value_type, Check::Any, raw).unwrap(), canonical);
        }
    }

    #[test]
    fn values_of_the_wrong_type_are_refused_in_kafkas_words() {
        assert_eq!(
            parse(ValueType::Boolean, Check::Any, "1"),
            refused("1", "Expected value to be either true or false")
        );
        assert_eq!(parse(ValueType::Int, Check::Any, "2147483648"), refused("2147483648", "Not a number of type INT"));
        assert_eq!(parse(ValueType::Long, Check::Any, "1.5"), refused("1.5", "Not a number of type LONG"));
        assert_eq!(parse(ValueType::Double, Check::Any, "NaN"), refused("NaN", "Not a number of type DOUBLE"));
    }

    #[test]
    fn values_out_of_bounds_are_refused_in_kafkas_words() {
        assert_eq!(parse(ValueType::Long, Check::AtLeast(-1), "-2"), refused("-2", "Value must be at least -1"));
        assert_eq!(
            parse(ValueType::Double, Check::Between(0, 1), "1.5"),
            refused("1.5", "Value must be no more than 1")
        );
        assert_eq!(
            parse(ValueType::String, Check::OneOf(&["a", "b"]), "c"),
            refused("c", "String must be one of: a, b")
        );
        let reason = "Value must be between 1 and 9 or equal to -1";
        assert_eq!(parse(ValueType::Int, Check::GzipLevel, "0"), refused("0", reason));
        assert!(parse(ValueType::Int, Check::GzipLevel, "-1").is_ok());
        assert_eq!(
            parse(ValueType::List, Check::EachOf(&["compact", "delete"]), "delete,gone"),
            refused("gone", "String must be one of: compact, delete")
        );
        assert!(parse(ValueType::List, Check::EachOf(&["compact", "delete"]), "compact, delete").is_ok());
        assert!(parse(ValueType::List, Check::EachOf(&["compact", "delete"]), "").is_ok());
        assert_eq!(
            parse(ValueType::Boolean, Check::NoTieredStorage, "true").unwrap_err(),
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
        );
    }

    #[test]
    fn throttled_replicas_are_a_star_or_pairs() {
        for good in ["", "*", "0:1", "0:1, 12:3"] {
            assert!(parse(ValueType::List, Check::ThrottledReplicas, good).is_ok(), "{good}");
        }
        for bad in ["0", "0:", ":1", "a:1", "0:1,*", "0:1:2"] {
            assert!(parse(ValueType::List, Check::ThrottledReplicas, bad).is_err(), "{bad}");
        }
    }
}
