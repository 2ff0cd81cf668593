//! Transactions, against a model: what was committed is seen once and in order by who reads committed records, what was
//! aborted never, what is open not yet; whatever happens to the broker and to the shards meanwhile.

use super::*;
use crate::broker::End;
use crate::log::transactions::Aborted;
use crate::model::batch::{Header, Marker};
use crate::store::{Batch, Family};

mod histories;

const TRANSACTIONAL: Terms = Terms { all_replicas: false, zstd_allowed: true, transactional: true };

fn transactional(id: i64, epoch: i16, base_sequence: i32) -> Option<Producer> {
    Some(Producer { id, epoch, base_sequence, transactional: true })
}

impl Rig {
    /// Writes one record in a transaction; its offset, or none where it stands in another partition's log.
    async fn write(&self, index: u32, id: i64, epoch: i16, sequence: i32) -> Option<Offset> {
        let bytes = values(format!("of-{id}").as_bytes(), sequence as u64, 1, transactional(id, epoch, sequence));
        let ticket = self.broker.append(&self.stream, PartitionIndex(index), &bytes, TRANSACTIONAL).unwrap();
        ticket.committed().await.unwrap().base_offset
    }

    async fn end(&self, id: i64, epoch: i16, commit: bool, indexes: &[u32]) {
        let partitions = indexes.iter().map(|index| (self.stream.clone(), PartitionIndex(*index))).collect();
        let end = End { producer_id: id, producer_epoch: epoch, coordinator_epoch: 3, commit, partitions };
        self.broker.end_transaction(end, Batch::default()).await.unwrap().unwrap();
    }

    fn stable(&self, index: u32) -> Offset {
        self.stream.partition(PartitionIndex(index)).unwrap().last_stable_offset()
    }

    fn aborted(&self, index: u32) -> Vec<(i64, Offset, Offset)> {
        let log = self.stream.partition(PartitionIndex(index)).unwrap();
        let aborted = log.aborted_within(0, Offset::MAX);
        aborted.iter().map(|aborted| (aborted.producer_id, aborted.first_offset, aborted.last_offset)).collect()
    }

    /// What a log's batches are: `(offset, producer, what a marker says)`.
    async fn batches(&self, index: u32) -> Vec<(Offset, i64, Option<bool>)> {
        let log = self.stream.partition(PartitionIndex(index)).unwrap();
        let mut found = Vec::new();
        let mut next = log.log_start();
        while next < log.end_offset() {
            for stored in self.broker.read(&log, next, Offset::MAX, 1_000).await.unwrap() {
                let header = Header::parse(&stored.batch()).unwrap();
                let commit = Marker::of(&stored.batch()).map(|marker| marker.commit);
                found.push((stored.base_offset, header.producer_id, commit));
                next = stored.last_offset + 1;
            }
        }
        found
    }

    async fn kill(&mut self) {
        self.take(&Step::Kill).await;
    }

    async fn merge_all(&self) {
        let one = NonZeroU32::new(1).unwrap();
        let merge = |draft: &mut Draft<'_>| draft.scale(one).map_err(CatalogError::from);
        self.broker.change_stream(&self.stream, merge).await.unwrap();
    }
}

#[test]
fn what_is_open_is_unstable_and_survives_a_kill() {
    runtime().block_on(async {
        for tail_bytes_max in [0, 100_000] {
            let mut rig = Rig::new(tail_bytes_max).await;
            rig.append(0, 2, false).await;
            assert_eq!((rig.stable(0), rig.stable(1)), (2, 0));
            assert_eq!(rig.write(0, 7, 0, 0).await, Some(2));
            assert_eq!(rig.write(0, 8, 0, 0).await, Some(3));
            assert_eq!(rig.write(0, 7, 0, 1).await, Some(4));
            for _ in 0..2 {
                assert_eq!((rig.stable(0), rig.aborted(0)), (2, vec![]));
                rig.kill().await;
            }
            rig.end(7, 0, false, &[0]).await;
            for _ in 0..2 {
                assert_eq!((rig.stable(0), rig.aborted(0)), (3, vec![(7, 2, 5)]));
                rig.kill().await;
            }
            rig.end(8, 0, true, &[0, 1]).await;
            for _ in 0..2 {
                assert_eq!((rig.stable(0), rig.aborted(0)), (7, vec![(7, 2, 5)]));
                // A partition without a record of it has a marker as well, and fences.
                assert_eq!((rig.stable(1), rig.batches(1).await), (1, vec![(0, 8, Some(true))]));
                rig.kill().await;
            }
            let of_0 =
                [(0, -1, None), (2, 7, None), (3, 8, None), (4, 7, None), (5, 7, Some(false)), (6, 8, Some(true))];
            assert_eq!(rig.batches(0).await, of_0);
        }
    });
}

