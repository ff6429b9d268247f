#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target uses one check of the file")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::session(bytes));
