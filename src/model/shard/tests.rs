use super::*;

const HALF: u128 = 170_141_183_460_469_231_731_687_303_715_884_105_728;

fn uniform(partitions: u32) -> Lineage {
    Lineage::uniform(NonZeroU32::new(partitions).unwrap(), 1_000)
}

fn starts(lineage: &Lineage) -> Vec<u128> {
    lineage.open_shards().map(|shard| shard.hash_key_range.start).collect()
}

#[test]
fn a_new_stream_is_divided_as_aws_divides_it() {
    assert_eq!(uniform(1).shards[0].hash_key_range, HashKeyRange::ALL);
    assert_eq!(starts(&uniform(2)), [0, HALF]);
    let thirds = uniform(3);
    assert_eq!(
        starts(&thirds),
        [0, 113_427_455_640_312_821_154_458_202_477_256_070_485, 226_854_911_280_625_642_308_916_404_954_512_140_970]
    );
    assert_eq!(thirds.shards[0].hash_key_range.end, 113_427_455_640_312_821_154_458_202_477_256_070_484);
    assert_eq!(thirds.shards[2].hash_key_range.end, u128::MAX);
}

#[test]
fn a_split_goes_on_in_its_partition_and_opens_another() {
    let mut lineage = uniform(1);
    let children = lineage.split(ShardOrdinal(0), SplitAt::Midpoint, 70, 5_000).unwrap();
    assert_eq!(children, Children { stays: ShardOrdinal(1), opens: ShardOrdinal(2) });
    let [parent, stays, opens] = lineage.shards() else { panic!("three shards") };
    assert_eq!((parent.end_offset, parent.closed_ms), (Some(70), Some(5_000)));
    assert_eq!((stays.partition.0, stays.leader_epoch, stays.start_offset), (0, 1, 70));
    assert_eq!(stays.hash_key_range, HashKeyRange { start: 0, end: HALF - 1 });
    assert_eq!((opens.partition.0, opens.leader_epoch, opens.start_offset), (1, 0, 0));
    assert_eq!(opens.hash_key_range, HashKeyRange { start: HALF, end: u128::MAX });
    assert_eq!((&stays.parents, &opens.parents), (&vec![ShardOrdinal(0)], &vec![ShardOrdinal(0)]));
    assert_eq!((lineage.partitions(), lineage.leader_epoch(PartitionIndex(0))), (2, Some(1)));
    assert_eq!(lineage.open_shard_on(PartitionIndex(0)).unwrap().ordinal, ShardOrdinal(1));
    assert_eq!(lineage.open_shard_on(PartitionIndex(2)), None);
    assert_eq!(lineage.shard_for_hash_key(HALF).unwrap().ordinal, ShardOrdinal(2));
    assert_eq!(lineage.shard_for_hash_key(HALF - 1).unwrap().ordinal, ShardOrdinal(1));
}

#[test]
fn a_lineage_is_original_until_the_first_split_or_merge() {
    let original = uniform(2);
    assert!(original.is_original());
    let mut split = original.clone();
    split.split(ShardOrdinal(1), SplitAt::Midpoint, 0, 5_000).unwrap();
    assert!(!split.is_original());
    split.forget(|shard| !shard.is_open());
    assert!(!split.is_original());
    let mut merged = original;
    merged.merge(ShardOrdinal(0), ShardOrdinal(1), |_| 0, 5_000).unwrap();
    assert!(!merged.is_original());
    merged.forget(|shard| !shard.is_open());
    assert!(!merged.is_original());
}

#[test]
fn a_childs_creation_second_is_later_than_its_parents() {
    let mut lineage = uniform(1);
    // The same second, and a clock that was set back.
    let first = lineage.split(ShardOrdinal(0), SplitAt::Midpoint, 0, 1_999).unwrap();
    assert_eq!(lineage.shard(first.stays).unwrap().created_ms, 2_000);
    let second = lineage.split(first.stays, SplitAt::Midpoint, 0, -7).unwrap();
    assert_eq!(lineage.shard(second.opens).unwrap().created_ms, 3_000);
    let third = lineage.split(second.stays, SplitAt::Midpoint, 0, 4_001).unwrap();
    assert_eq!(lineage.shard(third.stays).unwrap().created_ms, 4_001);
}

