//! Streams: made, described, listed, deleted.

mod create;
mod delete;
mod describe;
mod list;
pub mod quotas;

pub use create::{CreateStream, create_stream};
pub use delete::{DeleteStream, delete_stream};
pub use describe::{DescribeStream, DescribeStreamSummary, describe_stream, describe_stream_summary};
pub use list::{ListStreams, list_streams};
