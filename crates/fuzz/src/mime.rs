//! The parts of a message, as far as acceptance looks at them.

use postrider_submission::internal::look_at_parts;

/// A message: whatever its parts are, looking for the names of files ends, tells the same
/// when it is done again, and looks at each byte a bounded number of times.
pub fn mime(data: &[u8]) {
    let (found, work) = look_at_parts(data);
    assert!(work <= 80 * (data.len() as u64 + 1), "{work} bytes were looked at of {}", data.len());
    assert_eq!(look_at_parts(data).0, found, "another time it was another message");
    if let Err(fault) = found {
        let text = fault.to_string();
        assert!(text.len() < 512 && !text.contains(['\r', '\n']), "a refusal of more than a line");
    }
}
