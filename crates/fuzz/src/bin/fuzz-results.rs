//! libFuzzer over [`postrider_fuzz::results`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::results(data));
