//! HTTP/2 on the same port.

use super::*;

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
    let bytes = message("SubscribeToShardEvent", Format::Json, b"{}");
    events.send(Event::Message(bytes.clone())).await.unwrap();
    assert_eq!(h2.next().await.3, bytes);
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
