//! libFuzzer over [`postrider_fuzz::milter`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::milter(data));
