//! What tests of this folder share.

pub mod fixture;
