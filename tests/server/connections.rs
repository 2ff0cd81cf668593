//! Connections by the thousand, opened and left in every way, while one client works on.

use std::net::SocketAddr;

use kafka_protocol::messages::ApiVersionsRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{FETCH, batch, fetch, frame};
use crate::process::Process;

/// In this process a connection takes one descriptor, in the broker's another.
fn raise_file_limit(wanted: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the struct, which outlives them.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    assert!(limit.rlim_cur > wanted, "this machine allows {} open files", limit.rlim_cur);
}

/// Opens a connection and leaves it as the `n`th client would.
async fn leave(address: SocketAddr, n: usize) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let asked = frame(&ApiVersionsRequest::default(), 0, 1);
    let waiting = frame(&fetch("t", &[(0, i64::MAX >> 1)]).with_max_wait_ms(i32::MAX), FETCH, 1);
    let said: &[u8] = match n % 6 {
        // Nothing at all.
        0 => &[],
        // A request that was answered.
        1 => &asked,
        // Half a length, half a request.
        2 => &asked[..3],
        3 => &asked[..11],
        // The beginning of a hundred megabytes.
        4 => &[6, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1],
        // A fetch that nobody may be waiting for any more.
        _ => &waiting,
    };
    socket.write_all(said).await.unwrap();
    if n % 6 == 1 {
        let length = socket.read_i32().await.unwrap();
        socket.read_exact(&mut vec![0; length as usize]).await.unwrap();
    }
    socket
}

/// Memory before, with the connections, and after they are gone.
async fn crowd(count: usize) -> [Option<u64>; 3] {
    raise_file_limit(count as u64 + 100);
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), &[]);
    let mut well = crate::harness::Client::connect_to(process.kafka).await;
    well.create_topic("t", 1, &[]).await;
    for _ in 0..10 {
        well.produced("t", 0, batch(&["warm"])).await;
    }
    let before = process.resident();
    let mut left = Vec::with_capacity(count);
    for n in 0..count {
        left.push(leave(process.kafka, n).await);
        if n % 100 == 0 {
            let offset = well.produced("t", 0, batch(&["on"])).await;
            assert_eq!(well.read_from("t", 0, offset).await.len(), 1);
        }
    }
    let during = process.resident();
    drop(left);
    // The others are seen to be gone by reading on; new clients come in meanwhile.
    for _ in 0..10 {
        let mut next = crate::harness::Client::connect_to(process.kafka).await;
        let offset = next.produced("t", 0, batch(&["after"])).await;
        assert_eq!(next.read_from("t", 0, offset).await.len(), 1);
    }
    [before, during, process.resident()]
}

#[tokio::test]
async fn a_thousand_connections_are_opened_and_left() {
    let [before, during, _] = crowd(1_000).await;
    if let (Some(before), Some(during)) = (before, during) {
        let each = during.saturating_sub(before) / 1_000;
        assert!(each < 32 << 10, "{each} bytes for each connection");
    }
}

#[tokio::test]
#[ignore = "ten times the descriptors that many machines allow; prints what it took"]
async fn ten_thousand_connections_are_opened_and_left() {
    let figures = crowd(10_000).await.map(|bytes| bytes.map(|bytes| bytes >> 10));
    println!("resident KiB before, with ten thousand connections, after: {figures:?}");
}
