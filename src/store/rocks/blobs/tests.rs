use super::place::{SYNCED_APART_BYTES_MIN, VALUE_BYTES_MIN};
use super::*;
use crate::store::{Batch, Family};

fn key(number: u32, partition: u32, offset: u64) -> Vec<u8> {
    [&number.to_be_bytes()[..], &partition.to_be_bytes(), &offset.to_be_bytes()].concat()
}

fn append(blobs: &Blobs, key: &[u8], value: &[u8]) -> Place {
    Place::parse(key, &blobs.append(key, value).unwrap()).unwrap()
}

fn read(blobs: &Blobs, key: &[u8], place: Place) -> Result<Bytes, Lost> {
    blobs.read_run(key, &[place]).map(|values| values[0].clone())
}

#[test]
fn a_place_is_told_from_values_of_its_length() {
    let place = Place { position: 1 << 40, len: 70_000, crc: 7 }.encode();
    let parsed = Place::parse(&key(1, 2, 3), &place).unwrap();
    assert_eq!((parsed.position, parsed.len, parsed.crc), (1 << 40, 70_000, 7));
    assert_eq!(Place::parse(&key(1, 2, 3), &place[1..]), None);
    assert_eq!(Place::parse(&key(1, 2, 3), &[0; Place::LEN]), None);
    assert_eq!(Place::parse(b"abc", &place), None, "its file has no number");
}

#[test]
fn what_stands_apart() {
    let large = vec![0; VALUE_BYTES_MIN];
    assert!(is_apart(b"long enough", &large, VALUE_BYTES_MIN));
    assert!(!is_apart(b"long enough", &large[1..], VALUE_BYTES_MIN));
    assert!(!is_apart(b"abc", &large, VALUE_BYTES_MIN));
    assert!(!is_apart(b"long enough", &large, usize::MAX));
    let alike = Place { position: 0, len: 0, crc: 0 }.encode();
    assert!(is_apart(b"long enough", &alike, usize::MAX));
    let mut batch = Batch::default();
    batch.put(Family::Log, "a", large.clone());
    assert_eq!((apart_from(&batch, false), apart_from(&batch, true)), (VALUE_BYTES_MIN, usize::MAX));
    for _ in 0..SYNCED_APART_BYTES_MIN / VALUE_BYTES_MIN {
        batch.put(Family::Log, "a", large.clone());
    }
    assert_eq!(apart_from(&batch, true), VALUE_BYTES_MIN);
}

#[test]
fn values_of_a_partition_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::find(dir.path()).unwrap();
    let mut places = [vec![], vec![]];
    for offset in 0..40_u64 {
        for partition in 0..2 {
            let value = vec![offset as u8 + 100 * partition as u8; 10_000 + offset as usize];
            places[partition as usize].push(append(&blobs, &key(5, partition, offset), &value));
        }
    }
    for (partition, places) in places.iter().enumerate() {
        let runs: Vec<_> = places.chunk_by(|a, b| a.end() == b.position).collect();
        assert!(runs.len() <= 2, "{} runs", runs.len());
        let of_run = |run: &&[Place]| blobs.read_run(&key(5, partition as u32, 0), run).unwrap();
        for (offset, value) in runs.iter().flat_map(of_run).enumerate() {
            assert_eq!(value, vec![offset as u8 + 100 * partition as u8; 10_000 + offset]);
        }
    }
}

#[test]
fn a_partition_gets_as_much_at_once_as_it_filled_of_the_last_file() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::find(dir.path()).unwrap();
    let value = vec![1; 100_000];
    let runs = |number| {
        let mut ends = HashMap::new();
        let mut breaks = 0;
        for offset in 0..20 {
            for partition in 0..3 {
                let place = append(&blobs, &key(number, partition, offset), &value);
                breaks += usize::from(ends.insert(partition, place.end()) != Some(place.position));
            }
        }
        breaks
    };
    assert!(runs(1) > 3);
    assert_eq!(runs(2), 3, "one for each partition");
}

#[test]
#[cfg(target_os = "linux")]
fn room_that_is_not_filled_is_given_back() {
    use std::os::unix::fs::MetadataExt;

    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::find(dir.path()).unwrap();
    let on_disk = |number: u32| fs::metadata(dir.path().join(format!("blobs/{number}"))).unwrap().blocks() * 512;
    let fill = |number: u32, partition: u32, count: u64| {
        for offset in 0..count {
            append(&blobs, &key(number, partition, offset), &[1; 100_000]);
        }
        count * 100_000
    };
    // One fills much less than in the file before, one goes on behind another, and many fill little.
    fill(1, 0, 60);
    let filled = fill(2, 0, 1) + fill(2, 1, 30) + fill(2, 2, 1) + fill(2, 1, 30);
    let few = (10..60).map(|partition| fill(2, partition, 1)).sum::<u64>();
    let slack = 60 * 64 * 1024;
    fill(3, 0, 1);
    let (first, second) = (on_disk(1), on_disk(2));
    assert!(first <= 6_000_000 + slack, "{first}");
    assert!(second <= filled + few + slack, "{second} for {filled} and {few}");
    blobs.end().unwrap();
    assert!(on_disk(3) <= 100_000 + slack, "{}", on_disk(3));
    let later = append(&blobs, &key(3, 0, 1), &[2; 9000]);
    assert_eq!(read(&blobs, &key(3, 0, 1), later).unwrap(), vec![2; 9000]);
}

