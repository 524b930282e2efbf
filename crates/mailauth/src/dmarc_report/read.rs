//! Reports as they come: a mail with an attachment, the attachment alone, compressed or not.

use std::io::{Cursor, Read};

use mail_auth::flate2::read::GzDecoder;
use mail_auth::report::Report;
use mail_auth::zip::ZipArchive;
use mail_parser::MessageParser;

use crate::verify::tags::printable;

/// How large a report may be. What it becomes in memory is bounded too: by its records and tags.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Octets of the file or mail.
    pub input: usize,
    /// Octets of XML, unpacked: a small archive can hold much of nothing.
    pub xml: usize,
    /// Rows.
    pub records: usize,
    /// XML tags of all kinds.
    pub tags: usize,
    /// Files in an archive, and attachments, that are looked into.
    pub files: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { input: 32 << 20, xml: 32 << 20, records: 100_000, tags: 2_000_000, files: 20 }
    }
}

/// Why something is no report that can be read. None of it passes; whoever sent it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// It exceeds a limit; the text says which.
    #[error("it is too large: {0}")]
    TooLarge(String),
    /// The archive is damaged.
    #[error("it can not be unpacked: {0}")]
    Unpack(String),
    /// It is XML and no aggregate report.
    #[error("it is no aggregate report: {0}")]
    NotAReport(String),
    /// There is no report in it.
    #[error("there is no aggregate report in it: neither XML, nor packed XML, nor a mail with one attached")]
    Nothing,
}

/// Reads the report in a file or mail; what it is, its bytes say, not its name.
///
/// # Errors
/// When there is none, or it exceeds the limits.
pub fn read(input: &[u8], limits: &Limits) -> Result<Report, ReportError> {
    if input.len() > limits.input {
        return Err(ReportError::TooLarge(format!("more than {} octets", limits.input)));
    }
    match file(input, limits) {
        Some(report) => report,
        None => mail(input, limits),
    }
}

/// A file of a known kind.
fn file(input: &[u8], limits: &Limits) -> Option<Result<Report, ReportError>> {
    if input.starts_with(&[0x1f, 0x8b]) {
        return Some(unpacked(GzDecoder::new(input), limits).and_then(|text| xml(&text, limits)));
    }
    if input.starts_with(b"PK\x03\x04") {
        return Some(archive(input, limits));
    }
    is_xml(input).then(|| xml(input, limits))
}

fn is_xml(input: &[u8]) -> bool {
    let text = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    text.trim_ascii_start().first() == Some(&b'<')
}

fn xml(text: &[u8], limits: &Limits) -> Result<Report, ReportError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let tags = memchr::memchr_iter(b'<', text).count();
    let records = memchr::memmem::find_iter(text, b"<record").count();
    if records > limits.records || tags > limits.tags {
        return Err(ReportError::TooLarge(format!("more than {} rows or {} tags", limits.records, limits.tags)));
    }
    Report::parse_xml(text).map_err(|reason| ReportError::NotAReport(printable(&reason)))
}

