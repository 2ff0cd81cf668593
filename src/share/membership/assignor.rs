//! Who reads which partitions: Kafka's `simple` assignor for share groups. Pure.
//!
//! Every partition of a subscribed topic has as many members as any other, and every subscriber about as many partitions.
//! With more subscribers than partitions several share one. What a member has it keeps, as far as that leaves the
//! balance.
//!
//! Source: KIP-932 and the behaviour of Kafka 4's SimpleAssignor.

use std::collections::BTreeSet;

/// Partitions of one topic for each of its subscribers, given what each has now. The order of the subscribers decides who
/// gets one more, so it is to be the same every time.
pub fn assign(partitions: u32, current: &[BTreeSet<u32>]) -> Vec<BTreeSet<u32>> {
    let mut assigned = vec![BTreeSet::new(); current.len()];
    if partitions == 0 || current.is_empty() {
        return assigned;
    }
    let sharing = current.len().div_ceil(partitions as usize);
    let quotas = quotas(sharing * partitions as usize, current.len());
    let mut readers = vec![0; partitions as usize];
    for ((assigned, current), quota) in assigned.iter_mut().zip(current).zip(&quotas) {
        for partition in current {
            let Some(readers) = readers.get_mut(*partition as usize) else { break };
            if assigned.len() < *quota && *readers < sharing {
                assigned.insert(*partition);
                *readers += 1;
            }
        }
    }
    fill(&mut assigned, &quotas, &mut readers, sharing);
    assigned
}

/// `slots` shared out among `count`, as evenly as it goes.
fn quotas(slots: usize, count: usize) -> Vec<usize> {
    let up_to = |index: usize| (index * slots).div_ceil(count);
    (0..count).map(|index| up_to(index + 1) - up_to(index)).collect()
}

/// Gives the places that are left to those who have less than their quota, in turn.
fn fill(assigned: &mut [BTreeSet<u32>], quotas: &[usize], readers: &mut [usize], sharing: usize) {
    let count = assigned.len();
    let mut turn = 0;
    for (partition, readers) in (0..).zip(readers) {
        let mut asked = 0;
        while *readers < sharing && asked < count {
            let index = turn % count;
            turn += 1;
            asked += 1;
            let (Some(mine), Some(quota)) = (assigned.get_mut(index), quotas.get(index)) else { continue };
            if mine.len() < *quota && mine.insert(partition) {
                *readers += 1;
                asked = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(of: &[&[u32]]) -> Vec<BTreeSet<u32>> {
        of.iter().map(|set| set.iter().copied().collect()).collect()
    }

    #[test]
    fn partitions_are_shared_out_evenly() {
        assert_eq!(assign(4, &sets(&[&[]])), sets(&[&[0, 1, 2, 3]]));
        assert_eq!(assign(4, &sets(&[&[], &[]])), sets(&[&[0, 2], &[1, 3]]));
        assert_eq!(assign(1, &sets(&[&[], &[], &[]])), sets(&[&[0], &[0], &[0]]));
        assert_eq!(assign(0, &sets(&[&[]])), sets(&[&[]]));
        assert_eq!(assign(3, &[]), sets(&[]));
    }

    #[test]
    fn what_someone_has_stays_as_far_as_the_balance_allows() {
        assert_eq!(assign(4, &sets(&[&[0, 1, 2, 3], &[]])), sets(&[&[0, 1], &[2, 3]]));
        assert_eq!(assign(4, &sets(&[&[1, 2], &[0, 3]])), sets(&[&[1, 2], &[0, 3]]));
        // Partitions that are gone are not kept.
        assert_eq!(assign(2, &sets(&[&[1, 7], &[0]])), sets(&[&[1], &[0]]));
    }

    #[test]
    fn every_partition_is_read_and_every_subscriber_reads() {
        for partitions in 1..12_u32 {
            for members in 1..20_usize {
                let fresh = assign(partitions, &vec![BTreeSet::new(); members]);
                let grown = assign(partitions, &[fresh.clone(), sets(&[&[]])].concat());
                for assigned in [fresh, grown] {
                    let sizes: Vec<usize> = assigned.iter().map(BTreeSet::len).collect();
                    let readers = |partition| assigned.iter().filter(|set| set.contains(&partition)).count();
                    assert!((0..partitions).all(|partition| readers(partition) > 0), "{partitions}/{members}");
                    assert!(sizes.iter().all(|size| *size > 0), "{partitions}/{members}: {sizes:?}");
                }
            }
        }
    }
}