#[test]
fn a_file_is_gone_on_with_behind_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let first = append(&Blobs::find(dir.path()).unwrap(), &key(1, 0, 0), &[1; 9000]);
    let blobs = Blobs::find(dir.path()).unwrap();
    let second = append(&blobs, &key(1, 0, 1), &[2; 9000]);
    assert_eq!(read(&blobs, &key(1, 0, 0), first).unwrap(), vec![1; 9000]);
    assert_eq!(read(&blobs, &key(1, 0, 1), second).unwrap(), vec![2; 9000]);
    assert!(blobs.bytes() >= 18_000);
}

#[test]
fn damage_and_nonsense_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::find(dir.path()).unwrap();
    let place = append(&blobs, &key(1, 0, 0), &[1; 9000]);
    let other = append(&blobs, &key(1, 0, 1), &[1; 9000]);
    let file = OpenOptions::new().write(true).open(dir.path().join("blobs/1")).unwrap();
    write_all_at(&file, &[2], place.position + 8_999).unwrap();
    assert!(matches!(read(&blobs, &key(1, 0, 0), place), Err(Lost::Unreadable(_))));
    assert!(!blobs.holds(&key(1, 0, 0), place));
    assert!(blobs.holds(&key(1, 0, 1), other));
    for nonsense in [
        Place { position: 1 << 40, ..other },
        Place { position: u64::MAX, ..other },
        Place { len: u32::MAX as usize, ..other },
    ] {
        assert!(matches!(read(&blobs, &key(1, 0, 1), nonsense), Err(Lost::Unreadable(_))), "{nonsense:?}");
    }
    assert!(matches!(read(&blobs, &key(2, 0, 0), other), Err(Lost::Unreadable(_))), "no such file");
}

#[test]
fn files_go_with_all_of_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::find(dir.path()).unwrap();
    let places: Vec<Place> = (0..6).map(|number| append(&blobs, &key(number, 0, 0), &[1; 9000])).collect();
    let left = || {
        let there = |number: &u32| dir.path().join(format!("blobs/{number}")).exists();
        (0..6).filter(there).collect::<Vec<_>>()
    };
    let number = |number: u32| number.to_be_bytes();
    blobs.drop_files(&number(3), &number(3), 6).unwrap();
    blobs.drop_files(&number(3), &number(2), 6).unwrap();
    blobs.drop_files(&number(0), &number(4), 0).unwrap();
    assert_eq!(left(), [0, 1, 2, 3, 4, 5], "nothing, or nothing flushed");
    blobs.drop_files(&key(0, 0, 1), &key(2, 0, 0), 6).unwrap();
    assert_eq!(left(), [0, 2, 3, 4, 5], "the ends hold keys outside");
    blobs.drop_files(&number(2), &number(5), 4).unwrap();
    assert_eq!(left(), [0, 4, 5], "up to what is flushed");
    assert!(matches!(read(&blobs, &key(1, 0, 0), places[1]), Err(Lost::Dropped)));
    assert_eq!(read(&blobs, &key(4, 0, 0), places[4]).unwrap(), vec![1; 9000]);
    assert!(blobs.bytes() < 4 * 9000);
}

#[test]
fn what_was_synced_is_not_waited_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::find(dir.path()).unwrap();
    assert_eq!(blobs.unsynced_bytes(), 0);
    append(&blobs, &key(1, 0, 0), &[1; 9000]);
    append(&blobs, &key(2, 0, 0), &[1; 9000]);
    assert_eq!(blobs.unsynced_bytes(), 18_000);
    blobs.sync().unwrap();
    assert_eq!(blobs.unsynced_bytes(), 0);
    append(&blobs, &key(2, 0, 1), &[1; 9000]);
    assert_eq!(blobs.unsynced_bytes(), 9000);
    blobs.begin_sync().wait().unwrap();
    assert_eq!(blobs.unsynced_bytes(), 0);
}

#[test]
fn a_failed_sync_is_the_last_word() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::find(dir.path()).unwrap();
    append(&blobs, &key(1, 0, 0), &[1; 9000]);
    blobs.dirty.failure.set("the disk is gone".to_owned()).unwrap();
    for _ in 0..2 {
        assert!(blobs.sync().unwrap_err().to_string().contains("the disk is gone"));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_boot_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::find(dir.path()).unwrap();
    assert!(!blobs.may_be_cut() && !dir.path().join("blobs").exists());
    blobs.settle().unwrap();
    assert!(!dir.path().join("blobs").exists(), "nothing to note it for");
    append(&blobs, &key(1, 0, 0), &[1; 9000]);
    assert!(!Blobs::find(dir.path()).unwrap().may_be_cut());
    fs::write(dir.path().join("blobs/boot"), "another").unwrap();
    let blobs = Blobs::find(dir.path()).unwrap();
    assert!(blobs.may_be_cut());
    blobs.settle().unwrap();
    assert!(!Blobs::find(dir.path()).unwrap().may_be_cut());
    fs::remove_file(dir.path().join("blobs/boot")).unwrap();
    assert!(Blobs::find(dir.path()).unwrap().may_be_cut());
}