#[test]
fn a_refused_split_changes_nothing() {
    let mut lineage = uniform(2);
    let before = lineage.clone();
    let range = HashKeyRange { start: HALF, end: u128::MAX };
    for at in [0, HALF, HALF + 1, u128::MAX] {
        let refused = lineage.split(ShardOrdinal(1), SplitAt::HashKey(at), 0, 0);
        assert_eq!(refused, Err(LineageError::HashKeyOutside { at, range }));
    }
    let refused = lineage.split(ShardOrdinal(2), SplitAt::Midpoint, 0, 0);
    assert_eq!(refused, Err(LineageError::NoSuchShard(ShardOrdinal(2))));
    let refused = lineage.split(ShardOrdinal(0), SplitAt::Midpoint, -1, 0);
    assert!(matches!(refused, Err(LineageError::EndsBeforeStart { .. })));
    let refused = lineage.add_partitions(2, |_| 0, 0);
    assert_eq!(refused, Err(LineageError::NotAnIncrease { partitions: 2, target: 2 }));
    let refused = lineage.add_partitions(3, |_| -1, 0);
    assert!(matches!(refused, Err(LineageError::EndsBeforeStart { .. })));
    assert_eq!(lineage, before);

    let lower = lineage.split(ShardOrdinal(0), SplitAt::HashKey(2), 0, 0).unwrap().stays;
    assert_eq!(
        lineage.split(ShardOrdinal(0), SplitAt::Midpoint, 0, 0),
        Err(LineageError::ShardClosed(ShardOrdinal(0)))
    );
    assert_eq!(lineage.split(lower, SplitAt::Midpoint, 0, 0), Err(LineageError::TooNarrow(lower)));
}

#[test]
fn partitions_are_added_by_splitting_the_widest_lowest_shard() {
    let mut lineage = uniform(1);
    let splits = lineage.add_partitions(4, |partition| i64::from(partition.0) + 9, 1_000).unwrap();
    let opened: Vec<_> = splits.iter().map(|split| (split.stays.0, split.opens.0)).collect();
    assert_eq!(opened, [(1, 2), (3, 4), (5, 6)]);
    // Each quarter is owned once, by partitions 0, 2, 1 and 3.
    let mut open: Vec<_> = lineage.open_shards().map(|s| (s.hash_key_range.start, s.partition.0)).collect();
    open.sort();
    assert_eq!(open, [(0, 0), (HALF / 2, 2), (HALF, 1), (HALF / 2 * 3, 3)]);
    let epochs: Vec<_> = lineage.epochs(PartitionIndex(0)).collect();
    assert_eq!(epochs, [(0, 0, Some(9)), (1, 9, Some(9)), (2, 9, None)]);
    let epochs: Vec<_> = lineage.epochs(PartitionIndex(1)).collect();
    assert_eq!(epochs, [(0, 0, Some(0)), (1, 0, None)]);
}

#[test]
fn an_epoch_ends_where_kafka_says_it_does() {
    let mut lineage = uniform(1);
    let partition = PartitionIndex(0);
    assert_eq!(lineage.end_offset_for_epoch(partition, 0, 5), (0, 5));
    assert_eq!(lineage.end_offset_for_epoch(partition, 1, 5), (-1, -1));
    let stays = lineage.split(ShardOrdinal(0), SplitAt::Midpoint, 5, 0).unwrap().stays;
    lineage.split(stays, SplitAt::Midpoint, 8, 0).unwrap();
    let ends: Vec<_> = (-1..=3).map(|epoch| lineage.end_offset_for_epoch(partition, epoch, 13)).collect();
    assert_eq!(ends, [(-1, -1), (0, 5), (1, 8), (2, 13), (-1, -1)]);
    assert_eq!(lineage.end_offset_for_epoch(PartitionIndex(3), 0, 13), (-1, -1));

    // Retention has taken generations away: what came before the first known one ended where that begins.
    assert!(lineage.forget(|shard| shard.partition == partition));
    assert_eq!(lineage.end_offset_for_epoch(partition, 0, 13), (0, 8));
}

