//! Warm throughput: what the door asks for and what the scaler makes of it.

use serde_json::json;

use super::fixture::{Fixture, arn};
use crate::scaler;

/// Minutes without traffic.
async fn minutes(f: &Fixture, count: usize) {
    for _ in 0..count {
        f.clock.advance(60_000);
        scaler::look(&f.door.broker, 1_000).await;
    }
}

async fn open_shards(f: &Fixture) -> u64 {
    f.summary("d").await["OpenShardCount"].as_u64().unwrap()
}

#[tokio::test]
async fn a_stream_is_warmed_up_at_once_and_cools_down_when_asked() {
    let f = Fixture::new();
    f.create_on_demand("d").await;
    let warm = |mibps: u32| json!({"StreamName": "d", "WarmThroughputMiBps": mibps});
    assert_eq!(f.refused("UpdateStreamWarmThroughput", warm(16)).await.0, "ValidationException");
    let commitment = json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}});
    f.ok("UpdateAccountSettings", commitment).await;

    let answer = f.ok("UpdateStreamWarmThroughput", warm(16)).await;
    assert_eq!(answer["WarmThroughput"], json!({"TargetMiBps": 16, "CurrentMiBps": 4}));
    assert_eq!(open_shards(&f).await, 16);
    minutes(&f, 60).await;
    let f = f.restarted();
    minutes(&f, 60).await;
    assert_eq!(f.summary("d").await["WarmThroughput"], json!({"TargetMiBps": 16, "CurrentMiBps": 16}));

    f.ok("UpdateStreamWarmThroughput", warm(6)).await;
    assert_eq!(open_shards(&f).await, 16, "nothing is taken away at once");
    minutes(&f, 5).await;
    assert_eq!(open_shards(&f).await, 6);
}

#[tokio::test]
async fn a_stream_keeps_its_shards_when_it_becomes_on_demand() {
    let f = Fixture::new();
    f.create("d", 10).await;
    let mode = |mode: &str| json!({"StreamARN": arn("d"), "StreamModeDetails": {"StreamMode": mode}});
    f.ok("UpdateStreamMode", mode("ON_DEMAND")).await;
    minutes(&f, 3).await;
    assert_eq!(open_shards(&f).await, 10);
    f.clock.advance(2 * 86_400_000);
    minutes(&f, 3).await;
    assert_eq!(open_shards(&f).await, 10);
    f.ok("UpdateStreamMode", mode("PROVISIONED")).await;
    f.clock.advance(40 * 86_400_000);
    minutes(&f, 3).await;
    assert_eq!(open_shards(&f).await, 10);
}
