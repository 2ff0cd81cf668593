//! Event streams over HTTP/1.1.

use super::*;

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
        let bytes = message("SubscribeToShardEvent", Format::Json, format!("{{\"a\":{round}}}").as_bytes());
        events.send(Event::Message(bytes.clone())).await.unwrap();
        assert_eq!(read_chunk(&mut stream).await, bytes);
        settle().await;
        server.clock.advance(60_000);
    }
    let last = Event::Exception(Failure::new("ResourceInUseException", "taken over"));
    events.send(last.clone()).await.unwrap();
    assert_eq!(read_chunk(&mut stream).await, event_stream::encode(last, Format::Json));
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
    let bytes = message("SubscribeToShardEvent", Format::Json, &vec![b'x'; 1 << 20]);
    let mut sent = 0;
    // The sockets' buffers take some; then the channel stays full.
    loop {
        match events.try_send(Event::Message(bytes.clone())) {
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
    // Should the sockets still take some, its time begins anew.
    for _ in 0..64 {
        server.clock.advance(ANSWER_MS_MAX);
        settle().await;
        if events.is_closed() {
            return;
        }
    }
    panic!("it is not left");
}
