//! On-demand capacity: when a stream gets more shards.
