//! Reports as hosts write them: each sample says in its first line what is to be read in it.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::path::Path;

use bytes::Bytes;
use postrider_feedback::{Action, Reading, Report, Settings, read};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/feedback/reports");

fn samples() -> Vec<(String, String, String)> {
    let files = std::fs::read_dir(Path::new(SAMPLES)).unwrap().map(|entry| entry.unwrap().path());
    let mut samples: Vec<_> = files
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let (first, message) = text.split_once("\n\n").unwrap();
            let expected = first.strip_prefix("# ").unwrap().to_owned();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, expected, message.replace('\n', "\r\n"))
        })
        .collect();
    samples.sort();
    assert!(samples.len() > 20, "the samples are gone");
    samples
}

fn reading(message: &str) -> Reading {
    read(&[Bytes::copy_from_slice(message.as_bytes())], true, &Settings::default())
}

/// What was read, in the words of the samples' first lines, without addresses.
fn said(reading: &Reading) -> Vec<String> {
    match &reading.report {
        Report::Status(report) => {
            let failed = report.recipients.iter().filter(|recipient| recipient.action == Action::Failed);
            let told = failed.map(|recipient| {
                let kind = recipient.bounce.unwrap();
                let status = recipient.status.map(|status| format!(" {status}")).unwrap_or_default();
                format!("bounce {}/{}{status}", kind.bounce_type(), kind.bounce_sub_type())
            });
            let told: Vec<_> = told.collect();
            if told.is_empty() { vec!["nothing".to_owned()] } else { told }
        }
        Report::Complaint(report) => {
            vec![format!("complaint {}", report.feedback_type.as_deref().unwrap_or("")).trim().to_owned()]
        }
        Report::Automatic | Report::Other => vec!["nothing".to_owned()],
    }
}

#[test]
fn every_sample_says_what_its_first_line_says() {
    let mut wrong = Vec::new();
    for (name, expected, message) in samples() {
        let reading = reading(&message);
        let said = said(&reading);
        // The samples leave a status out that only the text for people has.
        let words =
            |text: &str| text.split(' ').filter(|word| !word.contains('@')).map(str::to_owned).collect::<Vec<_>>();
        let expected: Vec<_> = expected.split("; ").map(words).collect();
        // Nor do they tell of others than the recipient of their return path.
        let is_read = said.len() >= expected.len()
            && said.iter().zip(&expected).all(|(said, expected)| words(said).starts_with(expected));
        if !is_read {
            wrong.push(format!("{name}: {said:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn whom_a_sample_names_is_read() {
    for (name, expected, message) in samples() {
        let reading = reading(&message);
        let Report::Status(report) = &reading.report else { continue };
        for (expected, recipient) in expected.split("; ").zip(&report.recipients) {
            let Some(address) = expected.split(' ').find(|word| word.contains('@')) else { continue };
            let named = [&recipient.original_recipient, &recipient.final_recipient].into_iter().flatten();
            let named: Vec<_> = named.map(|named| named.as_str()).collect();
            // One says nothing but that it failed, one names somebody behind an alias.
            assert!(
                named.contains(&address) || ["undetermined.eml", "utf8.eml"].contains(&name.as_str()),
                "{name} {named:?}"
            );
        }
    }
}

#[test]
fn whatever_is_cut_off_nothing_panics_and_nothing_has_a_line_end() {
    for (name, _, message) in samples() {
        for end in (0..message.len()).filter(|end| message.is_char_boundary(*end)) {
            let reading = reading(&message[..end]);
            if end % 16 == 0 {
                let shown = format!("{reading:?}");
                assert!(!shown.contains("\\r") && !shown.contains("\\n"), "{name} {end} {shown}");
            }
        }
    }
}
