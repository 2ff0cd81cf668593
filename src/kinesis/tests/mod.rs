//! Handlers through the door, without sockets: a store in memory and a clock that stands.

mod access;
mod account;
mod consumers;
mod data;
mod encryption;
pub mod fixture;
mod lists;
mod reshard;
mod settings;
mod streams;
mod subscribe;
mod table;
mod warm;
