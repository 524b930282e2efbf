//! libFuzzer over [`postrider_fuzz::mime`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::mime(data));
