//! Asks a broker for its metrics, once over a connection of its own: what a broker that is gone cannot hold up.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::sample::{Sample, SampleError};
use crate::clock::Clock;
use crate::config::HostPort;

/// No answer takes this long.
const PATIENCE_MS: i64 = 5_000;
const ANSWER_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0}")]
    Connect(std::io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("no whole answer: {0}")]
    Body(String),
    #[error(transparent)]
    Sample(#[from] SampleError),
    #[error("no answer within {} s", PATIENCE_MS / 1_000)]
    Slow,
}

pub async fn fetch(address: &HostPort, clock: &Clock) -> Result<Sample, FetchError> {
    tokio::select! {
        outcome = ask(address) => Ok(Sample::parse(&outcome?)?),
        () = clock.sleep_ms(PATIENCE_MS) => Err(FetchError::Slow),
    }
}

async fn ask(address: &HostPort) -> Result<String, FetchError> {
    let socket = TcpStream::connect((&*address.host, address.port)).await.map_err(FetchError::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    // Ends with the answer, or with the sender.
    let connection = tokio::spawn(connection);
    let request = Request::get("/metrics").header(header::HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status()));
    }
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| FetchError::Body(error.to_string()))?;
    connection.abort();
    String::from_utf8(body.to_bytes().to_vec()).map_err(|error| FetchError::Body(error.to_string()))
}
