//! libFuzzer over [`postrider_fuzz::feedback`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::feedback(data));
