//! Calls to a service and the bounds of connections: sizes, times, memory, numbers, the end.

use super::*;

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
