//! Histories of whole brokers under kills, pauses and restarts, and the judge of them, in the manner of Jepsen's Kafka
//! workload.

mod check;
mod history;
mod model;
mod planted;
mod random;
