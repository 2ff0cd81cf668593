//! What expires by the clock and by size, and that the disk gets its space back.

use std::path::Path;

use anabranch::clock::Clock;
use anabranch::model::batch::Codec;
use anabranch::server::Server;
use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use crate::harness::{Broker, Client, NOW_MS, PATIENCE, batch, batch_at, config};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// The clock of the broker decides, never that of a client: these records say that they are of 1970 or of next year.
#[tokio::test]
async fn records_expire_by_the_time_they_were_appended() {
    let broker = Broker::with(|config| config.connections_idle_max = 30 * 24 * HOUR).await;
    let settings = [
        ("retention.ms", "36000000"),
        ("segment.ms", "3600000"),
        ("message.timestamp.after.max.ms", "9223372036854775807"),
    ];
    broker.create_with("t", &settings).await;
    broker.create_with("kept", &[("retention.ms", "-1")]).await;
    let mut client = broker.connect().await;
    for timestamp in [0, NOW_MS + 365 * 24 * HOUR] {
        client.produced("t", 0, batch_at(timestamp, &["old"], Codec::None, None)).await;
    }
    client.produced("kept", 0, batch(&["kept"])).await;
    broker.clock.advance(9 * HOUR);
    client.produced("t", 0, batch(&["young"])).await;
    broker.clock.advance(HOUR);
    assert_eq!(client.earliest("t", 0).await, 0, "ten hours are not over");
    broker.advance_until(MINUTE, async || broker.connect().await.earliest("t", 0).await > 0).await;
    assert_eq!((client.earliest("t", 0).await, client.latest("t", 0).await), (2, 3), "the young one is left");
    assert_eq!(client.fetch("t", 0, 1).await.error_code, ResponseError::OffsetOutOfRange.code());
    assert_eq!(client.read_from("t", 0, 2).await, [(2, "young".to_owned())]);
    broker.advance_until(HOUR, async || broker.connect().await.earliest("t", 0).await == 3).await;
    assert!(broker.clock.now_ms() > NOW_MS + 19 * HOUR);
    assert_eq!((client.earliest("kept", 0).await, client.latest("kept", 0).await), (0, 1));
    // What was trimmed before something that was acknowledged stays trimmed, and offsets go on where they were.
    assert_eq!(client.produced("t", 0, batch(&["next"])).await, 3);
    let broker = broker.crash().await;
    let mut client = broker.connect().await;
    assert_eq!((client.earliest("t", 0).await, client.latest("t", 0).await), (3, 4));
}

#[tokio::test]
async fn what_is_more_than_a_partition_keeps_expires_by_segments() {
    let broker = Broker::with(|config| config.connections_idle_max = 30 * 24 * HOUR).await;
    // Segments of at least a megabyte, as Kafka has them.
    broker.create_with("t", &[("retention.bytes", "2500000"), ("segment.bytes", "1048576")]).await;
    let mut client = broker.connect().await;
    let value = "x".repeat(100_000);
    for _ in 0..60 {
        client.produced("t", 0, batch(&[&value])).await;
    }
    broker.advance_until(MINUTE / 2, async || broker.connect().await.earliest("t", 0).await > 0).await;
    let earliest = client.earliest("t", 0).await;
    // Enough is left, and less than a segment more than that.
    assert!((24..=35).contains(&(60 - earliest)), "{earliest}");
    assert_eq!(client.read_from("t", 0, earliest).await.len() as i64, 60 - earliest);
}

/// Blocks on the disk of everything below `folder`.
fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { disk_bytes(&entry.path()) } else { metadata.blocks() * 512 })
    });
    sizes.sum()
}

/// Incompressible, so that no layer below can make it small.
fn noise(seed: u64, len: usize) -> String {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..len).map(|_| next()).collect()
}

#[tokio::test]
async fn the_disk_gets_back_what_expires_by_time_size_and_deletion() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.data_dir = folder.path().join("data");
    // Epochs of a megabyte.
    config.memory = 16 << 20;
    config.connections_idle_max = 30 * 24 * HOUR;
    let clock = Clock::manual(NOW_MS);
    let server = Server::start(config.clone(), clock.clone()).await.unwrap();
    let mut client = Client::connect(&server).await;
    let empty = disk_bytes(folder.path());
    let fill = async |client: &mut Client, name: &str| {
        for n in 0..40 {
            client.produced(name, 0, batch(&[&noise(n, 500_000)])).await;
        }
    };
    let settings: [(&str, &[(&str, &str)]); 3] =
        [("timed", &[("retention.ms", "600000")]), ("sized", &[("retention.bytes", "1000000")]), ("deleted", &[])];
    for (name, settings) in settings {
        client.create_topic(name, 1, settings).await;
        // A neighbour that lives on in the same epochs.
        client.create_topic(&format!("beside-{name}"), 1, &[("retention.ms", "-1")]).await;
        client.produced(&format!("beside-{name}"), 0, batch(&["first"])).await;
        fill(&mut client, name).await;
        client.produced(&format!("beside-{name}"), 0, batch(&["last"])).await;
        let full = disk_bytes(folder.path());
        assert!(full > empty + (12 << 20), "{name}: {full} of {empty}");
        if name == "deleted" {
            client.delete_topic(name).await;
        }
        let deadline = std::time::Instant::now() + PATIENCE;
        while disk_bytes(folder.path()) > empty + (4 << 20) {
            let now = disk_bytes(folder.path());
            assert!(std::time::Instant::now() < deadline, "{name}: {now} of {full} bytes, {empty} when empty");
            clock.advance(MINUTE);
            tokio::task::yield_now().await;
        }
        let beside = client.read_from(&format!("beside-{name}"), 0, 0).await;
        assert_eq!(beside, [(0, "first".to_owned()), (1, "last".to_owned())]);
    }
    assert_eq!((client.earliest("timed", 0).await, client.latest("timed", 0).await), (40, 40));
    server.shutdown().await.unwrap();
    let server = Server::start(config, clock).await.unwrap();
    let mut client = Client::connect(&server).await;
    assert_eq!(client.latest("timed", 0).await, 40);
    assert_eq!(client.read_from("beside-timed", 0, 0).await.len(), 2);
    let sized = client.earliest("sized", 0).await;
    assert!((1..40).contains(&sized));
    assert_eq!(client.fetch("sized", 0, sized).await.records.map(|records: Bytes| records.len() > 500_000), Some(true));
    server.shutdown().await.unwrap();
}
