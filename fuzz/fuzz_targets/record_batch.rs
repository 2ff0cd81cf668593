//! libFuzzer's entry to the property of record batches.

#![no_main]

#[path = "../properties/record_batch.rs"]
mod record_batch;

libfuzzer_sys::fuzz_target!(|data: &[u8]| record_batch::holds(data));
