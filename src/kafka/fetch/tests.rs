use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};

use super::*;
use crate::broker::End;
use crate::kafka::names;
use crate::kafka::tests::fixture::{Fixture, NOW_MS, received};
use crate::model::batch::{Producer, Record};

const VERSION: i16 = 12;

fn request(isolation_level: i8, offset: Offset, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(offset);
    let topic = FetchTopic::default().with_topic(names::topic("t")).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_min_bytes(1)
        .with_max_wait_ms(max_wait_ms)
        .with_session_epoch(-1)
        .with_isolation_level(isolation_level)
        .with_topics(vec![topic])
}

async fn fetch_from(door: &Fixture, isolation_level: i8, offset: Offset) -> PartitionData {
    let (answer, _) = fetch(door.cx(VERSION), request(isolation_level, offset, 0)).await;
    received(&answer, VERSION).responses.remove(0).partitions.remove(0)
}

/// Where the batches of an answer begin.
fn bases(data: &PartitionData) -> Vec<Offset> {
    let records = data.records.clone().unwrap_or_default();
    let batches = crate::model::batch::split(&records).map(Result::unwrap);
    batches.map(|batch| crate::model::batch::Header::parse(&batch).unwrap().base_offset).collect()
}

fn aborted(data: &PartitionData) -> Option<Vec<(i64, Offset)>> {
    let told = data.aborted_transactions.as_ref()?;
    Some(told.iter().map(|aborted| (aborted.producer_id.0, aborted.first_offset)).collect())
}

async fn write(door: &Fixture, stream: &Stream, id: i64, base_sequence: i32) {
    let producer = Some(Producer { id, epoch: 0, base_sequence, transactional: true });
    door.append(stream, 0, &[NOW_MS], producer).await;
}

async fn end(door: &Fixture, stream: &Arc<Stream>, id: i64, commit: bool) {
    let partitions = vec![(stream.clone(), PartitionIndex(0))];
    let end = End { producer_id: id, producer_epoch: 0, coordinator_epoch: 0, commit, partitions };
    door.door.broker.end_transaction(end, Default::default()).await.unwrap().unwrap();
}

#[tokio::test]
async fn committed_readers_stop_at_what_is_open_and_are_told_what_was_aborted() {
    let door = Fixture::new();
    let stream = door.topic("t", 1).await;
    door.append(&stream, 0, &[NOW_MS], None).await;
    write(&door, &stream, 7, 0).await;
    write(&door, &stream, 8, 0).await;
    let read = fetch_from(&door, 1, 0).await;
    assert_eq!((bases(&read), aborted(&read)), (vec![0], Some(vec![])));
    assert_eq!((read.high_watermark, read.last_stable_offset), (3, 1));
    // Beyond it there is nothing yet, which is no error.
    let read = fetch_from(&door, 1, 2).await;
    assert_eq!((bases(&read), read.error_code), (vec![], 0));
    let all = fetch_from(&door, 0, 0).await;
    assert_eq!((bases(&all), aborted(&all), all.last_stable_offset), (vec![0, 1, 2], None, 1));
    end(&door, &stream, 7, false).await;
    let read = fetch_from(&door, 1, 0).await;
    assert_eq!((bases(&read), aborted(&read), read.last_stable_offset), (vec![0, 1], Some(vec![(7, 1)]), 2));
    end(&door, &stream, 8, true).await;
    let read = fetch_from(&door, 1, 0).await;
    assert_eq!((bases(&read), aborted(&read)), (vec![0, 1, 2, 3, 4], Some(vec![(7, 1)])));
    // From behind the records, but before the marker: without the marker the reader would not know when it ends.
    assert_eq!(aborted(&fetch_from(&door, 1, 3).await), Some(vec![(7, 1)]));
    assert_eq!(aborted(&fetch_from(&door, 1, 4).await), Some(vec![]));
    // The ends of transactions are no records.
    let given_out = stream.metrics.given_out().0;
    fetch_from(&door, 0, 3).await;
    assert_eq!(stream.metrics.given_out().0, given_out);
}