#[test]
fn a_transaction_ends_everywhere_and_with_what_the_coordinator_stores_or_nowhere() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        for index in 0..PARTITIONS {
            rig.write(index, 7, 0, 0).await;
        }
        let held = rig.store.hold_commits();
        // Something of another's is under way, so that the group comes in the middle of a commit.
        let other = rig.broker.append(&rig.stream, PartitionIndex(1), &values(b"x", 1, 1, None), Terms::default());
        let partitions = (0..PARTITIONS).map(|index| (rig.stream.clone(), PartitionIndex(index))).collect();
        let end = End { producer_id: 7, producer_epoch: 1, coordinator_epoch: 3, commit: true, partitions };
        let mut meta = Batch::default();
        meta.put(Family::Meta, "Z-state", "ended");
        let ended = rig.broker.end_transaction(end, meta);
        let before = Arc::new(rig.store.survivor(false));
        drop(held);
        ended.await.unwrap().unwrap();
        other.unwrap().committed().await.unwrap();
        assert_eq!((0..PARTITIONS).map(|index| rig.stable(index)).collect::<Vec<_>>(), [2, 3, 2]);
        let state = |rig: &Rig| rig.broker.scan_meta(b"Z").unwrap().len();
        assert_eq!(state(&rig), 1);
        rig.store = before;
        rig.reopen();
        assert_eq!(((0..PARTITIONS).map(|index| rig.stable(index)).sum::<i64>(), state(&rig)), (0, 0));
    });
}

#[test]
fn a_group_is_never_cut_however_many_commits_are_queued_around_it() {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    threads.block_on(async {
        let rig = Rig::new(0).await;
        let ends: Vec<_> = (0..4_i64)
            .map(|id| {
                let (broker, stream) = (rig.broker.clone(), rig.stream.clone());
                tokio::spawn(async move {
                    for epoch in 0..50_i16 {
                        let mut last = None;
                        for index in 0..PARTITIONS {
                            let bytes = values(b"t", 0, 1, transactional(id, epoch, 0));
                            last = Some(broker.append(&stream, PartitionIndex(index), &bytes, TRANSACTIONAL).unwrap());
                        }
                        last.unwrap().committed().await.unwrap();
                        let partitions = (0..PARTITIONS).map(|index| (stream.clone(), PartitionIndex(index))).collect();
                        let end = End {
                            producer_id: id,
                            producer_epoch: epoch + 1,
                            coordinator_epoch: 0,
                            commit: true,
                            partitions,
                        };
                        broker.end_transaction(end, Batch::default()).await.unwrap().unwrap();
                    }
                })
            })
            .collect();
        // At any moment the store holds as many markers of a producer in one partition as in the others.
        while ends.iter().any(|end| !end.is_finished()) {
            let mut cut = Rig { store: Arc::new(rig.store.survivor(false)), ..Rig::new(0).await };
            cut.reopen();
            let mut markers = Vec::new();
            for index in 0..PARTITIONS {
                let of_log = cut.batches(index).await;
                let mut of_producers: Vec<_> =
                    of_log.iter().filter(|batch| batch.2.is_some()).map(|batch| batch.1).collect();
                of_producers.sort();
                markers.push(of_producers);
            }
            assert!(markers.windows(2).all(|pair| pair[0] == pair[1]), "{markers:?}");
        }
        for end in ends {
            end.await.unwrap();
        }
    });
}

