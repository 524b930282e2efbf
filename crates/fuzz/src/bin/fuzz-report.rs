//! libFuzzer over [`postrider_fuzz::report`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::report(data));
