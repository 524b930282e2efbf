//! libFuzzer over [`postrider_fuzz::clamd`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::clamd(data));
