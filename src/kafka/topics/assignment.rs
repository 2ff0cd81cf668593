//! Manual assignments: which brokers a client wants a partition's replicas on. There is one broker; with
//! `lenient-replication` others may be named and are taken as a wish for more replicas.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::BrokerId;

use super::Refusal;
use crate::kafka::Context;

/// Why an existing partition cannot have its replicas on `brokers`: there is nobody but `node` to move it to.
pub fn move_fault(brokers: &[BrokerId], node: BrokerId) -> Option<String> {
    fault(brokers, None, node, false)
}

/// Judges one partition's replicas; `replicas` is how many the topic's other partitions have.
pub(super) fn check(cx: &Context, brokers: &[BrokerId], replicas: Option<usize>) -> Result<(), Refusal> {
    match fault(brokers, replicas, cx.door.node_id(), cx.door.config.lenient_replication) {
        Some(message) => Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message)),
        None => Ok(()),
    }
}

fn fault(brokers: &[BrokerId], replicas: Option<usize>, node: BrokerId, lenient: bool) -> Option<String> {
    const WHAT: &str = "The manual partition assignment includes";
    if brokers.is_empty() {
        return Some(format!("{WHAT} an empty replica list."));
    }
    let mut sorted: Vec<i32> = brokers.iter().map(|broker| broker.0).collect();
    sorted.sort_unstable();
    if let Some(unknown) = sorted.iter().find(|id| **id < 0 || (!lenient && **id != node.0)) {
        return Some(format!("{WHAT} broker {unknown}, but no such broker is registered."));
    }
    if let Some([twice, ..]) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Some(format!("{WHAT} the broker {twice} more than once."));
    }
    match replicas {
        Some(replicas) if replicas != brokers.len() => Some(format!(
            "{WHAT} a partition with {} replica(s), but this is not consistent with previous partitions, which have \
             {replicas} replica(s).",
            brokers.len()
        )),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(brokers: &[i32]) -> Option<String> {
        let brokers: Vec<_> = brokers.iter().copied().map(BrokerId).collect();
        fault(&brokers, None, BrokerId(1), false)
    }

    #[test]
    fn without_leniency_only_this_broker_may_be_named() {
        assert_eq!(strict(&[1]), None);
        assert!(strict(&[]).unwrap().ends_with("an empty replica list."));
        assert!(strict(&[1, 2]).unwrap().ends_with("includes broker 2, but no such broker is registered."));
        assert!(strict(&[1, 1]).unwrap().ends_with("includes the broker 1 more than once."));
    }

    #[test]
    fn with_leniency_brokers_that_do_not_exist_are_a_wish_for_replicas() {
        let lenient = |brokers: &[i32], replicas| {
            let brokers: Vec<_> = brokers.iter().copied().map(BrokerId).collect();
            fault(&brokers, replicas, BrokerId(1), true)
        };
        assert_eq!(lenient(&[2, 3, 1], None), None);
        assert_eq!(lenient(&[2, 3], Some(2)), None);
        assert!(lenient(&[2, 3], Some(3)).unwrap().contains("2 replica(s), but this is not consistent"));
        assert!(lenient(&[2, 2], None).is_some());
        assert!(lenient(&[-1], None).is_some());
    }
}
