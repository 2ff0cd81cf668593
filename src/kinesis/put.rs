//! PutRecord and PutRecords. All of a request that goes to one shard is one record batch (`broker::put`); a record beyond
//! its shard's limits is refused by itself, in PutRecords among its answer's entries.

use std::fmt::Write;

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use super::Context;
use super::arn::{Asked, Home};
use super::error::Error;
use super::records::KMS;
use super::validate::{self, Input, Pattern, Rule, Told, Value, Violations, text_length};
use crate::broker::Stream;
use crate::broker::put::{NewRecord, PutError, PutOutcome};
use crate::http::Blob;
use crate::metrics;
use crate::model::attributes::{Attributes, RecordDistribution, Transition};
use crate::model::hash_key;
use crate::model::ids::ShardOrdinal;
use crate::model::sequence_number::{SequenceNumber, SequenceNumberError};

const RECORDS_MAX: usize = 500;
/// Data and partition keys of one request.
const REQUEST_BYTES_MAX: usize = 10 << 20;
const DATA_BYTES_MAX: usize = 10 << 20;
const PARTITION_KEY_MAX: usize = 256;

const PARTITION_KEY: &[Rule] = &[Rule::LengthMin(1), Rule::LengthMax(PARTITION_KEY_MAX)];
const HASH_KEY: &[Rule] = &[Rule::Matches(Pattern::HashKey)];
const DATA: &[Rule] = &[Rule::Required, Rule::LengthMax(DATA_BYTES_MAX)];

/// A record as a request has it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Entry {
    partition_key: Option<String>,
    explicit_hash_key: Option<String>,
    data: Option<Blob>,
}