#[test]
fn markers_fence_and_duplicates_open_nothing() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        assert_eq!(rig.write(0, 7, 0, 0).await, Some(0));
        rig.end(7, 1, true, &[0, 1]).await;
        for _ in 0..2 {
            // What the producer's last epoch sent late comes to nothing, with records in the partition and without.
            for index in [0, 1] {
                let late = values(b"late", 0, 1, transactional(7, 0, 1));
                let refused = rig.broker.append(&rig.stream, PartitionIndex(index), &late, TRANSACTIONAL);
                assert!(refused.is_err_and(|error| error.to_string().contains("fenced")), "partition {index}");
            }
            assert_eq!((rig.stable(0), rig.stable(1)), (2, 1));
            rig.kill().await;
        }
        // The next transaction of the same epoch ends without a new one, and a batch of it that comes again, late, is
        // known.
        assert_eq!(rig.write(0, 7, 1, 0).await, Some(2));
        rig.end(7, 1, false, &[0]).await;
        assert_eq!(rig.write(0, 7, 1, 0).await, Some(2));
        assert_eq!((rig.stable(0), rig.aborted(0)), (4, vec![(7, 2, 3)]));
        assert_eq!(rig.write(0, 7, 1, 1).await, Some(4));
        assert_eq!(rig.stable(0), 4);
        // Nothing of it may be written outside of the transaction.
        let plain = Some(Producer { id: 7, epoch: 1, base_sequence: 2, transactional: false });
        let outside = rig.broker.append(&rig.stream, PartitionIndex(0), &values(b"x", 0, 1, plain), Terms::default());
        assert!(matches!(outside, Err(crate::broker::AppendError::Sequence(_))));
    });
}

#[test]
fn a_transaction_ends_in_every_log_that_resharding_has_scattered_it_over() {
    runtime().block_on(async {
        for commit in [true, false] {
            let mut rig = Rig::new(0).await;
            // In the partition's own log, then in the one that absorbed it, then in its own again.
            assert_eq!(rig.write(2, 7, 0, 0).await, Some(0));
            rig.merge_all().await;
            assert_eq!(rig.write(2, 7, 0, 1).await, None);
            assert_eq!((rig.stable(0), rig.stable(2)), (0, 0));
            rig.kill().await;
            rig.broker
                .change_stream(&rig.stream, |draft| {
                    draft.scale(NonZeroU32::new(3).unwrap()).map_err(CatalogError::from)
                })
                .await
                .unwrap();
            assert_eq!(rig.write(2, 7, 0, 2).await, Some(1));
            rig.merge_all().await;
            rig.end(7, 0, commit, &[2]).await;
            for _ in 0..2 {
                assert_eq!((rig.stable(0), rig.stable(2)), (2, 3));
                assert_eq!(rig.batches(0).await, [(0, 7, None), (1, 7, Some(commit))]);
                assert_eq!(rig.batches(2).await, [(0, 7, None), (1, 7, None), (2, 7, Some(commit))]);
                let aborted = |of: (i64, Offset, Offset)| if commit { vec![] } else { vec![of] };
                assert_eq!((rig.aborted(0), rig.aborted(2)), (aborted((7, 0, 1)), aborted((7, 0, 2))));
                assert_eq!(rig.aborted(1), []);
                rig.kill().await;
            }
            // The sleeping log has grown by its marker: the next generation begins behind it.
            rig.broker.add_partitions(&rig.stream, 4).await.unwrap();
            let lineage = rig.stream.lineage();
            assert_eq!(lineage.open_shard_on(PartitionIndex(2)).unwrap().start_offset, 3);
            assert_eq!(rig.stream.end_offset_for_epoch(PartitionIndex(2), 1), Some((1, 3)));
            assert_eq!(rig.write(2, 7, 0, 3).await, Some(3));
        }
    });
}