#[tokio::test]
async fn a_waiting_reader_wakes_when_the_transaction_ends_and_not_before() {
    let door = Fixture::new();
    let stream = door.topic("t", 1).await;
    write(&door, &stream, 7, 0).await;
    let cx = door.cx(VERSION);
    let waiting = tokio::spawn(async move { fetch(cx, request(1, 0, 60_000)).await.0 });
    for sequence in 1..20 {
        write(&door, &stream, 7, sequence).await;
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    end(&door, &stream, 7, true).await;
    let answer = waiting.await.unwrap();
    assert_eq!(bases(&received(&answer, VERSION).responses[0].partitions[0]).len(), 21);
}

/// Batches of these sizes lie in each of the partitions, the other way round in every second one.
const SIZES: [usize; 9] = [100, 9_000, 5_000, 40, 6_000, 4_500, 200, 7_000, 300];
const PARTITIONS: usize = 6;

async fn filled(tail_bytes_max: usize) -> Fixture {
    let door = Fixture::remembering(tail_bytes_max, |_| ());
    let stream = door.topic("t", PARTITIONS as u32).await;
    for index in 0..PARTITIONS {
        for at in 0..SIZES.len() {
            let size = if index % 2 == 0 { SIZES[at] } else { SIZES[SIZES.len() - 1 - at] };
            let value = Some(Bytes::from(vec![b'x'; size]));
            let record = Record { offset: 0, timestamp: NOW_MS, key: None, value, headers: Vec::new() };
            door.append_records(&stream, index as u32, &[record], None).await;
        }
    }
    door
}

/// Fetches all partitions from `offsets` on, and moves these; the bytes that came of each partition.
async fn fetch_on(door: &Fixture, offsets: &mut [Offset], bytes_max: i32, partition_bytes_max: i32) -> Vec<usize> {
    let wanted = |(index, offset): (usize, &Offset)| {
        FetchPartition::default()
            .with_partition(index as i32)
            .with_partition_max_bytes(partition_bytes_max)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(*offset)
    };
    let partitions = offsets.iter().enumerate().map(wanted).collect();
    let topic = FetchTopic::default().with_topic(names::topic("t")).with_partitions(partitions);
    let request = request(0, 0, 0).with_max_bytes(bytes_max).with_topics(vec![topic]);
    let (answer, _) = fetch(door.cx(VERSION), request).await;
    let partitions = received(&answer, VERSION).responses.remove(0).partitions;
    let mut came = Vec::new();
    for (at, data) in partitions.iter().enumerate() {
        assert_eq!((data.partition_index, data.error_code), (at as i32, 0));
        let batches = bases(data);
        assert!(batches.iter().copied().eq((offsets[at]..).take(batches.len())), "{batches:?} from {}", offsets[at]);
        offsets[at] += batches.len() as Offset;
        came.push(data.records.as_ref().map_or(0, Bytes::len));
    }
    came
}

/// From memory, from the store, and from both.
#[tokio::test]
async fn everything_comes_once_and_in_order_within_the_bounds_of_an_answer() {
    for tail_bytes_max in [0, 60_000, 1 << 20] {
        let door = filled(tail_bytes_max).await;
        for (bytes_max, partition_bytes_max) in [
            (1, 1),
            (1_000, 100_000),
            (12_000, 6_000),
            (20_000, 100_000),
            (30_000, 10_000),
            (1 << 20, 1),
            (1 << 20, 1 << 20),
        ] {
            let mut offsets = [0; PARTITIONS];
            for round in 0.. {
                assert!(round <= PARTITIONS * SIZES.len());
                let left = offsets.iter().any(|offset| *offset < SIZES.len() as Offset);
                let came = fetch_on(&door, &mut offsets, bytes_max, partition_bytes_max).await;
                let total: usize = came.iter().sum();
                assert_eq!(total > 0, left, "{came:?} within {bytes_max} and {partition_bytes_max}");
                if !left {
                    break;
                }
                // Only the first batch of an answer may be larger than it is to be, and than its partition's part.
                let first = came.iter().position(|bytes| *bytes > 0).unwrap();
                let rest = came[first + 1..].iter().all(|bytes| *bytes <= partition_bytes_max as usize);
                assert!(rest && (total <= bytes_max as usize || total == came[first]), "{came:?} within {bytes_max}");
            }
            assert_eq!(offsets, [SIZES.len() as Offset; PARTITIONS]);
        }
    }
}

#[tokio::test]
async fn partitions_with_little_leave_their_room_to_those_that_follow() {
    for tail_bytes_max in [0, 1 << 20] {
        let door = filled(tail_bytes_max).await;
        // The first two are at their ends but for one small batch; the third has everything before it.
        let end = SIZES.len() as Offset;
        let mut offsets = [end - 1, end - 1, 0, 0, 0, 0];
        let came = fetch_on(&door, &mut offsets, 30_000, 30_000).await;
        assert!(came[..2].iter().all(|bytes| (1..500).contains(bytes)), "{came:?}");
        assert!(came[2] > 20_000 && came.iter().sum::<usize>() <= 30_000, "{came:?}");
    }
}
