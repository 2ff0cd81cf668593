//! The audit log: who asked for which control operation, from where, and what became of it, in the shape of CloudTrail's
//! events; a line of JSON each, to a file, to stdout, or into a stream of its own.
//!
//! The doors call [`Audit::record`], which neither waits nor fails: events go through a queue of [`QUEUE_MAX`] to one task
//! ([`run`]), and what does not fit or cannot be written is counted as lost. Reads and writes of records are not control
//! operations, and no event holds a record's data.
//!
//! A file is only appended to, so whoever rotates it may truncate it or restart the broker. A stream is made when it is
//! missing, with one shard and limits that are only observed, and is then like any other.
//!
//! Rooms: [`event`] what an event is and its text, `sink` where it goes.

pub mod event;
mod sink;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

pub use event::{Event, Identity, Source};
pub use sink::OpenError;
use sink::Sink;

use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;

/// Events that wait to be written.
pub const QUEUE_MAX: usize = 8_192;
/// Events that are written at once.
const WRITTEN_MAX: usize = 256;

/// Takes events, or none when the log is off.
pub struct Audit {
    queue: Option<mpsc::Sender<Message>>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

enum Message {
    Event(Box<Event>, Uuid),
    /// Answered when everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// Writes what the queue holds; for [`run`].
pub struct Writer {
    waiting: mpsc::Receiver<Message>,
    sink: Sink,
    region: String,
    account: String,
}

impl Audit {
    /// As the settings say: with a writer to be run, unless the log is off.
    pub fn open(
        config: &Config,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<(Arc<Audit>, Option<Writer>), OpenError> {
        let Some(sink) = Sink::open(&config.audit_log)? else {
            return Ok((Arc::new(Audit { queue: None, clock, metrics }), None));
        };
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let writer = Writer { waiting, sink, region: config.region.clone(), account: config.account_id.clone() };
        Ok((Arc::new(Audit { queue: Some(queue), clock, metrics }), Some(writer)))
    }

    /// Whether events are wanted: making one for nobody costs what a control operation need not.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    pub fn record(&self, event: Event) {
        let Some(queue) = &self.queue else { return };
        let message = Message::Event(Box::new(event), self.clock.random_uuid());
        if queue.try_send(message).is_err() {
            self.metrics.audit_lost(1);
        }
    }

    /// Returns when what was recorded is written, or nobody writes any more.
    pub async fn flush(&self) {
        let Some(queue) = &self.queue else { return };
        let (done, flushed) = oneshot::channel();
        if queue.send(Message::Flush(done)).await.is_ok() {
            // An error says that the writer is gone.
            let _ = flushed.await;
        }
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}

/// Writes events until the server stops.
pub async fn run(mut writer: Writer, broker: Arc<Broker>) {
    let mut messages = Vec::with_capacity(WRITTEN_MAX);
    while writer.waiting.recv_many(&mut messages, WRITTEN_MAX).await > 0 {
        let (mut lines, mut flushed) = (Vec::new(), Vec::new());
        for message in messages.drain(..) {
            match message {
                Message::Event(event, id) => lines.push(event.line(&writer.region, &writer.account, id)),
                Message::Flush(done) => flushed.push(done),
            }
        }
        let count = lines.len();
        let lost = if count == 0 { 0 } else { writer.sink.write(lines, &broker).await };
        broker.metrics().audit_written(count - lost);
        if lost > 0 {
            broker.metrics().audit_lost(lost);
        }
        for done in flushed {
            // Who asked may have given up.
            let _ = done.send(());
        }
    }
}
