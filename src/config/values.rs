//! Values of settings: what a text may say and the precise refusal when it says something else.
//!
//! Called by the table of settings. Each parser takes the text after the flag, trimmed, and answers with the value or with
//! a sentence that names what would have been taken.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// Milliseconds.
pub const DAY: i64 = 86_400_000;
pub const HOUR: i64 = 3_600_000;

const SIZE_UNITS: &[(&str, u64)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
const DURATION_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", DAY as u64)];

/// When an append is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once the operating system has it: it survives the process.
    Os,
    /// Once it is on the disk: it survives the machine.
    Sync,
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Durability, String> {
        match text {
            "os" => Ok(Durability::Os),
            "sync" => Ok(Durability::Sync),
            _ => Err(format!("{text:?} is neither os nor sync")),
        }
    }
}

impl Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Os => "os",
            Durability::Sync => "sync",
        })
    }
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("{text:?} is neither text nor json")),
        }
    }
}

/// Where the audit log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditLog {
    Off,
    Stdout,
    File(PathBuf),
    /// A stream of its own, by its name.
    Stream(String),
}

impl FromStr for AuditLog {
    type Err = String;

    fn from_str(text: &str) -> Result<AuditLog, String> {
        match text.split_once(':') {
            None if text == "off" => Ok(AuditLog::Off),
            None if text == "stdout" => Ok(AuditLog::Stdout),
            Some(("file", file)) => path(file).map(AuditLog::File),
            Some(("stream", name)) if is_stream_name(name) => Ok(AuditLog::Stream(name.to_owned())),
            Some(("stream", name)) => Err(format!("{name:?} is no name of a stream")),
            Some(_) | None => Err(format!("{text:?} is none of off, stdout, file:PATH and stream:NAME")),
        }
    }
}

/// As both protocols have it.
fn is_stream_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=128).contains(&name.len()) && name.bytes().all(is_part) && name != "." && name != ".."
}

/// A collector's address: `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: HostPort,
    /// Where traces go.
    pub path: String,
}

/// None when it is empty. The port is OTLP's own unless it is said, and the path that of traces below what is said.
pub fn endpoint(text: &str) -> Result<Option<Endpoint>, String> {
    const PORT: u16 = 4318;
    const TRACES: &str = "/v1/traces";
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let rest = text.strip_prefix("http://").ok_or_else(|| format!("{text:?} does not begin with http://"))?;
    let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let address = if has_port { host_port(authority)? } else { host_port(&format!("{authority}:{PORT}"))? };
    let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
    if !base.bytes().all(is_path) {
        return Err(format!("{base:?} is no path"));
    }
    let base = base.trim_end_matches('/');
    let path = if base.ends_with(TRACES) { base.to_owned() } else { format!("{base}{TRACES}") };
    Ok(Some(Endpoint { address, path }))
}

/// A share of everything: 0 to 1.
pub fn ratio(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        Ok(_) | Err(_) => Err(format!("{text:?} is no number from 0 to 1")),
    }
}

/// A host (name, IPv4 or IPv6 address without brackets) and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl HostPort {
    /// True for the addresses that mean 'every interface', to which nobody can connect from elsewhere.
    pub fn is_wildcard(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified())
    }
}

impl Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A place where Kafka clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique among the listeners; the first one without a name is PLAINTEXT, a later one PLAINTEXT-2 and so on.
    pub name: String,
    pub bind: HostPort,
    /// What clients are told to connect to, where that differs from `bind`. Port 0 stands for the port that was bound.
    pub advertised: Option<HostPort>,
}

impl Listener {
    /// What clients on this listener are told to connect to, once it is bound to `bound`.
    pub fn advertise(&self, bound: SocketAddr) -> HostPort {
        let address = self.advertised.as_ref().unwrap_or(&self.bind);
        let port = if address.port == 0 { bound.port() } else { address.port };
        HostPort { host: address.host.clone(), port }
    }
}

pub fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("a path is missing".to_owned()),
        _ => Ok(PathBuf::from(text)),
    }
}

/// As AWS numbers accounts: twelve digits.
pub fn account_id(text: &str) -> Result<String, String> {
    match text.trim() {
        id if id.len() == 12 && id.bytes().all(|digit| digit.is_ascii_digit()) => Ok(id.to_owned()),
        _ => Err(format!("{text:?} is not twelve digits")),
    }
}

/// As AWS names regions: `us-east-1`.
pub fn region(text: &str) -> Result<String, String> {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    match text.trim() {
        name if (1..=64).contains(&name.len()) && name.bytes().all(fits) => Ok(name.to_owned()),
        _ => Err(format!("{text:?} is not a region's name, like us-east-1")),
    }
}

pub fn switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

