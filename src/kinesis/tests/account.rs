//! The account's commitment to a minimum throughput, and what comes with it.

use serde_json::{Value, json};

use super::fixture::{Fixture, NOW_MS, arn};

const HOUR_MS: i64 = 3_600_000;

fn seconds(ms: i64) -> Value {
    json!(ms as f64 / 1_000.0)
}

async fn update(f: &Fixture, status: &str) -> Value {
    let commitment = json!({"Status": status});
    let body = json!({"MinimumThroughputBillingCommitment": commitment});
    f.ok("UpdateAccountSettings", body).await["MinimumThroughputBillingCommitment"].take()
}

async fn commitment(f: &Fixture) -> Value {
    f.ok("DescribeAccountSettings", json!({})).await["MinimumThroughputBillingCommitment"].take()
}

#[tokio::test]
async fn a_commitment_runs_for_a_day_at_least() {
    let f = Fixture::new();
    assert_eq!(commitment(&f).await, json!({"Status": "DISABLED"}));
    assert_eq!(update(&f, "DISABLED").await, json!({"Status": "DISABLED"}));
    let end_ms = NOW_MS + 24 * HOUR_MS;
    let enabled = json!({"Status": "ENABLED", "StartedAt": seconds(NOW_MS), "EarliestAllowedEndAt": seconds(end_ms)});
    assert_eq!(update(&f, "ENABLED").await, enabled);
    f.clock.advance(HOUR_MS);
    assert_eq!(update(&f, "ENABLED").await, enabled, "it goes on");
    let ending = json!({
        "Status": "ENABLED_UNTIL_EARLIEST_ALLOWED_END",
        "StartedAt": seconds(NOW_MS),
        "EarliestAllowedEndAt": seconds(end_ms),
    });
    assert_eq!(update(&f, "DISABLED").await, ending);
    let f = f.restarted();
    assert_eq!(commitment(&f).await, ending);
    f.clock.advance(23 * HOUR_MS);
    let ended = json!({"Status": "DISABLED", "StartedAt": seconds(NOW_MS), "EndedAt": seconds(end_ms)});
    assert_eq!(commitment(&f).await, ended);
}

#[tokio::test]
async fn a_reset_forgets_the_commitment() {
    let f = Fixture::new();
    update(&f, "ENABLED").await;
    f.door.account.reset(&f.door.broker).await.unwrap();
    let f = f.restarted();
    assert_eq!(commitment(&f).await, json!({"Status": "DISABLED"}));
}

#[tokio::test]
async fn warm_throughput_needs_the_commitment_and_an_on_demand_stream() {
    let f = Fixture::new();
    f.create_on_demand("d").await;
    f.create("p", 1).await;
    let warm = |name: &str, mibps: i32| json!({"StreamName": name, "WarmThroughputMiBps": mibps});
    assert_eq!(f.refused("UpdateStreamWarmThroughput", warm("d", 8)).await.0, "ValidationException");
    update(&f, "ENABLED").await;
    assert_eq!(f.refused("UpdateStreamWarmThroughput", warm("p", 8)).await.0, "ValidationException");
    assert_eq!(f.refused("UpdateStreamWarmThroughput", warm("d", 10_241)).await.0, "LimitExceededException");
    let answer = f.ok("UpdateStreamWarmThroughput", warm("d", 8)).await;
    assert_eq!(
        answer,
        json!({
            "StreamARN": arn("d"),
            "StreamName": "d",
            "WarmThroughput": {"TargetMiBps": 8, "CurrentMiBps": 4},
        })
    );
    let summary = f.summary("d").await;
    assert_eq!(summary["OpenShardCount"], 8, "it is ready at once");
    assert_eq!(summary["WarmThroughput"], json!({"TargetMiBps": 8, "CurrentMiBps": 8}));
    // Less gives nothing up by itself: the scaler does.
    f.ok("UpdateStreamWarmThroughput", warm("d", 2)).await;
    assert_eq!(f.summary("d").await["OpenShardCount"], 8);
    let mode = json!({"StreamMode": "ON_DEMAND"});
    let new = json!({"StreamName": "e", "StreamModeDetails": mode, "WarmThroughputMiBps": 6});
    f.ok("CreateStream", new).await;
    assert_eq!(f.summary("e").await["OpenShardCount"], 6);
}

#[tokio::test]
async fn a_committed_account_has_fifty_consumers_on_an_on_demand_stream() {
    let f = Fixture::new();
    f.create_on_demand("d").await;
    let register = |n: usize| json!({"StreamARN": arn("d"), "ConsumerName": format!("c{n}")});
    for n in 0..20 {
        f.ok("RegisterStreamConsumer", register(n)).await;
    }
    assert_eq!(f.refused("RegisterStreamConsumer", register(20)).await.0, "LimitExceededException");
    update(&f, "ENABLED").await;
    for n in 20..50 {
        f.ok("RegisterStreamConsumer", register(n)).await;
    }
    assert_eq!(f.refused("RegisterStreamConsumer", register(50)).await.0, "LimitExceededException");
}
