//! What receivers write: `Authentication-Results`, aggregate reports of DMARC.

use postrider_mailauth::authentication_results::{AuthenticationResults, without_forged};
use postrider_mailauth::dmarc_report::{Counter, Limits, read};

/// A field's value: what can be read is written as one field that can be read again, and no
/// message keeps a field in our name.
pub fn results(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(results) = AuthenticationResults::parse(&text) {
        let field = results.to_field();
        assert!(field.split("\r\n").skip(1).all(|line| line.is_empty() || line.starts_with('\t')), "{field:?}");
        let value = field.strip_prefix("Authentication-Results:").expect("it begins with its name");
        assert!(AuthenticationResults::parse(value).is_some(), "{field:?}");
    }
    let message = [b"Authentication-Results: ", data, b"\r\n\r\n"].concat();
    let kept = without_forged(&message, "ours");
    assert_eq!(without_forged(&kept, "ours"), kept, "a forged field was left");
}

/// A report, packed or not: a small one, so that a bomb would be seen.
pub fn report(data: &[u8]) {
    let limits = Limits { input: 1 << 20, xml: 1 << 20, records: 1000, tags: 20_000, files: 5 };
    match read(data, &limits) {
        Ok(report) => {
            let mut counter = Counter::default();
            counter.add(&report);
            assert!(counter.finish().sources.len() <= report.record.len());
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}
