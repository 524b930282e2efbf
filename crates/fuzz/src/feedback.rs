//! Reports that anybody can send to a return path.

use bytes::Bytes;
use postrider_feedback::{Report, Settings, read};

/// A message that came back: it is read within the bounds, in pieces as in one, and nothing that
/// is kept of it can end a line.
pub fn feedback(data: &[u8]) {
    let (steering, message) = data.split_first().unwrap_or((&0, &[]));
    let settings = Settings { max_recipients: 3, ..Settings::default() };
    let whole = Bytes::copy_from_slice(message);
    let reading = read(std::slice::from_ref(&whole), steering & 1 == 1, &settings);
    let cut = usize::from(*steering).min(whole.len());
    let pieces = [whole.slice(..cut), whole.slice(cut..)];
    assert_eq!(read(&pieces, steering & 1 == 1, &settings), reading);
    if let Report::Status(report) = &reading.report {
        assert!((1..=3).contains(&report.recipients.len()));
        let texts = report.recipients.iter().flat_map(|recipient| [&recipient.diagnostic, &recipient.remote_mta]);
        for text in texts.chain([&report.reporting_mta]).flatten() {
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
    let fields = reading.original.iter().flat_map(|original| &original.fields);
    for (_, value) in fields {
        assert!(!value.chars().any(char::is_control), "{value:?}");
    }
}
