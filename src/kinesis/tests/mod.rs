//! Handlers through the door, without sockets: a store in memory and a clock that stands.

mod encryption;
pub mod fixture;
mod lists;
mod streams;
mod table;
mod warm;