/// `Records`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Entries(Vec<Entry>);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PutRecord {
    sequence_number_for_ordering: Option<String>,
    partition_key: Option<String>,
    explicit_hash_key: Option<String>,
    data: Option<Blob>,
    dry_run: Option<bool>,
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    stream_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PutRecords {
    records: Option<Entries>,
    dry_run: Option<bool>,
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    stream_id: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutRecordOutput {
    #[serde(flatten)]
    kept: Kept,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_type: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutRecordsOutput {
    failed_record_count: usize,
    records: Vec<ResultEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_type: Option<&'static str>,
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
struct Kept {
    shard: ShardOrdinal,
    sequence_number: SequenceNumber,
}

#[derive(Debug)]
enum ResultEntry {
    Kept(Kept),
    Refused { code: &'static str, message: String },
}

pub async fn put_record(cx: Context, input: PutRecord) -> Result<PutRecordOutput, Error> {
    let stream = writable_stream(&cx)?;
    let attributes = stream.attributes();
    let record = new_record(&attributes, "", &input.partition_key, &input.explicit_hash_key, input.data.as_ref())?;
    if let Some(number) = &input.sequence_number_for_ordering {
        check_ordering(&cx, &stream, number)?;
    }
    if input.dry_run == Some(true) {
        return Err(Error::DryRun);
    }
    let put = put_one(&cx, &stream, record).await;
    stream.metrics.put_record.answered(put.is_ok(), cx.seconds());
    put.map(|kept| PutRecordOutput { kept, encryption_type: encryption_type(&attributes) })
}

async fn put_one(cx: &Context, stream: &Stream, record: NewRecord<'_>) -> Result<Kept, Error> {
    let home = &cx.door.home;
    let ticket = cx.door.broker.put(stream, &[record]).map_err(|error| failed(home, stream, &error))?;
    let outcomes = ticket.committed().await;
    stream.metrics.put_record.records(counted(&[record], &outcomes));
    match outcomes.into_iter().next() {
        Some(PutOutcome::Kept { shard, sequence_number }) => Ok(Kept { shard, sequence_number }),
        Some(PutOutcome::Throttled { shard }) => {
            Err(Error::ProvisionedThroughputExceeded(rate_exceeded(home, &stream.name, shard)))
        }
        Some(PutOutcome::Failed(error)) => Err(failed(home, stream, &error)),
        None => Err(Error::Internal),
    }
}

pub async fn put_records(cx: Context, input: PutRecords) -> Result<PutRecordsOutput, Error> {
    let stream = writable_stream(&cx)?;
    let attributes = stream.attributes();
    let entries = input.records.map(|Entries(entries)| entries).unwrap_or_default();
    let mut records = Vec::with_capacity(entries.len());
    let mut path = String::new();
    for (index, entry) in entries.iter().enumerate() {
        path.clear();
        // Writing to a text does not fail.
        let _ = write!(path, "records.{}.member.", index + 1);
        let Entry { partition_key, explicit_hash_key, data } = entry;
        records.push(new_record(&attributes, &path, partition_key, explicit_hash_key, data.as_ref())?);
    }
    if records.iter().map(NewRecord::bytes).sum::<usize>() > REQUEST_BYTES_MAX {
        return Err(Error::InvalidArgument("Records size exceeds 10 MB limit".to_owned()));
    }
    if input.dry_run == Some(true) {
        return Err(Error::DryRun);
    }
    let put = put_all(&cx, &stream, &records).await;
    // As AWS counts it, a request that keeps any of its records is one.
    let kept_any = put.as_ref().is_ok_and(|outcomes| outcomes.iter().any(is_kept));
    stream.metrics.put_records.answered(kept_any, cx.seconds());
    let home = &cx.door.home;
    let outcomes = put?;
    if outcomes.iter().all(|outcome| matches!(outcome, PutOutcome::Failed(PutError::Deleted))) {
        return Err(Error::stream_not_found(home, &stream.name));
    }
    let records: Vec<_> = outcomes.into_iter().map(|outcome| result_entry(home, &stream.name, outcome)).collect();
    let is_refused = |entry: &&ResultEntry| matches!(entry, ResultEntry::Refused { .. });
    let failed_record_count = records.iter().filter(is_refused).count();
    Ok(PutRecordsOutput { failed_record_count, records, encryption_type: encryption_type(&attributes) })
}

async fn put_all(cx: &Context, stream: &Stream, records: &[NewRecord<'_>]) -> Result<Vec<PutOutcome>, Error> {
    let ticket = cx.door.broker.put(stream, records).map_err(|error| failed(&cx.door.home, stream, &error))?;
    let outcomes = ticket.committed().await;
    stream.metrics.put_records.records(counted(records, &outcomes));
    Ok(outcomes)
}

fn is_kept(outcome: &PutOutcome) -> bool {
    matches!(outcome, PutOutcome::Kept { .. })
}

/// What became of records, for the metrics.
fn counted(records: &[NewRecord<'_>], outcomes: &[PutOutcome]) -> metrics::Records {
    let mut counted = metrics::Records::default();
    for (record, outcome) in records.iter().zip(outcomes) {
        match outcome {
            PutOutcome::Kept { .. } => {
                counted.successful += 1;
                counted.bytes += record.bytes() as u64;
            }
            PutOutcome::Throttled { .. } => counted.throttled += 1,
            PutOutcome::Failed(_) => counted.failed += 1,
        }
    }
    counted
}

/// Streams take records while they are ACTIVE or UPDATING; before and after, AWS does not find them.
fn writable_stream(cx: &Context) -> Result<std::sync::Arc<Stream>, Error> {
    let stream = cx.stream()?;
    match stream.attributes().transition(cx.now_ms) {
        Some(Transition::Creating | Transition::Deleting) => Err(Error::stream_not_found(&cx.door.home, &stream.name)),
        Some(Transition::Updating) | None => Ok(stream),
    }
}

/// A valid entry as the broker takes it, if it suits the stream. `path` is what precedes its members.
fn new_record<'a>(
    attributes: &Attributes,
    path: &str,
    partition_key: &'a Option<String>,
    explicit_hash_key: &Option<String>,
    data: Option<&'a Blob>,
) -> Result<NewRecord<'a>, Error> {
    let hash_key = match explicit_hash_key {
        None => None,
        Some(text) => Some(hash_key::parse(text).ok_or_else(|| {
            Error::InvalidArgument(format!(
                "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
            ))
        })?),
    };
    let partition_key = partition_key.as_deref();
    if partition_key.is_none() && attributes.distribution == RecordDistribution::PartitionKey {
        let mut found = Violations::default();
        found.missing(&format!("{path}partitionKey"));
        found.into_result()?;
    }
    let record = NewRecord { partition_key, hash_key, data: data.map_or(&[], |data| &data.0) };
    let bytes_max = (attributes.record_kib_max as usize) << 10;
    if record.bytes() > bytes_max {
        let mut found = Violations::default();
        let constraint = format!("Member must have length less than or equal to {bytes_max}");
        found.add(&format!("{path}data"), Told::Hidden, constraint);
        found.into_result()?;
    }
    Ok(record)
}

/// A number that AWS would not have given out by now is refused. Beyond that there is nothing to do: a shard's numbers
/// always ascend, and so do those of its children.
fn check_ordering(cx: &Context, stream: &Stream, text: &str) -> Result<(), Error> {
    let now_s = u64::try_from(cx.now_ms.div_euclid(1_000)).unwrap_or_default();
    match SequenceNumber::parse(text) {
        Ok(number) if number.append_s <= now_s => Ok(()),
        Err(SequenceNumberError::Earlier { .. }) => Ok(()),
        Ok(_) | Err(SequenceNumberError::Malformed) => Err(Error::InvalidArgument(format!(
            "ExclusiveMinimumSequenceNumber {text} used in PutRecord on stream {} under account {} is invalid.",
            stream.name, cx.door.home.account
        ))),
    }
}

fn encryption_type(attributes: &Attributes) -> Option<&'static str> {
    attributes.encryption.is_some().then_some(KMS)
}

/// AWS's text for a shard that takes or gives no more at the moment.
pub fn rate_exceeded(home: &Home, stream: &str, shard: ShardOrdinal) -> String {
    format!("Rate exceeded for shard {shard} in stream {stream} under account {}.", home.account)
}

fn failed(home: &Home, stream: &Stream, error: &PutError) -> Error {
    match error {
        PutError::Deleted => Error::stream_not_found(home, &stream.name),
        PutError::Keyless => Error::InvalidArgument(error.to_string()),
        PutError::Key(error) => Error::key(error),
        PutError::Store(error) => Error::internal(error),
    }
}

fn result_entry(home: &Home, stream: &str, outcome: PutOutcome) -> ResultEntry {
    match outcome {
        PutOutcome::Kept { shard, sequence_number } => ResultEntry::Kept(Kept { shard, sequence_number }),
        PutOutcome::Throttled { shard } => ResultEntry::Refused {
            code: "ProvisionedThroughputExceededException",
            message: rate_exceeded(home, stream, shard),
        },
        PutOutcome::Failed(error) => {
            tracing::error!(%error, stream, "a record could not be kept");
            ResultEntry::Refused { code: "InternalFailure", message: "Internal Service Failure.".to_owned() }
        }
    }
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entry = serializer.serialize_struct("Kept", 2)?;
        let digits = self.sequence_number.digits();
        entry.serialize_field("SequenceNumber", std::str::from_utf8(&digits).unwrap_or_default())?;
        entry.serialize_field("ShardId", &format_args!("{}", self.shard))?;
        entry.end()
    }
}

impl Serialize for ResultEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ResultEntry::Kept(kept) => kept.serialize(serializer),
            ResultEntry::Refused { code, message } => {
                let mut entry = serializer.serialize_struct("Refused", 2)?;
                entry.serialize_field("ErrorCode", code)?;
                entry.serialize_field("ErrorMessage", message)?;
                entry.end()
            }
        }
    }
}

