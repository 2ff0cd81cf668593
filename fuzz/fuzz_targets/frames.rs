//! libFuzzer's entry to the property of frames.

#![no_main]

#[path = "../properties/bed.rs"]
mod bed;
#[path = "../properties/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|data: &[u8]| frames::holds(data));