#[test]
fn what_is_trimmed_leaves_neither_open_nor_aborted_transactions_astray() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        rig.write(0, 7, 0, 0).await;
        rig.write(0, 8, 0, 0).await;
        rig.end(7, 0, false, &[0]).await;
        rig.write(0, 9, 0, 0).await;
        rig.end(8, 0, false, &[0]).await;
        assert_eq!(rig.aborted(0), [(7, 0, 2), (8, 1, 4)]);
        let log = rig.stream.partition(PartitionIndex(0)).unwrap();
        // The marker is still there: who reads the rest must be told.
        rig.broker.trim(&log, 2).await.unwrap();
        assert_eq!(rig.aborted(0), [(7, 0, 2), (8, 1, 4)]);
        rig.broker.trim(&log, 3).await.unwrap();
        for _ in 0..2 {
            assert_eq!((rig.aborted(0), rig.stable(0)), (vec![(8, 1, 4)], 3));
            rig.kill().await;
        }
        let log = rig.stream.partition(PartitionIndex(0)).unwrap();
        rig.broker.trim(&log, 5).await.unwrap();
        for _ in 0..2 {
            // All of an open transaction's records are gone; what comes next may yet be part of it.
            assert_eq!((rig.aborted(0), rig.stable(0)), (vec![], 5));
            rig.kill().await;
        }
        assert_eq!(rig.write(0, 9, 0, 1).await, Some(5));
        assert_eq!(rig.stable(0), 5);
        rig.end(9, 0, true, &[0]).await;
        assert_eq!(rig.stable(0), 7);
    });
}

#[test]
fn a_marker_that_was_trimmed_before_a_kill_does_not_leave_its_producer_in_a_transaction() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        rig.write(0, 7, 0, 0).await;
        rig.end(7, 0, true, &[0]).await;
        rig.take(&Step::Stop).await;
        let log = rig.stream.partition(PartitionIndex(0)).unwrap();
        rig.broker.trim(&log, 2).await.unwrap();
        rig.kill().await;
        let log = rig.stream.partition(PartitionIndex(0)).unwrap();
        assert_eq!(log.producers(|producers| producers.expire(i64::MAX)), 1);
        assert!(!log.is_in_transaction(7));
    });
}

#[test]
fn markers_of_an_encrypted_stream_need_no_key() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        rig.take(&Step::Encrypt(true)).await;
        rig.write(0, 7, 0, 0).await;
        rig.end(7, 1, false, &[0, 1]).await;
        for _ in 0..2 {
            assert_eq!(rig.batches(0).await, [(0, 7, None), (1, 7, Some(false))]);
            let log = rig.stream.partition(PartitionIndex(0)).unwrap();
            let expected = Aborted { producer_id: 7, first_offset: 0, last_offset: 1, stable: 2 };
            assert_eq!(log.aborted_within(0, 2), [expected]);
            assert_eq!(log.producers(|producers| producers.get(7).unwrap().producer_epoch()), 1);
            rig.kill().await;
        }
    });
}

#[test]
fn a_deleted_streams_transactions_go_with_it() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        let other = new_stream(&rig.broker, "other").await;
        let bytes = values(b"x", 0, 1, transactional(7, 0, 0));
        rig.broker.append(&other, PartitionIndex(0), &bytes, TRANSACTIONAL).unwrap().committed().await.unwrap();
        rig.write(0, 7, 0, 0).await;
        rig.broker.delete_stream(&other).await.unwrap();
        let both = vec![(other, PartitionIndex(0)), (rig.stream.clone(), PartitionIndex(0))];
        let end = End { producer_id: 7, producer_epoch: 0, coordinator_epoch: 0, commit: true, partitions: both };
        rig.broker.end_transaction(end, Batch::default()).await.unwrap().unwrap();
        assert_eq!(rig.stable(0), 2);
        assert_eq!(rig.broker.scan_meta(b"o").unwrap().len() + rig.broker.scan_meta(b"A").unwrap().len(), 0);
        rig.kill().await;
        assert_eq!(rig.stable(0), 2);
    });
}
