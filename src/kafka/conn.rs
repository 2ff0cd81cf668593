//! One Kafka connection: frames are read in order, answers written in order.
//!
//! One task does both. Produce requests go on being answered while further ones are read, up to [`PIPELINE_MAX`]; any
//! other request stops reading until it is answered, as Kafka does. So a client that does not read its answers is no
//! longer read from, holds one answer's memory at most, and is closed when it takes nothing for [`UNREAD_MAX_MS`].
//!
//! A client that goes beyond the limits of what it writes or reads is answered at once and then not read from for a
//! while (KIP-219): clients that do not look at `throttle_time_ms` are slowed down by that alone. What it sent before it
//! could know waits unread; requests that were under way already are answered. Its other connections go on.
//!
//! A frame's claimed length is checked before anything is reserved, and memory for it grows as its bytes arrive. Every
//! request under way has its share of one budget for all connections, until it is answered.

use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::kafka::budget::{RequestBudget, Room};
use crate::kafka::{
    Answer, Client, Context, Door, Running, Started, api_versions, audit, error, row, share,
    trace::{self, Traced},
};

/// Produce requests of one connection that are under way at once.
const PIPELINE_MAX: usize = 128;
/// Requests other than Produce carry no records: none is legitimately this large.
const CONTROL_FRAME_BYTES_MAX: usize = 16 << 20;
/// API key, version and correlation id.
const FRAME_BYTES_MIN: usize = 8;
/// An answer of which the client takes nothing for this long is given up with its connection: it holds memory.
const UNREAD_MAX_MS: i64 = 30_000;
/// A request of which nothing more comes for this long, while it holds memory, is given up with its connection.
const STALLED_MAX_MS: i64 = 30_000;
const PRODUCE_KEY: [u8; 2] = [0, 0];
/// What a connection may read of a frame before it asks the budget.
const FREE_BYTES: usize = 64 << 10;
/// The least room for a read: several small requests come in one.
const READ_BYTES_MIN: usize = 4 << 10;
/// How long a client whose last answers were just sent has to read them when the server stops.
const PARTING_MS: i64 = 1_000;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum Ending {
    #[error("closed by the client")]
    Closed,
    #[error("no request for too long")]
    Idle,
    #[error("answers were not read for too long")]
    Unread,
    #[error("the rest of a request did not come")]
    Stalled,
    #[error("too many connections from its address")]
    Throttled,
    #[error("the server stops")]
    Stopping,
    #[error("a frame of {0} bytes")]
    FrameLength(i64),
    #[error("unknown API key {0}")]
    UnknownApi(i16),
    #[error("{api} version {version} is not served")]
    UnsupportedVersion { api: &'static str, version: i16 },
    #[error("{0}")]
    Malformed(String),
    #[error("a request without an answer failed with error {0}")]
    UnansweredFailure(i16),
    #[error("an answer could not be made")]
    Unanswerable,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves one connection until it ends.
pub async fn serve(door: Arc<Door>, budget: RequestBudget, socket: TcpStream, client: Client) -> Ending {
    let client = Arc::new(client);
    let ending = answer_all(door.clone(), budget, socket, client.clone()).await;
    share::disconnected(&door, &client);
    ending
}

async fn answer_all(door: Arc<Door>, budget: RequestBudget, socket: TcpStream, client: Arc<Client>) -> Ending {
    let mut stopping = door.stopping.clone();
    let closes_ms = door.quotas.connected(client.peer.ip(), door.broker.clock().tick_ms());
    if closes_ms > 0 {
        // As with Kafka it is held for a while, so that who tries again at once does not try more often.
        tokio::select! {
            () = stopped(&mut stopping) => return Ending::Stopping,
            () = door.broker.clock().sleep_ms(closes_ms) => return Ending::Throttled,
        }
    }
    let (reader, writer) = socket.into_split();
    let mut incoming = Incoming {
        socket: reader,
        received: BytesMut::new(),
        room: Room::default(),
        budget,
        clock: door.broker.clock().clone(),
        request_bytes_max: door.config.request_bytes_max,
    };
    let (clock, idle_max_ms) = (door.broker.clock().clone(), door.config.connections_idle_max);
    let mut outgoing = Outgoing { socket: writer, clock: clock.clone() };
    let requests = Requests { door, client };
    let mut running: FuturesOrdered<Running> = FuturesOrdered::new();
    // The newest request under way is not Produce, or brings a pause: nothing is read until it is answered.
    let mut blocked = false;
    // Nothing is read before this.
    let mut muted_until: Option<i64> = None;
    loop {
        let turn = tokio::select! {
            biased;
            // Before what is ready: a client that never pauses must not hold up the stop until the grace is over.
            () = stopped(&mut stopping) => Err(Ending::Stopping),
            Some(answer) = running.next(), if !running.is_empty() => {
                blocked &= !running.is_empty();
                let pause_ms = answer.pause_ms;
                let sent = outgoing.send(answer).await;
                if pause_ms > 0 {
                    muted_until = muted_until.max(Some(clock.tick_ms().saturating_add(pause_ms)));
                }
                sent
            }
            frame = incoming.frame(), if !blocked && muted_until.is_none() && running.len() < PIPELINE_MAX => {
                frame.and_then(|frame| requests.start(frame)).map(|started| {
                    blocked = !started.reads_on;
                    running.push_back(started.answer);
                })
            }
            () = clock.sleep_until(muted_until.unwrap_or_default()), if muted_until.is_some() => {
                muted_until = None;
                Ok(())
            }
            // As with Kafka, also while an answer is awaited: it may be for someone who has gone.
            () = clock.sleep_ms(idle_max_ms), if muted_until.is_none() => Err(Ending::Idle),
        };
        match turn {
            Ok(()) => {}
            Err(Ending::Stopping) => {
                if running.len() > usize::from(blocked) {
                    drain(running, blocked, &mut outgoing).await;
                    tokio::select! {
                        () = part(&mut incoming.socket, &mut outgoing.socket) => {}
                        () = clock.sleep_ms(PARTING_MS) => {}
                    }
                }
                return Ending::Stopping;
            }
            Err(ending) => return ending,
        }
    }
}

/// Returns when the server stops.
pub async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The sender gone means that the server is.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Answers the produce requests that are under way: they may be in the log already. What only waits (a fetch at the
/// end of a partition, a member for its group) is dropped.
async fn drain(mut running: FuturesOrdered<Running>, blocked: bool, outgoing: &mut Outgoing) {
    while running.len() > usize::from(blocked) {
        let Some(answer) = running.next().await else { return };
        if outgoing.send(answer).await.is_err() {
            return;
        }
    }
}

/// Says that nothing more comes and waits for the client to close. If the connection were closed with requests unread,
/// the system would reset it and throw away answers that are still on their way.
async fn part(reader: &mut OwnedReadHalf, writer: &mut OwnedWriteHalf) {
    let mut unread = BytesMut::new();
    if writer.shutdown().await.is_err() {
        return;
    }
    loop {
        unread.clear();
        unread.reserve(READ_BYTES_MIN);
        match reader.read_buf(&mut unread).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// A request's bytes, with its share of the budget.
struct Frame {
    bytes: Bytes,
    room: Room,
}

struct Incoming {
    socket: OwnedReadHalf,
    received: BytesMut,
    /// For the frame that is being read.
    room: Room,
    budget: RequestBudget,
    clock: Clock,
    request_bytes_max: usize,
}

impl Incoming {
    /// The next frame, without its length. May be dropped while it waits: what has arrived is kept.
    async fn frame(&mut self) -> Result<Frame, Ending> {
        while self.received.len() < 4 {
            self.read_more(4).await?;
        }
        let claimed = i32::from_be_bytes([self.received[0], self.received[1], self.received[2], self.received[3]]);
        let length = usize::try_from(claimed).unwrap_or(0);
        if length < FRAME_BYTES_MIN || length > self.request_bytes_max {
            return Err(Ending::FrameLength(claimed.into()));
        }
        let whole = 4 + length;
        while self.received.len() < whole {
            if length > CONTROL_FRAME_BYTES_MAX && self.received.len() >= 6 && self.received[4..6] != PRODUCE_KEY {
                return Err(Ending::FrameLength(claimed.into()));
            }
            self.read_more(whole).await?;
        }
        if self.room.is_empty() {
            self.budget.enlarge(&mut self.room, whole).await;
        }
        self.received.advance(4);
        let bytes = self.received.split_to(length).freeze();
        Ok(Frame { bytes, room: std::mem::take(&mut self.room) })
    }

    /// Reads on towards `wanted` bytes, as far as there is room.
    async fn read_more(&mut self, wanted: usize) -> Result<(), Ending> {
        if self.received.len() >= self.room.bytes().max(FREE_BYTES) {
            // A frame that waits for memory waits with its connection, and gives up as an idle one does.
            self.budget.enlarge(&mut self.room, wanted).await;
        }
        // A claim alone reserves nothing: what may be held is what was granted.
        let room = self.room.bytes().max(FREE_BYTES).saturating_sub(self.received.len());
        let missing = wanted.saturating_sub(self.received.len());
        self.received.reserve(missing.min(room).max(READ_BYTES_MIN));
        let read = tokio::select! {
            biased;
            read = self.socket.read_buf(&mut self.received) => read?,
            () = self.clock.sleep_ms(STALLED_MAX_MS), if !self.room.is_empty() => return Err(Ending::Stalled),
        };
        if read == 0 { Err(Ending::Closed) } else { Ok(()) }
    }
}

struct Outgoing {
    socket: OwnedWriteHalf,
    clock: Clock,
}

impl Outgoing {
    async fn send(&mut self, answer: Answer) -> Result<(), Ending> {
        match answer.frame {
            Some(mut frame) => {
                while frame.has_remaining() {
                    tokio::select! {
                        biased;
                        written = self.socket.write_buf(&mut frame) => if written? == 0 { return Err(Ending::Closed) },
                        () = self.clock.sleep_ms(UNREAD_MAX_MS) => return Err(Ending::Unread),
                    }
                }
            }
            None if answer.close && answer.error != 0 => return Err(Ending::UnansweredFailure(answer.error)),
            None if answer.close => return Err(Ending::Unanswerable),
            None => {}
        }
        Ok(())
    }
}

struct Requests {
    door: Arc<Door>,
    client: Arc<Client>,
}

impl Requests {
    /// Decodes a request and calls its handler. What cannot be told from its answer ends the connection, as with Kafka.
    fn start(&self, frame: Frame) -> Result<Started, Ending> {
        let Frame { mut bytes, room } = frame;
        let (key, version) = (peek_i16(&bytes, 0), peek_i16(&bytes, 2));
        let (index, row) = row(key).ok_or(Ending::UnknownApi(key))?;
        let begun = Begun::now(&self.door);
        if version < row.versions.min || version > row.versions.max {
            if row.key != ApiKey::ApiVersions {
                return Err(Ending::UnsupportedVersion { api: row.name, version });
            }
            let correlation_id = i32::from(peek_i16(&bytes, 4)) << 16 | i32::from(peek_i16(&bytes, 6) as u16);
            let answer = api_versions::unsupported(correlation_id);
            return Ok(Started::before_others(std::future::ready(answer)));
        }
        let header = RequestHeader::decode(&mut bytes, row.key.request_header_version(version))
            .map_err(|error| Ending::Malformed(error.to_string()))?;
        let context = Context {
            door: self.door.clone(),
            client: self.client.clone(),
            client_id: header.client_id,
            version,
            correlation_id: header.correlation_id,
        };
        let asked = audit::asked(&context, row, &bytes);
        let traced = trace::begin(&context, row);
        let Started { answer, reads_on } =
            (row.run)(context, bytes).map_err(|malformed| Ending::Malformed(malformed.to_string()))?;
        let door = self.door.clone();
        let answer = Box::pin(async move {
            let answer = answer.await;
            let trace = traced.as_ref().map(Traced::trace_id);
            door.api_metrics[index].observe(error::name(answer.error), begun.seconds(&door), trace);
            if let Some(traced) = traced {
                trace::end(traced, answer.error);
            }
            if let Some(asked) = asked {
                audit::answered(asked, answer.error);
            }
            drop(room);
            answer
        });
        Ok(Started { answer, reads_on })
    }
}

/// When a request began.
struct Begun(i64);

impl Begun {
    fn now(door: &Door) -> Begun {
        Begun(door.broker.clock().tick_micros())
    }

    fn seconds(&self, door: &Door) -> f64 {
        (door.broker.clock().tick_micros() - self.0) as f64 / 1e6
    }
}

/// 0 beyond the end: frames of less than [`FRAME_BYTES_MIN`] do not come here.
fn peek_i16(bytes: &[u8], at: usize) -> i16 {
    bytes.get(at..at + 2).map_or(0, |pair| i16::from_be_bytes([pair[0], pair[1]]))
}
