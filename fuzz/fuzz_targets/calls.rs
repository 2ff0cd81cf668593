//! libFuzzer's entry to the property of calls.

#![no_main]

#[path = "../properties/bed.rs"]
mod bed;
#[path = "../properties/calls.rs"]
mod calls;

libfuzzer_sys::fuzz_target!(|data: &[u8]| calls::holds(data));
