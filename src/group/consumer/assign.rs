//! The target assignment: who is to have which partition. `uniform` gives everyone as many as it can, and moves as few
//! as it can; `range` gives everyone a run of each topic, the same run of topics that are as wide.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::{Assignment, Consumer};

/// What can assign, the default first, as in Kafka.
pub const ASSIGNORS: [&str; 2] = [UNIFORM, RANGE];
const UNIFORM: &str = "uniform";
const RANGE: &str = "range";

/// How often the uniform assignor goes over all partitions to even out what members of different subscriptions have.
/// Each time leaves it more even; more than a few are not needed in practice.
const EVENING_PASSES_MAX: usize = 32;

/// What an assignor is told.
#[derive(Debug)]
struct Wish {
    member_id: String,
    group_instance_id: Option<String>,
    topics: BTreeSet<Uuid>,
    /// The former target.
    held: Assignment,
}

impl Consumer {
    /// The assignor that most members ask for, if any does.
    pub(super) fn assignor(&self) -> &'static str {
        let votes =
            |name: &str| self.members.values().filter(|member| member.server_assignor.as_deref() == Some(name)).count();
        // Of equals the default.
        if votes(RANGE) > votes(UNIFORM) { RANGE } else { UNIFORM }
    }

    /// Computes the target of the newest group epoch.
    pub(super) fn compute_target(&mut self) {
        let wishes: Vec<Wish> = self
            .members
            .iter()
            .map(|(member_id, member)| Wish {
                member_id: member_id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                topics: self.names_of(member).filter_map(|name| Some(self.subscribed.get(name)?.id)).collect(),
                held: member.target.clone(),
            })
            .collect();
        let widths: BTreeMap<Uuid, u32> = self.subscribed.values().map(|topic| (topic.id, topic.partitions)).collect();
        let assignor = self.assignor();
        tracing::debug!(epoch = self.group_epoch, assignor, members = wishes.len(), "computing a target assignment");
        let mut targets = match assignor {
            RANGE => range(wishes, &widths),
            _ => uniform(wishes, &widths),
        };
        for (member_id, member) in &mut self.members {
            let target = targets.remove(member_id).unwrap_or_default();
            if member.target != target {
                member.target = target;
                self.members_changed.insert(member_id.clone());
            }
        }
        self.assignment_epoch = self.group_epoch;
        self.head_changed = true;
    }
}

/// Static members first, by their instance ids, so that a restart does not shift the others' ranges.
fn range(mut wishes: Vec<Wish>, widths: &BTreeMap<Uuid, u32>) -> HashMap<String, Assignment> {
    let order =
        |wish: &Wish| (wish.group_instance_id.is_none(), wish.group_instance_id.clone(), wish.member_id.clone());
    wishes.sort_by_key(order);
    let mut targets: HashMap<String, Assignment> = HashMap::new();
    for (topic, width) in widths {
        let subscribers: Vec<&Wish> = wishes.iter().filter(|wish| wish.topics.contains(topic)).collect();
        let count = u32::try_from(subscribers.len()).unwrap_or(u32::MAX).max(1);
        let (quota, mut extra, mut from) = (width / count, width % count, 0);
        for wish in subscribers {
            let to = from + quota + u32::from(extra > 0);
            extra = extra.saturating_sub(1);
            if from < to {
                targets.entry(wish.member_id.clone()).or_default().insert(*topic, (from..to).collect());
            }
            from = to;
        }
    }
    targets
}

/// Keeps of the former target what still holds, gives out the rest, and evens out.
fn uniform(wishes: Vec<Wish>, widths: &BTreeMap<Uuid, u32>) -> HashMap<String, Assignment> {
    let mut shares: Vec<Share> = wishes.into_iter().map(|wish| Share::keeping(wish, widths)).collect();
    let Some(first) = shares.first() else { return HashMap::new() };
    let is_same = shares.iter().all(|share| share.topics == first.topics);
    let mut free = unassigned(&shares, widths);
    if is_same {
        trim_to_quota(&mut shares, &mut free);
    }
    give_out(&mut shares, free, is_same);
    if !is_same {
        even_out(&mut shares);
    }
    shares.into_iter().map(|share| (share.member_id, share.partitions)).collect()
}

