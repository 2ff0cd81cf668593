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
            metrics_text: Box::new(|| "up 1\n".to_owned()),
            health: Box::new({
                let status = status.clone();
                move || Health { status: *status.lock(), version: "1.2.3", uptime_seconds: 5, reason: None }
            }),
            metrics: metrics.clone(),
            apis: vec![api(&calls, &events)],
            access: Access::new("123456789012", "us-east-1", &options.keys),
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
        let text = self.metrics.render(|_| ());
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

#[tokio::test]
async fn health_follows_the_state() {
    let server = Fixture::start().await;
    assert_eq!(
        server.get("/health").await,
        (200, r#"{"status":"ok","version":"1.2.3","uptime_seconds":5}"#.to_owned())
    );
    for (status, name) in [(Status::Starting, "starting"), (Status::Draining, "draining"), (Status::Broken, "broken")] {
        *server.status.lock() = status;
        let (code, body) = server.get("/health").await;
        assert_eq!((code, body.contains(&format!(r#""status":"{name}""#))), (503, true), "{body}");
    }
}

#[tokio::test]
async fn metrics_are_text_with_prometheus_content_type() {
    let server = Fixture::start().await;
    let answer = server.send("GET", "/metrics", "", b"").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.text(), "up 1\n");
    let answer = server.send("HEAD", "/metrics", "", b"").await;
    assert_eq!((answer.code, answer.body.len()), (200, 0));
    let answer = server.send("POST", "/health", "", b"").await;
    assert_eq!((answer.code, answer.header("allow")), (405, Some("GET, HEAD")));
    // Nobody asked for the suites' reset: it is a request like any other.
    assert_eq!(server.send("POST", "/moto-api/reset", "", b"").await.code, 400);
}

#[tokio::test]
async fn a_body_for_the_servers_own_pages_is_not_read() {
    let server = Fixture::start().await;
    // The client never sends its exabyte; the answer and the end of the connection come all the same.
    let request = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000000000\r\n\r\n";
    assert_eq!(server.ask(request).await.code, 405);
}

/// Recorded from AWS: what is asked, and the answer's code, content type and body.
#[tokio::test]
async fn requests_that_name_no_operation_are_answered_as_recorded() {
    let server = Fixture::start().await;
    let denied = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized\
        </Message>\n</AccessDeniedException>\n";
    let (json, cbor) = (Some("application/x-amz-json-1.1"), Some("application/x-amz-cbor-1.1"));
    let unknown = r#"{"__type":"UnknownOperationException"}"#;
    let serialization = r#"{"__type":"SerializationException"}"#;
    let old = Some("application/json");
    let old_unknown = r#"{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}"#;
    let old_serialization =
        r#"{"Output":{"__type":"com.amazon.coral.service#SerializationException"},"Version":"1.0"}"#;
    let cbor_unknown = "\u{a1}\u{66}__type\u{78}\u{19}UnknownOperationException";
    let cbor_serialization = "\u{a1}\u{66}__type\u{76}SerializationException";
    let whatever = "X-Amz-Target: Kinesis_20131202.Whatever\r\n";
    let old_type = "Content-Type:      application/json     ;\r\n";
    type Case<'a> = (&'a str, &'a str, String, &'a str, u16, Option<&'a str>, &'a str);
    let cases: Vec<Case> = vec![
        ("GET", "/", String::new(), "", 403, None, denied),
        ("PUT", "/anywhere", String::new(), "", 403, None, denied),
        ("DELETE", "/", format!("{JSON}{LIST}"), "", 403, None, denied),
        ("OPTIONS", "/", String::new(), "", 403, None, denied),
        ("POST", "/", String::new(), "{}", 403, None, denied),
        ("POST", "/", LIST.into(), "{}", 404, None, "<UnknownOperationException/>\n"),
        ("POST", "/", String::new(), "", 400, cbor, cbor_unknown),
        ("POST", "/", "Content-Type: application/x-amz-json-1.0\r\n".into(), "", 400, cbor, cbor_unknown),
        ("POST", "/", "X-Amz-Target: Whatever\r\n".into(), "", 400, cbor, cbor_unknown),
        ("POST", "/", "X-Amz-Target: Kinesis_20131202.\r\n".into(), "", 400, cbor, cbor_unknown),
        ("POST", "/", "X-Amz-Target: Whatever.ListStreams\r\n".into(), "", 400, cbor, cbor_unknown),
        (
            "POST",
            "/",
            format!("Content-Type: application/x-www-form-urlencoded\r\n{LIST}"),
            "{}",
            404,
            None,
            "<UnknownOperationException/>\n",
        ),
        ("POST", "/", LIST.into(), "", 400, cbor, cbor_serialization),
        ("POST", "/", JSON.into(), "", 400, json, unknown),
        ("POST", "/", format!("{JSON}{LIST}"), "", 400, json, serialization),
        ("POST", "/", format!("{JSON}{LIST}"), "hello", 400, json, serialization),
        ("POST", "/", format!("{JSON}{whatever}"), "hello", 400, json, serialization),
        ("POST", "/", format!("{JSON}{whatever}"), "{}", 400, json, unknown),
        ("POST", "/", format!("{CBOR}{whatever}"), "\u{a0}", 400, cbor, cbor_unknown),
        ("POST", "/", old_type.into(), "", 400, cbor, cbor_unknown),
        ("POST", "/", format!("{old_type}{LIST}"), "", 400, cbor, cbor_serialization),
        ("POST", "/", format!("{old_type}{LIST}"), "{}", 404, old, old_unknown),
        ("POST", "/", format!("{old_type}{LIST}"), "hello", 400, old, old_serialization),
        (
            "POST",
            "/",
            format!("Content-Type:   application/x-amz-json-1.1   ;whatever\r\n{LIST}"),
            "{}",
            200,
            json,
            "{}",
        ),
        ("POST", "/any/path?a=b", format!("{CBOR}{LIST}"), "\u{a0}", 200, cbor, "\u{a0}"),
    ];
    // Bytes are written as the characters of their numbers.
    let latin = |text: &str| text.chars().map(|c| c as u32 as u8).collect::<Vec<u8>>();
    for (method, path, headers, body, code, content_type, wanted) in cases {
        let answer = server.send(method, path, &headers, &latin(body)).await;
        assert_eq!((answer.code, answer.header("content-type")), (code, content_type), "{method} {headers} {body}");
        assert_eq!(answer.body, latin(wanted), "{method} {headers} {body}");
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
        let id = answer.header("x-amzn-requestid").unwrap();
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
        assert_eq!(answer.header("x-amz-id-2").unwrap().len(), 88);
        let named = content_type.is_some() && code == 400 && content_type != old;
        assert_eq!(answer.header("x-amzn-errortype").is_some(), named, "{method} {headers} {body}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_ask() {
    let server = Fixture::start().await;
    let asks = "Origin: whatever\r\nAccess-Control-Request-Headers: a, b, c\r\nAccess-Control-Request-Method: d\r\n";
    let answer = server.send("OPTIONS", "/", asks, b"").await;
    assert_eq!((answer.code, answer.body.len()), (200, 0));
    for (name, value) in [
        ("access-control-allow-origin", Some("*")),
        ("access-control-allow-headers", Some("a, b, c")),
        ("access-control-allow-methods", Some("d")),
        ("access-control-max-age", Some("172800")),
        ("content-length", Some("0")),
        ("x-amz-id-2", None),
        ("content-type", None),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let answer = server.post("Origin: whatever\r\n", b"").await;
    assert_eq!((answer.code, answer.header("access-control-allow-origin")), (400, Some("*")));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("x-amzn-RequestId"));
}

#[tokio::test]
async fn a_call_comes_to_its_service_and_its_answer_back() {
    let server = Fixture::start().await;
    let answer = server.post(&format!("{JSON}{LIST}"), b"{\"Limit\": 1}").await;
    assert_eq!((answer.code, answer.text()), (200, "{}".into()));
    let call = server.calls.lock().pop().unwrap();
    assert_eq!(
        (call.operation.as_str(), call.format, &call.body[..]),
        ("ListStreams", Format::Json, &b"{\"Limit\": 1}"[..])
    );
    assert_eq!(call.principal, crate::security::Principal::root("123456789012"));
    assert_eq!(answer.header("x-amzn-requestid"), Some(call.request_id.to_string().as_str()));
    let answer = server.post(&format!("{JSON}X-Amz-Target: Kinesis_20131202.Fail\r\n"), b"{}").await;
    assert_eq!((answer.code, answer.header("x-amzn-errortype")), (400, Some("LimitExceededException")));
    assert_eq!(answer.text(), "{\"__type\":\"LimitExceededException\",\"message\":\"too \u{e9}arly\"}");
    // Chunks of AWS's own kind are taken off.
    let chunked = format!("{JSON}{LIST}X-Amz-Content-Sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n");
    assert_eq!(server.post(&chunked, b"2\r\n{}\r\n0\r\n\r\n").await.code, 200);
    assert_eq!(server.calls.lock().pop().unwrap().body, "{}");
}

#[tokio::test]
async fn large_bodies_pass_both_ways_and_too_large_ones_do_not() {
    let server = Fixture::start().await;
    let body = [b"{\"a\":\"", vec![b'x'; 14 << 20].as_slice(), b"\"}"].concat();
    assert_eq!(server.post(&format!("{JSON}{LIST}"), &body).await.code, 200);
    assert_eq!(server.calls.lock().pop().unwrap().body, body);
    let answer = server.post(&format!("{JSON}X-Amz-Target: Kinesis_20131202.Big\r\n"), b"{}").await;
    assert_eq!((answer.code, answer.body.len()), (200, BIG_BYTES));
    // It is read to its end, so that a client that says all before it listens hears why.
    let answer = server.post(&format!("{JSON}{LIST}"), &vec![b' '; REQUEST_BYTES_MAX + 1]).await;
    assert_eq!((answer.code, answer.header("connection")), (413, Some("close")));
    let absurd = format!("POST / HTTP/1.1\r\nHost: x\r\n{JSON}{LIST}Content-Length: 1000000000000\r\n\r\n");
    assert_eq!(server.ask(absurd.as_bytes()).await.code, 413);
    // Without a claim it is noticed when it has come.
    let mut unclaimed =
        format!("POST / HTTP/1.1\r\nHost: x\r\n{JSON}{LIST}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let chunk = [b"100000\r\n", vec![b' '; 1 << 20].as_slice(), b"\r\n"].concat();
    unclaimed.extend((0..17).flat_map(|_| chunk.iter().copied()));
    unclaimed.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(server.ask(&unclaimed).await.code, 413);
    assert_eq!(server.refused("too_large"), 3);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Fixture::start().await;
    let long = "x".repeat(HEAD_BYTES_MAX);
    assert_eq!(
        server.ask(format!("GET /health HTTP/1.1\r\nHost: x\r\nLong: {long}\r\n\r\n").as_bytes()).await.code,
        431
    );
    let many = "A: b\r\n".repeat(HEADERS_MAX + 1);
    assert_eq!(server.ask(format!("GET /health HTTP/1.1\r\n{many}\r\n").as_bytes()).await.code, 431);
    assert_eq!(server.ask(b"\0\x01not http at all\r\n\r\n").await.code, 400);
    assert_eq!(server.get("/health").await.0, 200);
}

#[tokio::test]
async fn silent_and_slow_clients_are_left() {
    let server = Fixture::start().await;
    let (mut silent, mut slow, mut kept) = (server.connect().await, server.connect().await, server.connect().await);
    slow.write_all(b"GET /heal").await.unwrap();
    kept.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(read_head(&mut kept).await.starts_with("HTTP/1.1 200"));
    settle().await;
    server.clock.advance(HEAD_MS_MAX);
    assert!(read_to_end(&mut silent).await.is_empty());
    assert!(read_to_end(&mut slow).await.is_empty());
    assert_eq!(server.refused("slow_head"), 2);
    // One that has asked may keep its connection longer, and a head that has begun must end.
    kept.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(String::from_utf8(read_head(&mut kept).await.into()).unwrap().contains("200 OK"));
    settle().await;
    server.clock.advance(IDLE_MS_MAX);
    read_to_end(&mut kept).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Fixture::start().await;
    let mut stream = server.connect().await;
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{JSON}{LIST}Content-Length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream);
    tokio::pin!(answer);
    loop {
        tokio::select! {
            biased;
            answer = answer.as_mut() => {
                assert_eq!(Answer::of(&answer).code, 408);
                return;
            }
            () = settle() => server.clock.advance(REQUEST_MS_MAX / 4),
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_not_taken_ends_its_connection() {
    let server = Fixture::start_with(Options { body_bytes_max: BIG_BYTES / 2, ..Options::default() }).await;
    let mut greedy = server.connect().await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{JSON}X-Amz-Target: Kinesis_20131202.Big\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    greedy.write_all(request.as_bytes()).await.unwrap();
    assert!(read_head(&mut greedy).await.starts_with("HTTP/1.1 200"));
    // It holds all there is for answers, so that others wait, until it is given up.
    let list = format!("{JSON}{LIST}");
    let other = server.post(&list, b"{}");
    tokio::pin!(other);
    tokio::select! {
        biased;
        answer = other.as_mut() => panic!("answered beyond the budget: {answer:?}"),
        () = settle() => {}
    }
    // In small steps, for the other gives up before.
    server.clock.advance(5_000);
    settle().await;
    drop(greedy);
    assert_eq!(other.await.code, 200);
    let mut greedy = server.connect().await;
    greedy.write_all(request.as_bytes()).await.unwrap();
    read_head(&mut greedy).await;
    settle().await;
    server.clock.advance(ANSWER_MS_MAX);
    assert!(read_to_end(&mut greedy).await.len() < BIG_BYTES);
    assert_eq!(server.post(&format!("{JSON}{LIST}"), b"{}").await.code, 200);
}

#[tokio::test]
async fn without_memory_requests_are_refused_for_now() {
    let server = Fixture::start_with(Options { body_bytes_max: 1 << 20, ..Options::default() }).await;
    let body = vec![b' '; 2 << 20];
    let list = format!("{JSON}{LIST}");
    let answer = server.post(&list, &body);
    tokio::pin!(answer);
    loop {
        tokio::select! {
            biased;
            answer = answer.as_mut() => {
                assert_eq!((answer.code, answer.header("x-amzn-errortype")), (503, Some("ServiceUnavailable")));
                break;
            }
            () = settle() => server.clock.advance(1_000),
        }
    }
    assert_eq!(server.post(&format!("{JSON}{LIST}"), b"{}").await.code, 200);
}

#[tokio::test]
async fn connections_beyond_the_maximum_wait_their_turn() {
    let server = Fixture::start_with(Options { connections_max: 20, ..Options::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(server.connect().await);
    }
    // One that is served shows that those before it were accepted; after it, all places are taken.
    let waiting = server.get("/health");
    tokio::pin!(waiting);
    tokio::select! {
        biased;
        answer = waiting.as_mut() => panic!("answered without a place: {answer:?}"),
        () = async { for _ in 0..1_000 { tokio::task::yield_now().await } } => {}
    }
    drop(silent.pop());
    assert_eq!(waiting.await.0, 200);
}

#[tokio::test]
async fn shutdown_ends_silent_connections_streams_and_the_listener() {
    let server = Fixture::start().await;
    let mut silent = server.connect().await;
    silent.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_head(&mut silent).await;
    let mut stream = server.connect().await;
    stream.write_all(subscribe().as_bytes()).await.unwrap();
    read_head(&mut stream).await;
    server.stop.send(true).unwrap();
    read_to_end(&mut silent).await;
    // The stream ends as streams do, not in the middle of a chunk.
    assert!(read_to_end(&mut stream).await.ends_with(b"\r\n0\r\n\r\n"));
    server.served.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

fn subscribe() -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{JSON}X-Amz-Target: Kinesis_20131202.Subscribe\r\nContent-Length: 2\r\n\r\n{{}}"
    )
}

/// The next chunk of a body.
async fn read_chunk(stream: &mut TcpStream) -> Vec<u8> {
    let mut size = Vec::new();
    while !size.ends_with(b"\r\n") {
        size.push(stream.read_u8().await.unwrap());
    }
    let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
    let mut chunk = vec![0; size + 2];
    stream.read_exact(&mut chunk).await.unwrap();
    chunk.truncate(size);
    chunk
}

#[tokio::test]
async fn an_event_stream_begins_goes_on_and_ends_with_an_exception() {
    let server = Fixture::start().await;
    let mut stream = server.connect().await;
    stream.write_all(subscribe().as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.contains("content-type: application/vnd.amazon.eventstream\r\n"), "{head}");
    assert_eq!(read_chunk(&mut stream).await, event_stream::initial_response(Format::Json));
    let events = server.events.lock().pop().unwrap();
    // Longer than anything else may take: a stream is not ended by its age.
    for round in 0..10 {
        let event = Event::Message { kind: "SubscribeToShardEvent", body: format!("{{\"a\":{round}}}").into() };
        events.send(event.clone()).await.unwrap();
        assert_eq!(read_chunk(&mut stream).await, event_stream::encode(&event, Format::Json));
        settle().await;
        server.clock.advance(60_000);
    }
    let last = Event::Exception(Failure::new("ResourceInUseException", "taken over"));
    events.send(last.clone()).await.unwrap();
    assert_eq!(read_chunk(&mut stream).await, event_stream::encode(&last, Format::Json));
    assert_eq!(read_chunk(&mut stream).await, b"");
    settle().await;
    assert!(events.is_closed());
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_holds_little_and_is_left() {
    let server = Fixture::start().await;
    let mut stream = server.connect().await;
    stream.write_all(subscribe().as_bytes()).await.unwrap();
    read_head(&mut stream).await;
    let events = server.events.lock().pop().unwrap();
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let mut sent = 0;
    // The sockets' buffers take some; then the channel stays full.
    loop {
        match events.try_send(Event::Message { kind: "SubscribeToShardEvent", body: body.clone() }) {
            Ok(()) => sent += 1,
            Err(_) => {
                settle().await;
                if events.capacity() == 0 {
                    break;
                }
            }
        }
        settle().await;
    }
    assert!(sent < 64, "{sent}");
    server.clock.advance(ANSWER_MS_MAX);
    events.closed().await;
}

#[tokio::test]
async fn callers_without_a_valid_signature_are_refused_when_there_are_keys() {
    let key = AccessKey { id: "AKIDEXAMPLE".into(), secret: "s3cr3t".into(), principal_arn: None };
    let server = Fixture::start_with(Options { keys: vec![key], ..Options::default() }).await;
    let call = format!("{JSON}{LIST}");
    let answer = server.post(&call, b"{}").await;
    let missing = r#"{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}"#;
    assert_eq!((answer.code, answer.text()), (400, missing.into()));
    // What is no document is told first.
    assert_eq!(server.post(&call, b"hello").await.text(), r#"{"__type":"SerializationException"}"#);
    let signed = |id: &str| {
        format!(
            "X-Amz-Date: 20150830T123600Z\r\nAuthorization: AWS4-HMAC-SHA256 Credential={id}/20150830/us-east-1/kinesis/\
             aws4_request, SignedHeaders=host;x-amz-date, Signature=00\r\n"
        )
    };
    let answer = server.post(&format!("{call}{}", signed("AKIDOTHER")), b"{}").await;
    let unknown = r#"{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}"#;
    assert_eq!((answer.code, answer.text()), (400, unknown.into()));
    let answer = server.post(&format!("{call}{}", signed("AKIDEXAMPLE")), b"{}").await;
    assert_eq!((answer.code, answer.header("x-amzn-errortype")), (400, Some("InvalidSignatureException")));
    assert!(server.calls.lock().is_empty());
    assert_eq!((server.refused("signature"), server.refused("no_operation")), (4, 0));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let answer = server.post(form, b"Action=GetCallerIdentity").await;
    assert_eq!(answer.code, 403);
    assert!(answer.text().contains("<Code>MissingAuthenticationToken</Code>"), "{answer:?}");
}

#[tokio::test]
async fn callers_learn_who_they_are() {
    let server = Fixture::start().await;
    let form = "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n";
    let answer = server.send("POST", "/sts", form, b"Action=GetCallerIdentity&Version=2011-06-15").await;
    assert_eq!((answer.code, answer.header("content-type")), (200, Some("text/xml")));
    assert!(answer.text().contains("<Account>123456789012</Account>"), "{answer:?}");
    let (code, text) = server.get("/?Action=GetCallerIdentity&Version=2011-06-15").await;
    assert!(code == 200 && text.contains("<Arn>arn:aws:iam::123456789012:root</Arn>"), "{text}");
    assert_eq!(server.post(form, b"Action=AssumeRole").await.code, 400);
}

/// HTTP/2 as a client without TLS begins it, spoken by hand: its preface, settings, and frames.
struct H2 {
    stream: TcpStream,
}

impl H2 {
    async fn connect(server: &Fixture) -> H2 {
        let mut stream = server.connect().await;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut h2 = H2 { stream };
        h2.frame(4, 0, 0, b"").await;
        h2
    }

    async fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat();
        self.stream.write_all(&frame).await.unwrap();
    }

    async fn call(&mut self, id: u32, operation: &str, body: &[u8]) {
        let mut block = vec![0x83, 0x84, 0x86];
        let target = format!("Kinesis_20131202.{operation}");
        for (name, value) in
            [(":authority", "x"), ("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())]
        {
            block.extend([&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat());
        }
        self.frame(1, 4, id, &block).await;
        self.frame(0, 1, id, body).await;
    }

    /// The next frame that says something about a request: kind, flags, request, payload.
    async fn next(&mut self) -> (u8, u8, u32, Vec<u8>) {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.unwrap();
            match (head[3], head[4]) {
                (4, 0) => self.frame(4, 1, 0, b"").await,
                (kind @ (0 | 1), flags) => {
                    return (kind, flags, u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload);
                }
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn http_2_is_spoken_on_the_same_port() {
    let server = Fixture::start().await;
    let mut h2 = H2::connect(&server).await;
    h2.call(1, "Subscribe", b"{}").await;
    assert_eq!(h2.next().await.0, 1);
    assert_eq!(h2.next().await.3, event_stream::initial_response(Format::Json));
    // Another request passes the stream, which stays open.
    h2.call(3, "ListStreams", b"{}").await;
    let (kind, _, id, _) = h2.next().await;
    assert_eq!((kind, id), (1, 3));
    let (_, flags, id, body) = h2.next().await;
    assert_eq!((flags & 1, id, body), (1, 3, b"{}".to_vec()));
    let call = server.calls.lock().pop().unwrap();
    assert_eq!((call.operation.as_str(), &call.body[..]), ("ListStreams", &b"{}"[..]));
    let events = server.events.lock().pop().unwrap();
    let event = Event::Message { kind: "SubscribeToShardEvent", body: Bytes::from_static(b"{}") };
    events.send(event.clone()).await.unwrap();
    assert_eq!(h2.next().await.3, event_stream::encode(&event, Format::Json));
    // The subscriber leaves its stream, and the service learns of it.
    h2.frame(3, 0, 1, &8u32.to_be_bytes()).await;
    events.closed().await;
}

#[tokio::test]
async fn a_client_that_opens_no_window_holds_little_and_is_left() {
    let server = Fixture::start().await;
    let mut h2 = H2::connect(&server).await;
    h2.call(1, "Big", b"{}").await;
    let mut received = 0;
    // The client's window is 64 KiB, and it never says that it has room for more.
    while received < 65_535 {
        let (kind, _, _, payload) = h2.next().await;
        received += if kind == 0 { payload.len() } else { 0 };
    }
    settle().await;
    server.clock.advance(ANSWER_MS_MAX);
    read_to_end(&mut h2.stream).await;
}