impl PutRecord {
    fn check_members(&self, needs_key: bool, found: &mut Violations) {
        let sequence_number = &[Rule::Matches(Pattern::SequenceNumber)];
        found.member("SequenceNumberForOrdering", self.sequence_number_for_ordering.as_ref(), sequence_number);
        check_key("PartitionKey", self.partition_key.as_ref(), needs_key, found);
        found.member("ExplicitHashKey", self.explicit_hash_key.as_ref(), HASH_KEY);
        found.member("Data", self.data.as_ref(), DATA);
        check_stream(&self.stream_name, &self.stream_arn, &self.stream_id, found);
    }
}

impl PutRecords {
    fn check_members(&self, needs_key: bool, found: &mut Violations) {
        let count = [Rule::Required, Rule::LengthMin(1), Rule::LengthMax(RECORDS_MAX)];
        found.member("Records", self.records.as_ref(), &count);
        let entries = self.records.iter().flat_map(|Entries(entries)| entries).enumerate();
        for (index, entry) in entries.filter(|(_, entry)| entry.has_violation(needs_key)) {
            let path = |member: &str| format!("Records.{}.member.{member}", index + 1);
            check_key(&path("PartitionKey"), entry.partition_key.as_ref(), needs_key, found);
            found.member(&path("ExplicitHashKey"), entry.explicit_hash_key.as_ref(), HASH_KEY);
            found.member(&path("Data"), entry.data.as_ref(), DATA);
        }
        check_stream(&self.stream_name, &self.stream_arn, &self.stream_id, found);
    }
}

