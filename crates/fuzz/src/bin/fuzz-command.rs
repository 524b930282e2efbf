//! libFuzzer over [`postrider_fuzz::command`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::command(data));
