use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

struct Fixture {
    address: SocketAddr,
    status: Arc<Mutex<Status>>,
    clock: Clock,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

impl Fixture {
    async fn start() -> Fixture {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let status = Arc::new(Mutex::new(Status::Ok));
        let state = Arc::new(HttpState {
            metrics_text: Box::new(|| "up 1\n".to_owned()),
            health: Box::new({
                let status = status.clone();
                move || Health { status: *status.lock(), version: "1.2.3", uptime_seconds: 5, reason: None }
            }),
            apis: Vec::new(),
        });
        let clock = Clock::manual(0);
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(listener, state, clock.clone(), stopped));
        Fixture { address, status, clock, stop, served }
    }

    /// Everything the server answers to `request` until it closes the connection.
    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server that has refused the beginning may close before it has all of it.
        let _ = stream.write_all(request.as_bytes()).await;
        read_to_end(&mut stream).await
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

/// Also ends at a reset, which is how a close reaches a client that had more to say.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        answer.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(answer).unwrap()
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
    let answer = server.ask("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nup 1\n"), "{answer}");
    let answer = server.ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let server = Fixture::start().await;
    assert_eq!(server.get("/").await.0, 404);
    assert_eq!(server.get("/health/x").await.0, 404);
    let answer = server.ask("POST /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
}

#[tokio::test]
async fn a_body_is_not_read() {
    let server = Fixture::start().await;
    // The client never sends its exabyte; the answer and the end of the connection come all the same.
    let answer = server.ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000000000\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Fixture::start().await;
    let long = "x".repeat(HEAD_BYTES_MAX);
    let answer = server.ask(&format!("GET /health HTTP/1.1\r\nHost: x\r\nLong: {long}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = "A: b\r\n".repeat(HEADERS_MAX + 1);
    let answer = server.ask(&format!("GET /health HTTP/1.1\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let answer = server.ask("\0\u{1}not http at all\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(server.get("/health").await.0, 200);
}

#[tokio::test]
async fn a_connection_does_not_live_for_ever() {
    let server = Fixture::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    server.clock.advance(CONNECTION_AGE_MAX_MS);
    read_to_end(&mut stream).await;
}

#[tokio::test]
async fn connections_beyond_the_maximum_wait_their_turn() {
    let server = Fixture::start().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(server.address).await.unwrap());
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
async fn shutdown_ends_silent_connections_and_the_listener() {
    let server = Fixture::start().await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    silent.read_exact(&mut first).await.unwrap();
    server.stop.send(true).unwrap();
    read_to_end(&mut silent).await;
    server.served.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
