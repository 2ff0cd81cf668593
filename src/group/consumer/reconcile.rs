//! Each member's way to its target, and who holds which partition.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{Assignment, Consumer, Member, MemberState, Step};

impl Consumer {
    pub(super) fn is_reconciled(&self, member: &Member) -> bool {
        member.state == MemberState::Stable && member.epoch == self.assignment_epoch
    }

    /// Brings a member one step nearer to its target, as far as what it holds and what others hold allow. `owned` is what
    /// the member says that it has, if it says so.
    pub(super) fn reconcile(&mut self, step: &Step, member_id: &str, owned: Option<&[(Uuid, Vec<i32>)]>) {
        let Some(member) = self.members.get(member_id) else { return };
        if self.is_reconciled(member) {
            return;
        }
        let mut next = member.clone();
        match member.state {
            MemberState::Stable | MemberState::UnreleasedPartitions => self.advance(&mut next, member_id, owned),
            MemberState::UnrevokedPartitions if still_owns(owned, &member.revoking) => {}
            MemberState::UnrevokedPartitions => {
                // Never beyond the target's: a newer one may have come while the member gave up partitions.
                next.epoch = (member.epoch + 1).min(self.assignment_epoch);
                next.revoking = Assignment::new();
                self.advance(&mut next, member_id, owned);
            }
        }
        if next == *member {
            return;
        }
        // Members of the classic protocol have timers of their own.
        let gives_up = next.state == MemberState::UnrevokedPartitions && next.classic.is_none();
        let deadline = step.now.tick_ms.saturating_add(i64::from(next.rebalance_timeout_ms.max(0)));
        next.deadlines.rebalance = gives_up.then_some(deadline);
        next.previous_epoch = member.epoch;
        if gives_up {
            self.arm(deadline);
        }
        self.put(member_id, next);
    }

    /// From what the member holds in `assigned` towards its target.
    fn advance(&self, member: &mut Member, member_id: &str, owned: Option<&[(Uuid, Vec<i32>)]>) {
        let kept = intersection(&member.assigned, &member.target);
        let revoking = difference(&member.assigned, &kept);
        if !revoking.is_empty() && still_owns(owned, &revoking) {
            member.state = MemberState::UnrevokedPartitions;
            member.assigned = kept;
            member.revoking = revoking;
            return;
        }
        let mut assigned = kept;
        let mut waits = false;
        for (topic, partitions) in &difference(&member.target, &assigned) {
            for partition in partitions {
                let is_free = self.holders.get(&(*topic, *partition)).is_none_or(|holder| holder == member_id);
                if is_free {
                    assigned.entry(*topic).or_default().insert(*partition);
                }
                waits |= !is_free;
            }
        }
        member.assigned = assigned;
        member.revoking = Assignment::new();
        member.epoch = self.assignment_epoch;
        member.state = if waits { MemberState::UnreleasedPartitions } else { MemberState::Stable };
    }

    /// Whether partitions of the member's target are still held by others.
    pub(super) fn waits_for_others(&self, member_id: &str, member: &Member) -> bool {
        let missing = difference(&member.target, &member.assigned);
        missing.iter().any(|(topic, partitions)| {
            let is_held =
                |partition: &u32| self.holders.get(&(*topic, *partition)).is_some_and(|holder| holder != member_id);
            partitions.iter().any(is_held)
        })
    }

    pub(super) fn hold(&mut self, member_id: &str, partitions: &Assignment) {
        for (topic, partitions) in partitions {
            for partition in partitions {
                self.holders.insert((*topic, *partition), member_id.to_owned());
            }
        }
    }

    pub(super) fn release(&mut self, member_id: &str, partitions: &Assignment) {
        for (topic, partitions) in partitions {
            for partition in partitions {
                let place = (*topic, *partition);
                if self.holders.get(&place).is_some_and(|holder| holder == member_id) {
                    self.holders.remove(&place);
                }
            }
        }
    }
}

/// Whether the member has any of `partitions` still. One that says nothing has what it had.
fn still_owns(owned: Option<&[(Uuid, Vec<i32>)]>, partitions: &Assignment) -> bool {
    let Some(owned) = owned else { return true };
    owned.iter().any(|(topic, indexes)| {
        let of_topic = partitions.get(topic);
        indexes.iter().any(|index| {
            u32::try_from(*index).ok().zip(of_topic).is_some_and(|(index, partitions)| partitions.contains(&index))
        })
    })
}

fn intersection(a: &Assignment, b: &Assignment) -> Assignment {
    let common = a.iter().filter_map(|(topic, partitions)| {
        let both: BTreeSet<u32> = partitions.intersection(b.get(topic)?).copied().collect();
        (!both.is_empty()).then_some((*topic, both))
    });
    common.collect()
}

/// What is in `a` alone.
fn difference(a: &Assignment, b: &Assignment) -> Assignment {
    let alone = a.iter().filter_map(|(topic, partitions)| {
        let rest: BTreeSet<u32> = match b.get(topic) {
            Some(others) => partitions.difference(others).copied().collect(),
            None => partitions.clone(),
        };
        (!rest.is_empty()).then_some((*topic, rest))
    });
    alone.collect()
}