pub fn one_of<T: FromStr<Err = String>>(text: &str) -> Result<T, String> {
    text.trim().parse()
}

pub fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map_err(|error| format!("{text:?} is no log filter: {error}"))?;
    Ok(text.to_owned())
}

/// A whole number from `min` to `max`.
pub fn whole<T: FromStr + PartialOrd + Display + Copy>(min: T, max: T) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let number = text.trim().parse::<T>().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| format!("{text:?} is not a whole number from {min} to {max}"))
    }
}

/// Bytes from `min` to `max`.
pub fn bytes<T: TryFrom<u64> + PartialOrd + Display + Copy>(min: T, max: T) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let wanted = T::try_from(size(text)?).ok().filter(|size| (min..=max).contains(size));
        wanted.ok_or_else(|| format!("{text:?} is not a size from {min} to {max} bytes"))
    }
}

/// Bytes from `min`, or -1.
pub fn bytes_or_unlimited(min: i64) -> impl Fn(&str) -> Result<i64, String> {
    move |text| {
        if is_unlimited(text) {
            return Ok(-1);
        }
        let wanted = i64::try_from(size(text)?).ok().filter(|size| *size >= min);
        wanted.ok_or_else(|| format!("{text:?} is not a size from {min} bytes, or -1"))
    }
}

/// Milliseconds from `min` to `max`.
pub fn duration(min: i64, max: i64) -> impl Fn(&str) -> Result<i64, String> {
    move |text| {
        let wanted = i64::try_from(milliseconds(text)?).ok().filter(|ms| (min..=max).contains(ms));
        wanted.ok_or_else(|| format!("{text:?} is not a duration from {min} to {max} ms"))
    }
}

/// Milliseconds from `min`, or -1.
pub fn duration_or_unlimited(min: i64) -> impl Fn(&str) -> Result<i64, String> {
    move |text| {
        if is_unlimited(text) {
            return Ok(-1);
        }
        let wanted = i64::try_from(milliseconds(text)?).ok().filter(|ms| *ms >= min);
        wanted.ok_or_else(|| format!("{text:?} is not a duration from {min} ms, or -1"))
    }
}

pub fn host_port(text: &str) -> Result<HostPort, String> {
    let text = text.trim();
    let refuse = || format!("{text:?} is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()),
        None => Some(host).filter(|host| is_host(host)),
    };
    let port = port.parse::<u16>().map_err(|_| format!("{text:?}: the port is not a number from 0 to 65535"))?;
    Ok(HostPort { host: host.ok_or_else(refuse)?.to_owned(), port })
}

/// Comma separated `[NAME=]HOST:PORT[@ADVERTISED_HOST:PORT]`, at least one.
pub fn listeners(text: &str) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<Listener> = Vec::new();
    for (index, item) in text.split(',').enumerate() {
        let listener = listener(item.trim(), index)?;
        if listeners.iter().any(|other| other.name == listener.name) {
            return Err(format!("two listeners are called {:?}", listener.name));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listener(text: &str, index: usize) -> Result<Listener, String> {
    let (name, addresses) = match text.split_once('=') {
        Some((name, addresses)) => (name.to_owned(), addresses),
        None if index == 0 => ("PLAINTEXT".to_owned(), text),
        None => (format!("PLAINTEXT-{}", index + 1), text),
    };
    let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !named {
        return Err(format!("{text:?}: a listener's name is made of letters, digits, - and _"));
    }
    let (bind, advertised) = match addresses.split_once('@') {
        Some((bind, advertised)) => (host_port(bind)?, Some(host_port(advertised)?)),
        None => (host_port(addresses)?, None),
    };
    if advertised.as_ref().unwrap_or(&bind).is_wildcard() {
        return Err(format!(
            "{text:?}: clients cannot connect to a wildcard address; add where they can reach this broker, as in {bind}@HOST:{}",
            bind.port
        ));
    }
    Ok(Listener { name, bind, advertised })
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

fn is_unlimited(text: &str) -> bool {
    matches!(text.trim(), "-1" | "unlimited")
}

fn size(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is not a size: bytes, or a whole number with KiB, MiB, GiB or TiB");
    let (number, unit) = number_and_unit(text).ok_or_else(refuse)?;
    if unit.is_empty() {
        return Ok(number);
    }
    in_units(number, unit, SIZE_UNITS).ok_or_else(refuse)
}

fn milliseconds(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is not a duration: a whole number with ms, s, min, h or d");
    let (number, unit) = number_and_unit(text).ok_or_else(refuse)?;
    // Zero is the same in every unit; any other number needs one, for nobody knows which was meant.
    if number == 0 && unit.is_empty() {
        return Ok(0);
    }
    in_units(number, unit, DURATION_UNITS).ok_or_else(refuse)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

fn in_units(number: u64, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}
