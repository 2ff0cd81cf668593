//! libFuzzer's entry to the property of documents.

#![no_main]

#[path = "../properties/documents.rs"]
mod documents;

libfuzzer_sys::fuzz_target!(|data: &[u8]| documents::holds(data));
