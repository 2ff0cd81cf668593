//! Handlers through the door, without sockets: a store in memory and a clock that stands.

mod data;
mod encryption;
pub mod fixture;
mod lists;
mod streams;
mod subscribe;
mod table;
mod warm;
