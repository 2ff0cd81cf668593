//! What expires by time: exactly, also where segments are half expired, lie in the store or have moved.

use proptest::prelude::*;

use super::*;

impl Rig {
    /// Changes the stream's own retention.
    async fn retain(&self, retention_ms: i64) {
        let alter = |overrides: &Overrides| {
            let mut altered = overrides.clone();
            altered.insert("retention.ms".into(), retention_ms.to_string());
            Ok(altered)
        };
        self.broker.alter_stream(&self.stream, alter).await.unwrap();
    }

    /// Notes what has expired of `appended`: the append time of each of partition 0's records.
    fn expire_before(&mut self, appended: &[i64], before_ms: i64) {
        let expired = appended.partition_point(|append_ms| *append_ms < before_ms) as Offset;
        let expected = self.expected.get_mut(&0).unwrap();
        expected.log_start = expected.log_start.max(expired);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn records_are_found_and_expire_by_when_they_were_appended(
        pauses in proptest::collection::vec(0..40_i64, 1..40),
        tail_bytes_max in prop_oneof![Just(0_usize), Just(500), Just(100_000)],
        looks in proptest::collection::vec((-50..900_i64, any::<bool>()), 1..12),
    ) {
        runtime().block_on(async {
            let mut rig = Rig::new(tail_bytes_max).await;
            let mut appended = Vec::new();
            for (n, pause) in pauses.iter().enumerate() {
                rig.clock.advance(*pause);
                rig.append(0, 1 + n % 3, false).await;
                appended.resize(rig.expected[&0].records.len(), rig.clock.now_ms());
            }
            let now_ms = rig.clock.now_ms();
            for (at, kill) in looks {
                let (at, log) = (1_000 + at, rig.stream.partition(PartitionIndex(0)).unwrap());
                let found = rig.broker.offset_at_append_time(&log, at).await.unwrap();
                let wanted = appended.partition_point(|append_ms| *append_ms < at) as Offset;
                assert_eq!(found, wanted.max(log.log_start()), "at {at} of {appended:?}");
                rig.retain(now_ms - at).await;
                if now_ms >= at {
                    rig.expire_before(&appended, at);
                }
                rig.check().await;
                if kill {
                    rig.take(&Step::Kill).await;
                    rig.check().await;
                }
                rig.broker.reclaim().await.unwrap();
            }
        });
    }
}

#[test]
fn a_longer_retention_brings_nothing_back_and_a_shorter_one_hides_at_once() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        rig.retain(100).await;
        rig.append(0, 1, false).await;
        rig.clock.advance(60);
        rig.append(0, 1, false).await;
        rig.clock.advance(60);
        // Nobody has looked since the first record expired.
        rig.retain(1_000).await;
        rig.expected.get_mut(&0).unwrap().log_start = 1;
        rig.check().await;
        rig.retain(59).await;
        rig.expected.get_mut(&0).unwrap().log_start = 2;
        rig.check().await;
        rig.retain(-1).await;
        rig.check().await;
        rig.take(&Step::Kill).await;
        rig.check().await;
    });
}

#[test]
fn a_closed_shard_is_forgotten_when_its_last_record_has_expired() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        rig.retain(5_000).await;
        rig.append(0, 2, false).await;
        let split = |rig: &Rig| {
            let (broker, stream) = (rig.broker.clone(), rig.stream.clone());
            async move {
                let split = broker.change_stream(&stream, |draft| {
                    Ok::<_, CatalogError>(draft.split(ShardOrdinal(0), SplitAt::Midpoint)?)
                });
                split.await.unwrap()
            }
        };
        rig.clock.advance(3_000);
        split(&rig).await;
        let ordinals = |rig: &Rig| rig.stream.lineage().shards().iter().map(|s| s.ordinal.0).collect::<Vec<_>>();
        rig.clock.advance(3_000);
        // Its records have expired, but it is not closed for long enough.
        for elapsed_ms in [0, 2_000] {
            rig.clock.advance(elapsed_ms);
            rig.broker.expire(&rig.stream).await.unwrap();
            rig.broker.forget_shards(&rig.stream).await.unwrap();
            assert_eq!(ordinals(&rig), [0, 1, 2, 3, 4]);
        }
        rig.clock.advance(1);
        rig.broker.forget_shards(&rig.stream).await.unwrap();
        for _ in 0..2 {
            assert_eq!(ordinals(&rig), [1, 2, 3, 4]);
            assert_eq!(rig.stream.leader_epochs(), [1, 0, 0, 0]);
            // What came before the first generation that is known ended where that begins.
            assert_eq!(rig.stream.end_offset_for_epoch(PartitionIndex(0), 0), Some((0, 2)));
            rig.take(&Step::Kill).await;
        }
    });
}
