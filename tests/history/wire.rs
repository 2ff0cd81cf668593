//! A client's connection to a broker that comes and goes. What is not answered in time has an unknown fate, and its
//! connection is given up.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ResponseHeader;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::frame::frame;

/// Shorter than many of the pauses of the broker.
const ANSWER: Duration = Duration::from_millis(800);
const CONNECT: Duration = Duration::from_millis(500);
/// Between attempts.
const BREATH: Duration = Duration::from_millis(20);
/// How long one operation is tried: longer than any restart takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy)]
pub struct Doors {
    pub kafka: SocketAddr,
    /// Of the Kinesis API, where there is one.
    pub http: Option<SocketAddr>,
}

/// Where the broker is; nowhere while it is down.
pub type Address = watch::Receiver<Option<Doors>>;

/// Why there is no answer.
#[derive(Clone, Copy)]
pub enum Lost {
    Unsent,
    Unanswered,
}

/// Why an operation did not succeed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It did not happen.
    Refused(ResponseError),
    /// It did not happen: the broker was never there to take it.
    Unsent,
    /// It may have happened; what was said last, if anything.
    Unknown(Option<ResponseError>),
}

impl Trouble {
    pub fn text(self) -> String {
        match self {
            Trouble::Refused(error) => format!("{error:?}"),
            Trouble::Unsent => "no broker".into(),
            Trouble::Unknown(None) => "no answer".into(),
            Trouble::Unknown(Some(error)) => format!("{error:?} after no answer"),
        }
    }
}

/// What a refusal means to who was refused.
pub enum Meaning {
    Final,
    /// It did not happen, and may later.
    Later,
    /// Nobody knows whether it happened.
    Unsure,
}

pub fn meaning(error: ResponseError) -> Meaning {
    match error {
        ResponseError::CoordinatorLoadInProgress
        | ResponseError::CoordinatorNotAvailable
        | ResponseError::NotCoordinator
        | ResponseError::ConcurrentTransactions
        | ResponseError::NotLeaderOrFollower
        | ResponseError::LeaderNotAvailable
        | ResponseError::UnknownTopicOrPartition
        | ResponseError::NotEnoughReplicas
        | ResponseError::UnstableOffsetCommit => Meaning::Later,
        ResponseError::RequestTimedOut | ResponseError::UnknownServerError | ResponseError::KafkaStorageError => {
            Meaning::Unsure
        }
        _ => Meaning::Final,
    }
}

pub struct Link {
    broker: Address,
    socket: Option<TcpStream>,
    correlation_id: i32,
}

impl Link {
    pub fn new(broker: &Address) -> Link {
        Link { broker: broker.clone(), socket: None, correlation_id: 0 }
    }

    async fn connect(&mut self) -> Option<TcpStream> {
        let address = timeout(CONNECT, self.broker.wait_for(Option::is_some)).await.ok()?.ok()?.as_ref()?.kafka;
        let socket = timeout(CONNECT, TcpStream::connect(address)).await.ok()?.ok()?;
        // A port of the system's choice that nobody listens on any more can connect to itself.
        if socket.local_addr().ok()? == address {
            return None;
        }
        socket.set_nodelay(true).ok()?;
        Some(socket)
    }

    pub async fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, Lost> {
        self.call_for(ANSWER, request, version).await
    }

    /// With an answer that the broker may keep back for a while.
    pub async fn call_for<R: Request>(
        &mut self,
        patience: Duration,
        request: &R,
        version: i16,
    ) -> Result<R::Response, Lost> {
        let mut socket = self.socket_for_a_call().await?;
        let frame = frame(request, version, self.correlation_id);
        let exchange = async {
            socket.write_all(&frame).await.ok()?;
            let length = socket.read_i32().await.ok()?;
            let mut answer = vec![0; length as usize];
            socket.read_exact(&mut answer).await.ok()?;
            Some(Bytes::from(answer))
        };
        let Ok(Some(mut answer)) = timeout(patience, exchange).await else { return Err(Lost::Unanswered) };
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, self.correlation_id, "an answer to something else");
        self.socket = Some(socket);
        Ok(R::Response::decode(&mut answer, version).unwrap())
    }

    /// Sends, and leaves before the answer.
    pub async fn leave_behind<R: Request>(&mut self, request: &R, version: i16) -> Result<(), Lost> {
        let mut socket = self.socket_for_a_call().await?;
        socket.write_all(&frame(request, version, self.correlation_id)).await.map_err(|_| Lost::Unanswered)
    }

    /// The connection goes back to its place only with an answer.
    async fn socket_for_a_call(&mut self) -> Result<TcpStream, Lost> {
        self.correlation_id += 1;
        match self.socket.take() {
            Some(socket) => Ok(socket),
            None => self.connect().await.ok_or(Lost::Unsent),
        }
    }

    /// Asks until the answer is final. What was not answered is sent again only if it `may_repeat`.
    pub async fn ask<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        may_repeat: bool,
        error_of: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response, Trouble> {
        let mut attempts = Attempts::new();
        loop {
            let step = match self.call(request, version).await {
                Ok(answer) => match ResponseError::try_from_code(error_of(&answer)) {
                    None => return Ok(answer),
                    Some(error) => attempts.refused(error),
                },
                Err(lost) => attempts.lost(lost, may_repeat),
            };
            if let Some(trouble) = step {
                return Err(trouble);
            }
            sleep(BREATH).await;
        }
    }
}

/// What the attempts at one operation have come to.
pub struct Attempts {
    until: Instant,
    is_unsure: bool,
}

impl Attempts {
    pub fn new() -> Attempts {
        Attempts { until: Instant::now() + PATIENCE, is_unsure: false }
    }

    /// None: try again.
    pub fn refused(&mut self, error: ResponseError) -> Option<Trouble> {
        match meaning(error) {
            Meaning::Final if self.is_unsure => Some(Trouble::Unknown(Some(error))),
            Meaning::Final => Some(Trouble::Refused(error)),
            Meaning::Later => self.late(Some(error)),
            Meaning::Unsure => {
                self.is_unsure = true;
                self.late(Some(error))
            }
        }
    }

    pub fn lost(&mut self, lost: Lost, may_repeat: bool) -> Option<Trouble> {
        match lost {
            Lost::Unsent => self.late(None),
            Lost::Unanswered => {
                self.is_unsure = true;
                if may_repeat { self.late(None) } else { Some(Trouble::Unknown(None)) }
            }
        }
    }

    fn late(&self, error: Option<ResponseError>) -> Option<Trouble> {
        let trouble = match (self.is_unsure, error) {
            (true, error) => Trouble::Unknown(error),
            (false, Some(error)) => Trouble::Refused(error),
            (false, None) => Trouble::Unsent,
        };
        (Instant::now() >= self.until).then_some(trouble)
    }

    pub async fn breathe() {
        sleep(BREATH).await;
    }
}
