//! libFuzzer over [`postrider_fuzz::header`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::header(data));
