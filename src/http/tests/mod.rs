//! The HTTP side over real sockets, with a service that keeps its calls and a clock that the tests move.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::activity::{ANSWER_MS_MAX, HEAD_MS_MAX, IDLE_MS_MAX};
use super::body::{REQUEST_BYTES_MAX, REQUEST_MS_MAX};
use super::listen::{HEAD_BYTES_MAX, HEADERS_MAX};
use super::*;
use crate::clock::Clock;
use crate::config::AccessKey;

mod connections;
mod events;
mod h2;
mod pages;

const JSON: &str = "Content-Type: application/x-amz-json-1.1\r\n";
const CBOR: &str = "Content-Type: application/x-amz-cbor-1.1\r\n";
const LIST: &str = "X-Amz-Target: Kinesis_20131202.ListStreams\r\n";
/// What the service of the tests answers to `Big`.
const BIG_BYTES: usize = 12 << 20;

struct Fixture {
    address: SocketAddr,
    status: Arc<Mutex<Status>>,
    calls: Arc<Mutex<Vec<Call>>>,
    /// Where `Subscribe` sends its events from.
    events: Arc<Mutex<Vec<mpsc::Sender<Event>>>>,
    metrics: Arc<Metrics>,
    clock: Clock,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

struct Options {
    keys: Vec<AccessKey>,
    connections_max: usize,
    body_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { keys: Vec::new(), connections_max: 100, body_bytes_max: 64 << 20 }
    }
}

impl Fixture {
    async fn start() -> Fixture {
        Fixture::start_with(Options::default()).await
    }

    async fn start_with(options: Options) -> Fixture {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::new(10);
        let (status, calls, events) = (Arc::new(Mutex::new(Status::Ok)), Arc::default(), Arc::default());
        let state = HttpState {
            metrics_text: Box::new(|format| format!("{format:?} 1\n")),
            health: Box::new({
                let status = status.clone();
                move || Health { status: *status.lock(), version: "1.2.3", uptime_seconds: 5, reason: None }
            }),
            metrics: metrics.clone(),
            apis: vec![api(&calls, &events)],
            services: Vec::new(),
            access: Access::new("123456789012", "us-east-1", &options.keys),
            tracer: None,
            reset: None,
            body_bytes_max: options.body_bytes_max,
            connections_max: options.connections_max,
        };
        let clock = Clock::manual(1_440_938_160_000);
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(listener, Arc::new(state), clock.clone(), stopped));
        Fixture { address, status, calls, events, metrics, clock, stop, served }
    }

    /// How often something was refused for a reason.
    fn refused(&self, reason: &str) -> usize {
        let name = format!("anabranch_http_refused_total{{reason=\"{reason}\"}} ");
        let text = self.metrics.render(TextFormat::Prometheus, |_| ());
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything the server answers to `request` until it closes the connection.
    async fn ask(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        // A server that has refused the beginning may close before it has all of it.
        let _ = stream.write_all(request).await;
        Answer::of(&read_to_end(&mut stream).await)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
        (answer.code, answer.text())
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let length = match body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{headers}\r\n");
        self.ask(&[head.as_bytes(), body].concat()).await
    }

    async fn post(&self, headers: &str, body: &[u8]) -> Answer {
        self.send("POST", "/", headers, body).await
    }
}

/// A service that knows four operations and keeps its calls.
fn api(calls: &Arc<Mutex<Vec<Call>>>, events: &Arc<Mutex<Vec<mpsc::Sender<Event>>>>) -> Api {
    let (calls, events) = (calls.clone(), events.clone());
    let answer = move |call: Call| {
        calls.lock().push(call.clone());
        match call.operation.as_str() {
            "Big" => Reply::Whole(Ok(vec![b'x'; BIG_BYTES].into())),
            "Subscribe" => {
                let (sender, receiver) = mpsc::channel(2);
                events.lock().push(sender);
                Reply::Events(EventStream(receiver))
            }
            "Fail" => Reply::Whole(Err(Failure::new("LimitExceededException", "too \u{e9}arly"))),
            _ => Reply::Whole(codec::decode::<serde::de::IgnoredAny>(call.format, &call.body).map(
                |_| match call.format {
                    Format::Json => Bytes::from_static(b"{}"),
                    Format::Cbor => Bytes::from_static(b"\xa0"),
                },
            )),
        }
    };
    Api {
        name: "Kinesis_20131202",
        knows: |operation| matches!(operation, "ListStreams" | "Big" | "Subscribe" | "Fail"),
        handler: Arc::new(move |call| std::future::ready(answer(call)).boxed()),
    }
}

#[derive(Debug)]
struct Answer {
    code: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn of(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end + 2].to_vec()).unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { code, head, body: bytes[end + 4..].to_vec() }
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Also ends at a reset, which is how a close reaches a client that had more to say.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        answer.extend_from_slice(&buffer[..read]);
    }
    answer
}

/// The head of an answer on a connection that goes on.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Lets the server's tasks see what happened.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn subscribe() -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{JSON}X-Amz-Target: Kinesis_20131202.Subscribe\r\nContent-Length: 2\r\n\r\n{{}}"
    )
}
