//! libFuzzer over [`postrider_fuzz::chunk`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::chunk(data));