impl Entry {
    /// The same as its rules say, without a word about it: paths are only made for what is wrong.
    fn has_violation(&self, needs_key: bool) -> bool {
        let key_fits =
            self.partition_key.as_ref().map_or(!needs_key, |key| (1..=PARTITION_KEY_MAX).contains(&text_length(key)));
        let hash_key_fits = self.explicit_hash_key.as_ref().is_none_or(|text| Pattern::HashKey.matches(text));
        !(key_fits && hash_key_fits && self.data.as_ref().is_some_and(|data| data.0.len() <= DATA_BYTES_MAX))
    }
}

fn check_key(path: &str, key: Option<&String>, needs_key: bool, found: &mut Violations) {
    match key {
        None if needs_key => found.missing(path),
        key => found.member(path, key, PARTITION_KEY),
    }
}

fn check_stream(name: &Option<String>, arn: &Option<String>, id: &Option<String>, found: &mut Violations) {
    found.member("StreamName", name.as_ref(), validate::NAME);
    found.member("StreamARN", arn.as_ref(), validate::STREAM_ARN);
    found.member("StreamId", id.as_ref(), validate::STREAM_ID);
    if name.is_none() && arn.is_none() {
        found.missing("StreamName");
    }
}

/// A stream that spreads records evenly takes some without a key, so a missing one is only told beside other violations
/// here, and else when the stream is known.
fn validated(check: impl Fn(bool, &mut Violations)) -> Result<(), Error> {
    let mut found = Violations::default();
    check(false, &mut found);
    if found.into_result().is_ok() {
        return Ok(());
    }
    let mut found = Violations::default();
    check(true, &mut found);
    found.into_result()
}

impl Input for PutRecord {
    fn check(&self, found: &mut Violations) {
        self.check_members(true, found);
    }

    fn asked(&self) -> Asked<'_> {
        Asked::Stream { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() }
    }

    fn validate(&self) -> Result<(), Error> {
        validated(|needs_key, found| self.check_members(needs_key, found))
    }
}

impl Input for PutRecords {
    fn check(&self, found: &mut Violations) {
        self.check_members(true, found);
    }

    fn asked(&self) -> Asked<'_> {
        Asked::Stream { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() }
    }

    fn validate(&self) -> Result<(), Error> {
        validated(|needs_key, found| self.check_members(needs_key, found))
    }
}

impl Value for Entries {
    fn shown(&self) -> Option<String> {
        self.0.is_empty().then(|| "[]".to_owned())
    }

    fn length(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

impl Value for Blob {
    fn shown(&self) -> Option<String> {
        None
    }

    fn length(&self) -> Option<usize> {
        Some(self.0.len())
    }
}