fn archive(input: &[u8], limits: &Limits) -> Result<Report, ReportError> {
    let damaged = |error: mail_auth::zip::result::ZipError| ReportError::Unpack(printable(&error.to_string()));
    let mut archive = ZipArchive::new(Cursor::new(input)).map_err(damaged)?;
    let mut fault = ReportError::Nothing;
    for index in 0..archive.len().min(limits.files) {
        let entry = archive.by_index(index).map_err(damaged)?;
        let text = unpacked(entry, limits)?;
        match xml(&text, limits) {
            Ok(report) => return Ok(report),
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

/// All that a packed stream holds, unless that is too much.
fn unpacked(stream: impl Read, limits: &Limits) -> Result<Vec<u8>, ReportError> {
    let mut text = Vec::new();
    let most = limits.xml as u64;
    stream.take(most + 1).read_to_end(&mut text).map_err(|error| ReportError::Unpack(printable(&error.to_string())))?;
    if text.len() as u64 > most {
        return Err(ReportError::TooLarge(format!("more than {most} octets unpacked")));
    }
    Ok(text)
}

/// The first report among the parts of a mail, else why the last that looked like one is none.
fn mail(input: &[u8], limits: &Limits) -> Result<Report, ReportError> {
    let message = MessageParser::new().parse(input).ok_or(ReportError::Nothing)?;
    let mut fault = ReportError::Nothing;
    let parts = message.parts.iter().filter(|part| !part.is_multipart() && !part.is_text_html());
    for part in parts.take(limits.files) {
        match file(part.contents(), limits) {
            Some(Ok(report)) => return Ok(report),
            Some(Err(error)) => fault = error,
            None => {}
        }
    }
    Err(fault)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use base64::Engine as _;
    use mail_auth::flate2::Compression;
    use mail_auth::flate2::write::GzEncoder;
    use mail_auth::zip::ZipWriter;
    use mail_auth::zip::write::SimpleFileOptions;
    use proptest::prelude::*;

    use super::*;
    use crate::dmarc_report::Counter;

    /// RFC 7489 appendix C, as the large receivers write it.
    const XML: &str = r#"<?xml version="1.0" encoding="UTF-8" ?>
<feedback>
  <report_metadata>
    <org_name>receiver.example</org_name>
    <email>noreply-dmarc@receiver.example</email>
    <extra_contact_info>https://receiver.example/dmarc</extra_contact_info>
    <report_id>1234567890</report_id>
    <date_range><begin>1500000000</begin><end>1500086399</end></date_range>
  </report_metadata>
  <policy_published>
    <domain>example.com</domain><adkim>r</adkim><aspf>r</aspf><p>quarantine</p><sp>none</sp><pct>100</pct>
  </policy_published>
  <record>
    <row><source_ip>192.0.2.1</source_ip><count>7</count>
      <policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf></policy_evaluated></row>
    <identifiers><header_from>example.com</header_from></identifiers>
    <auth_results>
      <dkim><domain>example.com</domain><result>pass</result><selector>s1</selector></dkim>
      <spf><domain>bounces.relay.example</domain><result>pass</result></spf>
    </auth_results>
  </record>
  <record>
    <row><source_ip>2001:db8::1</source_ip><count>2</count>
      <policy_evaluated><disposition>quarantine</disposition><dkim>fail</dkim><spf>fail</spf>
      <reason><type>mailing_list</type><comment>x</comment></reason></policy_evaluated></row>
    <identifiers><header_from>EXAMPLE.com</header_from></identifiers>
    <auth_results><spf><domain>other.example</domain><result>softfail</result></spf></auth_results>
  </record>
</feedback>"#;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn mail_with(kind: &str, attachment: &[u8]) -> Vec<u8> {
        let packed = base64::engine::general_purpose::STANDARD.encode(attachment);
        format!(
            "From: a@receiver.example\r\nSubject: Report domain: example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nThis is a report.\r\n--b\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n{packed}\r\n--b--\r\n"
        )
        .into_bytes()
    }

    fn get(input: &[u8]) -> Result<Report, ReportError> {
        read(input, &Limits::default())
    }

    #[test]
    fn reports_come_in_many_dresses() {
        let packed = gzip(XML.as_bytes());
        let archive = zip(&[("readme.txt", b"hello"), ("report.xml", XML.as_bytes())]);
        let dresses = [
            XML.as_bytes().to_vec(),
            [b"\xef\xbb\xbf\n", XML.as_bytes()].concat(),
            mail_with("application/gzip", &packed),
            mail_with("application/octet-stream; name=a.gz", &packed),
            mail_with("application/zip", &archive),
            mail_with("text/xml", XML.as_bytes()),
            packed,
            archive,
        ];
        for (index, dress) in dresses.iter().enumerate() {
            let report = get(dress).unwrap_or_else(|error| panic!("{index}: {error}"));
            assert_eq!(report.record.len(), 2, "{index}");
        }
    }

    #[test]
    fn reports_are_counted_together() {
        let report = get(XML.as_bytes()).unwrap();
        let mut later = report.clone();
        later.report_metadata.report_id = "2".to_owned();
        let mut counter = Counter::default();
        for report in [&report, &later, &report] {
            counter.add(report);
        }
        let summary = counter.finish();
        assert_eq!((summary.reports.len(), summary.repeated), (2, 1));
        let head = &summary.reports[0];
        assert_eq!((head.count, head.policy.as_str(), head.domain.as_str()), (9, "quarantine", "example.com"));
        assert_eq!(head.begin.rfc3339(), "2017-07-14T02:40:00.000Z");
        let [relay, list] = summary.sources.as_slice() else { panic!("{summary:?}") };
        assert_eq!((relay.count, relay.passed, relay.dkim, relay.spf), (14, 14, 14, 0));
        assert!(relay.signers.contains("example.com pass") && relay.envelopes.contains("bounces.relay.example pass"));
        assert_eq!((list.count, list.passed, list.quarantined, list.rejected), (4, 0, 4, 0));
        assert!(list.overrides.contains("mailing list") && list.from == "example.com");
    }

    #[test]
    fn bombs_do_not_go_off() {
        let limits = Limits { xml: 1 << 20, records: 100, tags: 1000, ..Limits::default() };
        let much = vec![b' '; 4 << 20];
        let records = format!("<feedback>{}</feedback>", "<record/>".repeat(101));
        let tags = format!("<feedback>{}</feedback>", "<dkim/>".repeat(1001));
        for bomb in [
            gzip(&much),
            zip(&[("a.xml", &much)]),
            mail_with("application/gzip", &gzip(&much)),
            records.into_bytes(),
            tags.into_bytes(),
        ] {
            assert!(matches!(read(&bomb, &limits), Err(ReportError::TooLarge(_))));
        }
        assert!(matches!(read(&much, &Limits { input: 9, ..limits }), Err(ReportError::TooLarge(_))));
    }

    #[test]
    fn other_things_are_no_reports() {
        for (input, expected) in [
            (&b""[..], "there is no"),
            (b"hello", "there is no"),
            (b"Subject: x\r\n\r\nno report\r\n", "there is no"),
            (b"<html><body>", "it is no"),
            (b"<feedback></feedback>", "it is no"),
            (b"\x1f\x8bnot gzip at all", "it can not be unpacked"),
            (b"PK\x03\x04no archive", "it can not be unpacked"),
        ] {
            let error = get(input).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let empty = get(&zip(&[])).unwrap_err();
        assert!(matches!(empty, ReportError::Nothing | ReportError::Unpack(_)), "{empty}");
    }

    proptest! {
        #[test]
        fn damaged_reports_do_no_harm(
            place: prop::sample::Index, byte: u8, cut: prop::sample::Index, dress in 0..3,
        ) {
            let mut input = match dress {
                0 => XML.as_bytes().to_vec(),
                1 => gzip(XML.as_bytes()),
                _ => mail_with("application/zip", &zip(&[("a.xml", XML.as_bytes())])),
            };
            let place = place.index(input.len());
            input[place] = byte;
            input.truncate(cut.index(input.len() * 2));
            if let Err(error) = get(&input) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
