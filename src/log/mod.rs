//! 
pub mod producers;
