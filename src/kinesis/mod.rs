//! The Kinesis door.
