//! Readers of what the store holds, who are read ahead of: what they are given is what they would have read themselves.

use super::*;
use crate::log::ahead::Place;
use crate::log::partition::Partition;
use crate::log::tail::StoredBatch;

const BATCH_BYTES: usize = 16 << 10;
const BATCHES: u64 = 150;
/// A quarter of it is for what is read ahead.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// A partition of which memory holds the end alone. A batch's records are as many as its number's last digit tells.
async fn filled() -> (Arc<Broker>, Arc<Partition>) {
    let store = Arc::new(MemoryStore::with_epoch_bytes_max(20 * BATCH_BYTES));
    let broker = open(&store, &Clock::manual(1_000), TAIL_BYTES_MAX);
    let stream = new_stream(&broker, "kept").await;
    for number in 0..BATCHES {
        let filler = vec![b'x'; BATCH_BYTES / records(number)];
        let bytes = values(&filler, number, records(number), None);
        let ticket = broker.append(&stream, PartitionIndex(0), &bytes, Terms::default()).unwrap();
        ticket.committed().await.unwrap();
    }
    let partition = stream.partition(PartitionIndex(0)).unwrap();
    (broker, partition)
}

fn records(number: u64) -> usize {
    1 + (number % 10) as usize
}

/// What a read from `offset` on has to give, whoever has read before: whole batches without a gap, within its bounds.
fn check(page: &[StoredBatch], offset: Offset, end: Offset, bytes_max: usize) {
    let (first, last) = (page.first().unwrap(), page.last().unwrap());
    assert!((first.base_offset..=first.last_offset).contains(&offset), "{} for {offset}", first.base_offset);
    assert!(page.windows(2).all(|pair| pair[0].last_offset + 1 == pair[1].base_offset));
    assert!(page.len() == 1 || last.base_offset < end);
    let bytes: usize = page.iter().map(StoredBatch::batch_len).sum();
    assert!(page.len() == 1 || bytes <= bytes_max, "{bytes} of {bytes_max}");
    for stored in page {
        let found: Vec<Offset> =
            batch::records(&stored.batch()).unwrap().map(|record| record.unwrap().offset).collect();
        assert_eq!(found, (stored.base_offset..=stored.last_offset).collect::<Vec<_>>());
    }
}

#[test]
fn who_reads_on_is_read_ahead_of() {
    runtime().block_on(async {
        let (broker, partition) = filled().await;
        let mut offset = 0;
        for round in 0..3 {
            let page = broker.read(&partition, offset, Offset::MAX, 100_000).await.unwrap();
            check(&page, offset, Offset::MAX, 100_000);
            offset = page.last().unwrap().last_offset + 1;
            // It was seen to read on when it came for the second page.
            assert_eq!(broker.ahead.used() > 80_000, round > 0);
        }
        // The third page came from there: what is held begins behind it, and nobody reads it here.
        let held = broker.ahead.take(Place { id: partition.id, rewrites: 0, offset }).await;
        check(&held, offset, Offset::MAX, 120_000);
        assert_eq!(broker.ahead.used(), 0);
    });
}

#[derive(Clone, Debug)]
enum Move {
    /// One of the readers goes on.
    Read {
        reader: usize,
        bytes_max: usize,
        short: Option<u64>,
    },
    Jump {
        reader: usize,
        share: f64,
    },
    Trim {
        share: f64,
    },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let read =
        (0..3_usize, prop_oneof![Just(1), Just(70_000), Just(100_000), Just(400_000)], prop::option::of(0..40_u64))
            .prop_map(|(reader, bytes_max, short)| Move::Read { reader, bytes_max, short });
    let jump = (0..3_usize, 0.0..1.0).prop_map(|(reader, share)| Move::Jump { reader, share });
    let trim = (0.0..0.5).prop_map(|share| Move::Trim { share });
    prop::collection::vec(prop_oneof![20 => read, 2 => jump, 1 => trim], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn readers_are_given_what_they_would_have_read(moves in moves()) {
        runtime().block_on(async {
            let (broker, partition) = filled().await;
            let written = partition.end_offset();
            let mut readers = [0; 3];
            for step in moves {
                match step {
                    Move::Read { reader, bytes_max, short } => {
                        let offset: &mut Offset = &mut readers[reader];
                        // As one that reads committed records only, behind an open transaction.
                        let end = short.map_or(written, |short| (*offset + short as Offset).min(written));
                        let read = broker.read(&partition, *offset, end, bytes_max).await;
                        if *offset < partition.log_start() {
                            assert!(matches!(read, Err(ReadError::OutOfRange { .. })));
                            *offset = partition.log_start();
                            continue;
                        }
                        let page = read.unwrap();
                        if let Some(last) = page.last() {
                            check(&page, *offset, end, bytes_max);
                            *offset = last.last_offset + 1;
                        }
                    }
                    Move::Jump { reader, share } => readers[reader] = (written as f64 * share) as Offset,
                    Move::Trim { share } => {
                        broker.trim(&partition, (written as f64 * share) as Offset).await.unwrap();
                    }
                }
                assert!(broker.ahead.used() <= TAIL_BYTES_MAX / 4);
            }
        });
    }
}
