//! What clients make the broker hold stays within its memory: budgets that are never passed, and requests that do not wait
//! for each other.

use bytes::Bytes;
use futures_util::future::join_all;
use kafka_protocol::messages::ProduceRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use anabranch::server::Server;

use crate::harness::{Broker, Client, FETCH, PATIENCE, PRODUCE, batch, fetch, frame, metrics, produce};
use crate::process::Process;

const MIB: usize = 1 << 20;

/// A request for partitions 0 and 1 that is a little larger than what usual clients send at most.
fn large_request() -> ProduceRequest {
    let records = batch(&[&"x".repeat(600_000)]);
    let mut request = produce("t", 0, records.clone(), -1);
    let mut second = produce("t", 1, records, -1);
    request.topic_data[0].partition_data.append(&mut second.topic_data[0].partition_data);
    request
}

/// Every budget's use, which is to be within its limit.
async fn within_budgets(server: &Server) {
    let told = metrics(server).await;
    let mut looked_at = 0;
    for (series, limit) in &told {
        let Some(budget) = series.strip_prefix("anabranch_memory_budget_limit_bytes") else { continue };
        let used = told[&format!("anabranch_memory_budget_used_bytes{budget}")];
        assert!(used <= *limit, "{budget}: {used} of {limit}");
        looked_at += 1;
    }
    assert!(looked_at >= 6, "{looked_at} budgets");
}

async fn answer(socket: &mut TcpStream) -> Bytes {
    let length = socket.read_i32().await.unwrap();
    let mut answer = vec![0; length as usize];
    socket.read_exact(&mut answer).await.unwrap();
    answer.into()
}

#[tokio::test]
async fn requests_that_together_exceed_the_memory_are_all_answered() {
    let broker = Broker::with(|config| config.memory = 64 * MIB).await;
    broker.create_topic("t", 2).await;
    let request = frame(&large_request(), PRODUCE, 1);
    let mut sockets = Vec::new();
    for _ in 0..24 {
        let mut socket = TcpStream::connect(broker.server.kafka_addrs()[0]).await.unwrap();
        // Enough to be given memory, for those who come in time.
        socket.write_all(&request[..100_000]).await.unwrap();
        sockets.push(socket);
    }
    within_budgets(&broker.server).await;
    let all = join_all(sockets.iter_mut().map(async |socket| {
        socket.write_all(&request[100_000..]).await.unwrap();
        answer(socket).await;
    }));
    let looks = async {
        loop {
            within_budgets(&broker.server).await;
        }
    };
    let answered = async {
        tokio::select! {
            _ = all => {}
            () = looks => {}
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("requests wait for each other");
    assert_eq!(broker.connect().await.latest("t", 1).await, 24);
}

#[tokio::test]
async fn answers_that_nobody_reads_stay_within_the_memory() {
    let broker = Broker::with(|config| config.memory = 64 * MIB).await;
    broker.create_topic("t", 2).await;
    let mut producer = broker.connect().await;
    for _ in 0..6 {
        producer.call(large_request(), PRODUCE).await;
    }
    let mut readers: Vec<Client> = Vec::new();
    for _ in 0..20 {
        let mut reader = broker.connect().await;
        let wanted = fetch("t", &[(0, 0), (1, 0)]).with_max_bytes(8 << 20);
        reader.send(wanted.with_max_wait_ms(i32::MAX), FETCH).await;
        within_budgets(&broker.server).await;
        readers.push(reader);
    }
    for mut reader in readers {
        within_budgets(&broker.server).await;
        assert!(reader.receive_frame().await.is_some_and(|answer| answer.len() > 500_000));
    }
}

/// Six times as much as it may hold.
#[tokio::test]
async fn the_process_stays_near_its_setting() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), &["--memory", "64MiB"]);
    Client::connect_to(process.kafka).await.create_topic("t", 2, &[]).await;
    let Some(before) = process.resident() else { return };
    let request = frame(&large_request(), PRODUCE, 1);
    let mut largest = before;
    let mut sockets = Vec::new();
    for _ in 0..32 {
        sockets.push(TcpStream::connect(process.kafka).await.unwrap());
    }
    for _ in 0..10 {
        join_all(sockets.iter_mut().map(async |socket| {
            socket.write_all(&request).await.unwrap();
            answer(socket).await;
        }))
        .await;
        largest = largest.max(process.resident().unwrap_or(0));
    }
    let more = (largest - before) as usize / MIB;
    assert!(more <= 96, "{more} MiB more than idle");
}
