//! libFuzzer over [`postrider_fuzz::content`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::content(data));
