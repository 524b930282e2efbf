//! libFuzzer over [`postrider_fuzz::reply`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::reply(data));