struct Share {
    member_id: String,
    topics: BTreeSet<Uuid>,
    partitions: Assignment,
    count: usize,
}

impl Share {
    fn keeping(wish: Wish, widths: &BTreeMap<Uuid, u32>) -> Share {
        let Wish { member_id, topics, held, .. } = wish;
        let topics: BTreeSet<Uuid> = topics.into_iter().filter(|topic| widths.contains_key(topic)).collect();
        let kept =
            held.into_iter().filter(|(topic, _)| topics.contains(topic)).filter_map(|(topic, mut partitions)| {
                partitions.retain(|partition| widths.get(&topic).is_some_and(|width| partition < width));
                (!partitions.is_empty()).then_some((topic, partitions))
            });
        let partitions: Assignment = kept.collect();
        let count = partitions.values().map(BTreeSet::len).sum();
        Share { member_id, topics, partitions, count }
    }

    fn take(&mut self, topic: Uuid, partition: u32) {
        if self.partitions.entry(topic).or_default().insert(partition) {
            self.count += 1;
        }
    }

    fn give(&mut self, topic: Uuid, partition: u32) {
        let Some(partitions) = self.partitions.get_mut(&topic) else { return };
        if partitions.remove(&partition) {
            self.count -= 1;
        }
        if partitions.is_empty() {
            self.partitions.remove(&topic);
        }
    }

    /// Any partition, the last of the last topic.
    fn last(&self) -> Option<(Uuid, u32)> {
        let (topic, partitions) = self.partitions.last_key_value()?;
        Some((*topic, *partitions.last()?))
    }
}

/// Partitions of subscribed topics that nobody has. Should two have the same one, which no target says, the first keeps it.
fn unassigned(shares: &[Share], widths: &BTreeMap<Uuid, u32>) -> Vec<(Uuid, u32)> {
    let mut wanted: BTreeSet<Uuid> = BTreeSet::new();
    shares.iter().for_each(|share| wanted.extend(&share.topics));
    let mut held: HashMap<Uuid, BTreeSet<u32>> = HashMap::new();
    for share in shares {
        for (topic, partitions) in &share.partitions {
            held.entry(*topic).or_default().extend(partitions);
        }
    }
    let free_of = |topic: Uuid| {
        let held = held.get(&topic).cloned().unwrap_or_default();
        let width = widths.get(&topic).copied().unwrap_or(0);
        (0..width).filter(move |partition| !held.contains(partition)).map(move |partition| (topic, partition))
    };
    wanted.into_iter().flat_map(free_of).collect()
}

/// Where all subscribe to the same, everyone has the same number, or one more. Those who have most keep the one more.
fn trim_to_quota(shares: &mut [Share], free: &mut Vec<(Uuid, u32)>) {
    let total = shares.iter().map(|share| share.count).sum::<usize>() + free.len();
    let (quota, mut extra) = (total / shares.len().max(1), total % shares.len().max(1));
    for share in shares.iter_mut() {
        let keeps_extra = share.count > quota && extra > 0;
        extra -= usize::from(keeps_extra);
        while share.count > quota + usize::from(keeps_extra) {
            let Some((topic, partition)) = share.last() else { break };
            share.give(topic, partition);
            free.push((topic, partition));
        }
    }
}

/// To those who have least among those who may have it. Partitions that few may have go first.
fn give_out(shares: &mut [Share], mut free: Vec<(Uuid, u32)>, is_same: bool) {
    let mut by_topic: HashMap<Uuid, Vec<usize>> = HashMap::new();
    for (index, share) in shares.iter().enumerate() {
        for topic in &share.topics {
            by_topic.entry(*topic).or_default().push(index);
        }
    }
    if is_same {
        // One queue for all: who has least is at its front.
        let mut queue: BTreeSet<(usize, usize)> =
            shares.iter().enumerate().map(|(index, share)| (share.count, index)).collect();
        for (topic, partition) in free {
            let Some((_, index)) = queue.pop_first() else { return };
            if let Some(share) = shares.get_mut(index) {
                share.take(topic, partition);
                queue.insert((share.count, index));
            }
        }
        return;
    }
    free.sort_by_key(|(topic, partition)| (by_topic.get(topic).map_or(0, Vec::len), *topic, *partition));
    for (topic, partition) in free {
        let least = least_of(shares, by_topic.get(&topic));
        if let Some(share) = least.and_then(|index| shares.get_mut(index)) {
            share.take(topic, partition);
        }
    }
}

