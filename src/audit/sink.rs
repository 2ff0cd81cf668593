//! Where events go.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use crate::broker::catalog::NewStream;
use crate::broker::put::{NewRecord, PutOutcome};
use crate::broker::{Broker, CatalogError, Stream};
use crate::config::AuditLog;
use crate::model::attributes::{Attributes, LimitsPolicy};
use crate::model::settings::topic;

#[derive(Debug, thiserror::Error)]
#[error("the audit log {} cannot be opened: {error}", path.display())]
pub struct OpenError {
    path: PathBuf,
    error: std::io::Error,
}

pub(super) enum Sink {
    File(Arc<File>),
    Stdout,
    /// By its name: it may be deleted and made again.
    Stream(String),
}

impl Sink {
    /// `None` when the log is off.
    pub(super) fn open(log: &AuditLog) -> Result<Option<Sink>, OpenError> {
        Ok(match log {
            AuditLog::Off => None,
            AuditLog::Stdout => Some(Sink::Stdout),
            AuditLog::Stream(name) => Some(Sink::Stream(name.clone())),
            AuditLog::File(path) => {
                let opened = OpenOptions::new().create(true).append(true).open(path);
                let file = opened.map_err(|error| OpenError { path: path.clone(), error })?;
                Some(Sink::File(Arc::new(file)))
            }
        })
    }

    /// How many of the lines are lost.
    pub(super) async fn write(&self, lines: Vec<String>, broker: &Broker) -> usize {
        let count = lines.len();
        let written = match self {
            Sink::Stream(name) => return put(name, &lines, broker).await,
            Sink::File(file) => {
                let file = file.clone();
                write_all(lines, move |text| (&*file).write_all(text)).await
            }
            Sink::Stdout => {
                write_all(lines, |text| {
                    let mut out = std::io::stdout().lock();
                    out.write_all(text)?;
                    out.flush()
                })
                .await
            }
        };
        match written {
            Ok(()) => 0,
            Err(error) => {
                tracing::warn!(error, "events of the audit log are lost");
                count
            }
        }
    }
}

/// Lines in one piece, on a thread that may block.
async fn write_all(
    lines: Vec<String>,
    write: impl FnOnce(&[u8]) -> std::io::Result<()> + Send + 'static,
) -> Result<(), String> {
    let text: String = lines.into_iter().flat_map(|line| [line, "\n".to_owned()]).collect();
    let written = tokio::task::spawn_blocking(move || write(text.as_bytes())).await;
    written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Into the stream, which is made if there is none; one record each.
async fn put(name: &str, lines: &[String], broker: &Broker) -> usize {
    let lost = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "events of the audit log are lost");
        lines.len()
    };
    let stream = match stream(name, broker).await {
        Ok(stream) => stream,
        Err(error) => return lost(&error),
    };
    let keyed = lines.iter().map(|line| NewRecord { partition_key: Some(name), hash_key: None, data: line.as_bytes() });
    let records: Vec<NewRecord<'_>> = keyed.collect();
    let ticket = match broker.put(&stream, &records) {
        Ok(ticket) => ticket,
        Err(error) => return lost(&error),
    };
    let outcomes = ticket.committed().await;
    let failed = outcomes.iter().filter(|outcome| !matches!(outcome, PutOutcome::Kept { .. })).count();
    if failed > 0 {
        tracing::warn!(failed, "events of the audit log are lost: the stream did not take them");
    }
    failed
}

async fn stream(name: &str, broker: &Broker) -> Result<Arc<Stream>, CatalogError> {
    if let Some(stream) = broker.stream(name) {
        return Ok(stream);
    }
    let new = NewStream {
        name: name.to_owned(),
        partitions: NonZeroU32::MIN,
        claimed_replicas: 1,
        overrides: [(topic::KINESIS_LIMITS.to_owned(), LimitsPolicy::Observe.to_string())].into(),
        attributes: Attributes::new(broker.clock().now_ms()),
    };
    match broker.create_stream(new).await {
        Err(CatalogError::Exists(_)) => broker.stream(name).ok_or(CatalogError::NotFound),
        made => made,
    }
}
