//! Handlers through the door, without sockets: a store in memory and a clock that stands.

mod data;
mod access;
mod account;
mod consumers;
mod encryption;
pub mod fixture;
mod lists;
mod reshard;
mod settings;
mod streams;
mod subscribe;
mod table;
mod warm;