#[test]
fn json_keeps_hash_keys_as_decimal_strings() {
    let mut lineage = uniform(2);
    lineage.split(ShardOrdinal(1), SplitAt::Midpoint, 3, 0).unwrap();
    let json = serde_json::to_string(&lineage).unwrap();
    assert!(
        json.contains(r#""hash_key_range":{"start":"170141183460469231731687303715884105728","end":"34028"#),
        "{json}"
    );
    assert_eq!(serde_json::from_str::<Lineage>(&json).unwrap(), lineage);
    assert!(serde_json::from_str::<HashKeyRange>(r#"{"start":"-1","end":"2"}"#).is_err());
}

fn epochs(lineage: &Lineage, partition: u32) -> Vec<(i32, Offset, Option<Offset>)> {
    lineage.epochs(PartitionIndex(partition)).collect()
}

/// The ordinals, partitions and first hash keys of the open shards, by hash key.
fn open(lineage: &Lineage) -> Vec<(u32, u32, u128)> {
    lineage
        .open_shards_by_hash_key()
        .map(|shard| (shard.ordinal.0, shard.partition.0, shard.hash_key_range.start))
        .collect()
}

#[test]
fn a_merge_goes_on_in_the_lower_partition_and_the_other_sleeps() {
    let mut lineage = uniform(3);
    let end_of = |partition: PartitionIndex| 10 * (i64::from(partition.0) + 1);
    // Named from the right: the parents keep that order.
    let child = lineage.merge(ShardOrdinal(2), ShardOrdinal(1), end_of, 9_000).unwrap();
    let shard = lineage.shard(child).unwrap();
    assert_eq!((shard.ordinal.0, shard.partition.0, shard.leader_epoch, shard.start_offset), (3, 1, 1, 20));
    assert_eq!(shard.parents, [ShardOrdinal(2), ShardOrdinal(1)]);
    assert_eq!((shard.hash_key_range.start, shard.hash_key_range.end), (starts(&uniform(3))[1], u128::MAX));
    assert_eq!(epochs(&lineage, 1), [(0, 0, Some(20)), (1, 20, None)]);
    assert_eq!(epochs(&lineage, 2), [(0, 0, Some(30))]);
    assert_eq!(lineage.shard(ShardOrdinal(2)).unwrap().closed_ms, Some(9_000));
    assert_eq!(lineage.children(ShardOrdinal(1)).map(|shard| shard.ordinal).collect::<Vec<_>>(), [child]);

    assert_eq!((lineage.partitions(), lineage.dormant().collect::<Vec<_>>()), (3, vec![PartitionIndex(2)]));
    assert!(lineage.is_dormant(PartitionIndex(2)) && lineage.open_shard_on(PartitionIndex(2)).is_none());
    assert_eq!(lineage.absorbing(PartitionIndex(2)).unwrap().ordinal, child);
    assert_eq!(lineage.absorbing(PartitionIndex(0)).unwrap().ordinal, ShardOrdinal(0));
    assert_eq!(lineage.absorbing(PartitionIndex(3)), None);
    assert_eq!((lineage.leader_epochs(), lineage.open_count()), (vec![0, 1, 0], 2));
}

#[test]
fn a_split_wakes_the_lowest_dormant_partition() {
    let mut lineage = uniform(4);
    let end_of = |partition: PartitionIndex| 5 + i64::from(partition.0);
    lineage.merge(ShardOrdinal(2), ShardOrdinal(3), end_of, 0).unwrap();
    lineage.merge(ShardOrdinal(0), ShardOrdinal(1), end_of, 0).unwrap();
    assert_eq!(lineage.dormant().collect::<Vec<_>>(), [PartitionIndex(1), PartitionIndex(3)]);
    let children = lineage.split(ShardOrdinal(4), SplitAt::Midpoint, 7, 0).unwrap();
    let woken = lineage.shard(children.opens).unwrap();
    assert_eq!((woken.partition.0, woken.leader_epoch, woken.start_offset), (1, 1, 6));
    assert_eq!((lineage.partitions(), lineage.dormant().count()), (4, 1));
    // Partition 3 wakes before a new one is opened.
    let splits = lineage.add_partitions(5, end_of, 0).unwrap();
    let partitions: Vec<_> = splits.iter().map(|split| lineage.shard(split.opens).unwrap().partition.0).collect();
    assert_eq!(partitions, [3, 4]);
    assert_eq!((lineage.partitions(), lineage.open_count(), lineage.dormant().count()), (5, 5, 0));
}

#[test]
fn what_is_appended_to_a_sleeping_log_belongs_to_no_generation() {
    let mut lineage = uniform(2);
    lineage.merge(ShardOrdinal(0), ShardOrdinal(1), |_| 10, 0).unwrap();
    lineage.extend_dormant(|_| 12);
    lineage.extend_dormant(|_| 11);
    let asleep = PartitionIndex(1);
    assert_eq!(lineage.end_offset_for_epoch(asleep, 0, 12), (0, 12));
    let children = lineage.split(ShardOrdinal(2), SplitAt::Midpoint, 20, 0).unwrap();
    assert_eq!(lineage.shard(children.opens).unwrap().start_offset, 12);
    assert_eq!(lineage.shard(ShardOrdinal(1)).unwrap().end_offset, Some(10));
    // Whoever has read it, with the epoch before, finds that epoch to end behind it.
    assert_eq!(lineage.end_offset_for_epoch(asleep, 0, 30), (0, 12));
}

#[test]
fn a_refused_merge_changes_nothing() {
    let mut lineage = uniform(3);
    let before = lineage.clone();
    let [zero, one, two] = [0, 1, 2].map(ShardOrdinal);
    let mut refused = |a, b, end| lineage.merge(a, b, |_| end, 0).unwrap_err();
    assert_eq!(refused(zero, two, 0), LineageError::NotAdjacent(zero, two));
    assert_eq!(refused(one, one, 0), LineageError::NotAdjacent(one, one));
    assert_eq!(refused(one, ShardOrdinal(3), 0), LineageError::NoSuchShard(ShardOrdinal(3)));
    assert!(matches!(refused(zero, one, -1), LineageError::EndsBeforeStart { .. }));
    assert_eq!(lineage, before);
    lineage.merge(zero, one, |_| 0, 0).unwrap();
    assert_eq!(lineage.merge(one, two, |_| 0, 0), Err(LineageError::ShardClosed(one)));
}

#[test]
fn doubling_and_halving_split_and_merge_once() {
    let mut lineage = uniform(2);
    let end_of = |partition: PartitionIndex| if partition.0 < 2 { 10 } else { 3 };
    let scale = |lineage: &mut Lineage, target| lineage.scale(NonZeroU32::new(target).unwrap(), end_of, 0).unwrap();
    scale(&mut lineage, 4);
    assert_eq!(open(&lineage), [(2, 0, 0), (3, 2, HALF / 2), (4, 1, HALF), (5, 3, HALF / 2 * 3)]);
    let doubled = lineage.clone();
    scale(&mut lineage, 4);
    assert_eq!(lineage, doubled, "what is uniform already is left alone");
    scale(&mut lineage, 2);
    assert_eq!(open(&lineage), [(6, 0, 0), (7, 1, HALF)]);
    assert_eq!((lineage.partitions(), lineage.leader_epochs()), (4, vec![2, 2, 0, 0]));
    scale(&mut lineage, 4);
    assert_eq!((lineage.partitions(), lineage.leader_epochs()), (4, vec![3, 3, 1, 1]));
}

#[test]
fn scaling_to_any_count_divides_evenly_with_few_generations_and_partitions() {
    for (from, to) in [(2, 3), (3, 2), (10, 11), (1, 100), (100, 1), (7, 13), (500, 750)] {
        let mut lineage = uniform(from);
        lineage.scale(NonZeroU32::new(to).unwrap(), |_| 0, 1_000).unwrap();
        let ranges = |lineage: &Lineage| -> Vec<_> {
            lineage.open_shards_by_hash_key().map(|shard| shard.hash_key_range).collect()
        };
        assert_eq!(ranges(&lineage), ranges(&uniform(to)), "{from} to {to}");
        assert!(lineage.partitions() <= from.max(to) + 2, "{from} to {to}: {} partitions", lineage.partitions());
        // A generation takes a second of its own; 2^7 is more than any of the factors above.
        let latest = lineage.shards().iter().map(|shard| shard.created_ms).max().unwrap();
        assert!(latest <= 9_000, "{from} to {to}: {latest}");
    }
}

#[test]
fn a_refused_scaling_changes_nothing() {
    let mut lineage = uniform(4);
    let before = lineage.clone();
    // The last partition's log contradicts its shard.
    let refused = lineage.scale(NonZeroU32::new(2).unwrap(), |partition| -i64::from(partition.0 == 3), 0);
    assert!(matches!(refused, Err(LineageError::EndsBeforeStart { shard: ShardOrdinal(3), .. })));
    assert_eq!(lineage, before);
}

#[test]
fn what_is_forgotten_takes_no_epoch_and_no_ordinal_with_it() {
    let mut lineage = uniform(2);
    lineage.merge(ShardOrdinal(0), ShardOrdinal(1), |_| 40, 0).unwrap();
    let dormant = PartitionIndex(1);
    assert_eq!(lineage.end_offset_for_epoch(dormant, 0, 40), (0, 40));
    assert!(!lineage.forget(|_| false));
    assert!(lineage.forget(|_| true), "but what is open stays");
    assert_eq!((lineage.shards().len(), lineage.open_count()), (1, 1));
    assert_eq!(lineage.leader_epochs(), [1, 0]);
    assert_eq!(lineage.absorbing(dormant).unwrap().ordinal, ShardOrdinal(2));
    assert_eq!((lineage.end_offset_for_epoch(dormant, 0, 40), lineage.epochs(dormant).count()), ((0, 40), 0));
    assert_eq!(lineage.end_offset_for_epoch(dormant, 1, 40), (-1, -1));

    let json = serde_json::to_string(&lineage).unwrap();
    assert_eq!(serde_json::from_str::<Lineage>(&json).unwrap(), lineage);
    let woken = lineage.split(ShardOrdinal(2), SplitAt::Midpoint, 50, 0).unwrap().opens;
    assert_eq!(woken, ShardOrdinal(4));
    assert_eq!(epochs(&lineage, 1), [(1, 40, None)]);
}

#[test]
fn a_lineage_that_contradicts_itself_is_not_read() {
    let json = serde_json::to_value(uniform(2)).unwrap();
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = json.clone();
        change(&mut json);
        serde_json::from_value::<Lineage>(json).unwrap_err().to_string()
    };
    assert_eq!(refused(&|json| json["shards"][1]["ordinal"] = 0.into()), "ordinals of shards do not ascend");
    assert_eq!(refused(&|json| json["partitions"] = 1.into()), "a shard lies on a partition that there is not");
    assert_eq!(
        refused(&|json| json["shards"][1]["end_offset"] = 3.into()),
        "partition 1 is not either dormant or open"
    );
}

#[test]
fn a_shards_numbers_lie_around_those_of_its_records() {
    let mut lineage = uniform(1);
    let children = lineage.split(ShardOrdinal(0), SplitAt::Midpoint, 2, 7_999).unwrap();
    let (parent, child) = (lineage.shard(ShardOrdinal(0)).unwrap(), lineage.shard(children.stays).unwrap());
    let records = [parent.sequence_number(0, 3_000), parent.sequence_number(1, 2_000)];
    let [start, end] = [parent.starting_sequence_number(), parent.ending_sequence_number().unwrap()];
    assert!(
        start < records[0] && records[0] < records[1] && records[1] < end && end < child.starting_sequence_number()
    );
    assert_eq!((end.position, end.append_s), (3, 7));
    assert_eq!((records[1].offset(), records[1].append_s), (Some(1), 2));
    assert_eq!((child.starting_sequence_number().position, child.ending_sequence_number()), (2, None));
    assert!(child.starting_sequence_number() < child.sequence_number(2, 8_000));
    // A clock that was set back puts no record before its shard.
    assert_eq!(child.sequence_number(2, 100).append_s, 7);
}