fn least_of(shares: &[Share], subscribers: Option<&Vec<usize>>) -> Option<usize> {
    subscribers?.iter().copied().min_by_key(|index| (shares.get(*index).map(|share| share.count), *index))
}

/// Moves partitions to members that have at least two fewer, until nobody has.
fn even_out(shares: &mut [Share]) {
    let mut by_topic: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for (index, share) in shares.iter().enumerate() {
        for topic in &share.topics {
            by_topic.entry(*topic).or_default().push(index);
        }
    }
    for _ in 0..EVENING_PASSES_MAX {
        let mut moved = false;
        for from in 0..shares.len() {
            let Some(held) = shares.get(from).map(|share| share.partitions.clone()) else { return };
            let places = held.iter().flat_map(|(topic, partitions)| partitions.iter().map(move |one| (*topic, *one)));
            for (topic, partition) in places {
                let Some(to) = least_of(shares, by_topic.get(&topic)) else { continue };
                let count = |index: usize| shares.get(index).map_or(0, |share| share.count);
                if count(from) < count(to) + 2 {
                    continue;
                }
                if let Some(share) = shares.get_mut(from) {
                    share.give(topic, partition);
                }
                if let Some(share) = shares.get_mut(to) {
                    share.take(topic, partition);
                }
                moved = true;
            }
        }
        if !moved {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(topic: u128) -> Uuid {
        Uuid::from_u128(topic)
    }

    fn wish(member_id: &str, topics: &[u128], held: &[(u128, &[u32])]) -> Wish {
        Wish {
            member_id: member_id.into(),
            group_instance_id: None,
            topics: topics.iter().map(|topic| id(*topic)).collect(),
            held: assignment(held),
        }
    }

    fn assignment(partitions: &[(u128, &[u32])]) -> Assignment {
        partitions.iter().map(|(topic, of_topic)| (id(*topic), of_topic.iter().copied().collect())).collect()
    }

    fn widths(topics: &[(u128, u32)]) -> BTreeMap<Uuid, u32> {
        topics.iter().map(|(topic, width)| (id(*topic), *width)).collect()
    }

    fn counts(targets: &HashMap<String, Assignment>) -> BTreeMap<&str, usize> {
        targets.iter().map(|(member, target)| (member.as_str(), target.values().map(BTreeSet::len).sum())).collect()
    }

    /// Every partition of a topic that somebody wants is given once, and to one that wants it.
    fn complete(wishes: &[(&str, &[u128])], targets: &HashMap<String, Assignment>, widths: &BTreeMap<Uuid, u32>) {
        let mut given = BTreeSet::new();
        for (member, target) in targets {
            let wanted = wishes.iter().find(|(name, _)| name == member).unwrap().1;
            for (topic, partitions) in target {
                assert!(wanted.iter().any(|wanted| id(*wanted) == *topic), "{member} does not want {topic}");
                assert!(partitions.iter().all(|partition| given.insert((*topic, *partition))), "given twice");
            }
        }
        let wanted: BTreeSet<Uuid> =
            wishes.iter().flat_map(|(_, topics)| topics.iter().map(|topic| id(*topic))).collect();
        let all: u32 = widths.iter().filter(|(topic, _)| wanted.contains(topic)).map(|(_, width)| width).sum();
        assert_eq!(given.len(), all as usize);
    }

    #[test]
    fn ranges_are_runs_and_static_members_come_first() {
        let mut wishes = vec![wish("b", &[1, 2], &[]), wish("a", &[1, 2], &[]), wish("z", &[1], &[])];
        wishes[2].group_instance_id = Some("one".into());
        let targets = range(wishes, &widths(&[(1, 7), (2, 3)]));
        assert_eq!(targets["z"], assignment(&[(1, &[0, 1, 2])]));
        assert_eq!(targets["a"], assignment(&[(1, &[3, 4]), (2, &[0, 1])]));
        assert_eq!(targets["b"], assignment(&[(1, &[5, 6]), (2, &[2])]));
    }

    #[test]
    fn uniform_moves_only_what_must_move() {
        let widths = widths(&[(1, 6)]);
        let held = assignment(&[(1, &[0, 1, 2, 3, 4, 5])]);
        let wishes = vec![Wish { held: held.clone(), ..wish("a", &[1], &[]) }, wish("b", &[1], &[])];
        let targets = uniform(wishes, &widths);
        assert_eq!(counts(&targets), BTreeMap::from([("a", 3), ("b", 3)]));
        assert!(targets["a"][&id(1)].is_subset(&held[&id(1)]));

        // Those with one more keep it when a third comes to four.
        let wishes =
            vec![wish("b", &[1], &[(1, &[4])]), wish("a", &[1], &[(1, &[0, 1])]), wish("c", &[1], &[(1, &[2, 3])])];
        let targets = uniform(wishes, &widths);
        assert_eq!(targets["a"], assignment(&[(1, &[0, 1])]));
        assert_eq!(targets["c"], assignment(&[(1, &[2, 3])]));
        assert_eq!(targets["b"], assignment(&[(1, &[4, 5])]));
    }

    #[test]
    fn uniform_evens_out_across_different_subscriptions() {
        let subscriptions: [(&str, &[u128]); 3] = [("a", &[1, 2]), ("b", &[1]), ("c", &[2, 3])];
        let widths = widths(&[(1, 4), (2, 4), (3, 1)]);
        let wishes = subscriptions.iter().map(|(name, topics)| wish(name, topics, &[])).collect();
        let targets = uniform(wishes, &widths);
        complete(&subscriptions, &targets, &widths);
        assert_eq!(counts(&targets), BTreeMap::from([("a", 3), ("b", 3), ("c", 3)]));
    }

    #[test]
    fn what_is_gone_is_not_assigned() {
        let wishes = vec![wish("a", &[1, 9], &[(1, &[0, 5]), (9, &[0])])];
        assert_eq!(uniform(wishes, &widths(&[(1, 2)]))["a"], assignment(&[(1, &[0, 1])]));
        assert_eq!(uniform(vec![wish("a", &[], &[])], &widths(&[]))["a"], Assignment::new());
        assert!(uniform(vec![], &widths(&[])).is_empty() && range(vec![], &widths(&[(1, 1)])).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn every_partition_is_given_once_and_evenly(
            members in proptest::collection::vec(proptest::collection::btree_set(0_u128..4, 0..4), 1..7),
            held in proptest::collection::vec((0_usize..7, 0_u128..5, 0_u32..9), 0..20),
            sizes in proptest::collection::vec(1_u32..9, 4),
        ) {
            let widths: BTreeMap<Uuid, u32> = sizes.iter().enumerate().map(|(topic, width)| (id(topic as u128), *width)).collect();
            let names: Vec<String> = (0..members.len()).map(|index| format!("m{index}")).collect();
            let mut taken = BTreeSet::new();
            let wishes = || members.iter().enumerate().map(|(index, topics)| {
                let topics: Vec<u128> = topics.iter().copied().collect();
                wish(&names[index], &topics, &[])
            }).collect::<Vec<_>>();
            let mut kept = wishes();
            for (member, topic, partition) in held {
                if member < kept.len() && taken.insert((topic, partition)) {
                    kept[member].held.entry(id(topic)).or_default().insert(partition);
                }
            }
            let lists: Vec<Vec<u128>> = members.iter().map(|topics| topics.iter().copied().collect()).collect();
            let subscriptions: Vec<(&str, &[u128])> = names.iter().map(String::as_str).zip(lists.iter().map(Vec::as_slice)).collect();
            let even = uniform(kept, &widths);
            complete(&subscriptions, &even, &widths);
            for (member, topics) in members.iter().enumerate() {
                for topic in topics {
                    let mine = counts(&even).get(names[member].as_str()).copied().unwrap_or(0);
                    for (other, others) in members.iter().enumerate().filter(|(_, others)| others.contains(topic)) {
                        let theirs = even.get(&names[other]).and_then(|target| target.get(&id(*topic)));
                        let _ = others;
                        let total = counts(&even).get(names[other].as_str()).copied().unwrap_or(0);
                        proptest::prop_assert!(theirs.is_none() || total < mine + 2, "{} could give one to {}", other, member);
                    }
                }
            }
            complete(&subscriptions, &range(wishes(), &widths), &widths);
        }
    }
}
