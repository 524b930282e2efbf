//! `postrider feedback`: what comes back.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use postrider_control::{FEEDBACK_READ_BYTES, FeedbackReadRequest, FeedbackView, Operation, Response};
use postrider_mail::EmailAddress;

use super::auth::with_crlf;
use super::unexpected;
use crate::access::Access;
use crate::cli::{FeedbackCommand, FeedbackReadArgs};
use crate::output::{Output, or_dash};

/// Fields in which hosts note the address that a message came to, and those that people see.
const RECIPIENTS: [&str; 5] = ["Delivered-To", "X-Original-To", "Envelope-To", "To", "Cc"];
/// Addresses of them that are looked at.
const MOST: usize = 20;

pub(crate) async fn run(command: FeedbackCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    let FeedbackCommand::Read(arguments) = command;
    match access.ask(Operation::FeedbackRead(request(&arguments)?)).await? {
        Response::FeedbackRead(view) if out.json() => out.json_document(&view),
        Response::FeedbackRead(view) => show(&view, out),
        other => unexpected(&other),
    }
}

fn request(arguments: &FeedbackReadArgs) -> Result<FeedbackReadRequest> {
    let message = with_crlf(front(&arguments.file)?);
    let message = &message[..message.len().min(FEEDBACK_READ_BYTES)];
    let from = values(message, "Return-Path").next();
    Ok(FeedbackReadRequest {
        content: BASE64.encode(message),
        // Who has no note of it has a bounce, as a rule.
        from_nobody: from.is_none_or(|from| from.trim() == "<>"),
        to: match &arguments.to {
            Some(to) => vec![to.clone()],
            None => recipients(message),
        },
    })
}

/// What is looked at of a file or of stdin.
fn front(file: &Path) -> Result<Vec<u8>> {
    let (mut bytes, most) = (Vec::new(), FEEDBACK_READ_BYTES as u64);
    let read = match file == Path::new("-") {
        true => io::stdin().lock().take(most).read_to_end(&mut bytes),
        false => File::open(file).and_then(|open| open.take(most).read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(bytes)
}

fn recipients(message: &[u8]) -> Vec<EmailAddress> {
    let values: Vec<String> = RECIPIENTS.iter().flat_map(|name| values(message, name)).collect();
    let words = values.iter().flat_map(|value| value.split(|c: char| c.is_whitespace() || "<>,;".contains(c)));
    words.filter_map(|word| word.parse().ok()).take(MOST).collect()
}

/// The values of a field of the header.
fn values<'a>(message: &'a [u8], name: &'a str) -> impl Iterator<Item = String> + 'a {
    let lines = message.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    let fields = lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'));
    fields.filter(move |(found, _)| found.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

fn show(view: &FeedbackView, out: &mut Output) -> Result<()> {
    let reporter = view.reporter.as_deref().map_or_else(String::new, |reporter| format!(", from {reporter}"));
    out.line(format_args!("{}{reporter}", view.kind.replace('-', " ")))?;
    match (&view.message, view.known) {
        (Some(id), true) => out.line(format_args!("about message {id}"))?,
        (Some(id), false) => {
            out.line(format_args!("about message {id}, which the journal does not have (any more)"))?;
        }
        (None, _) => out.line("about no message of this relay")?,
    }
    let rows = view.effects.iter().map(|effect| {
        vec![
            or_dash(effect.recipient.as_ref()),
            or_dash(effect.event.as_ref()),
            or_dash(effect.status.as_ref()),
            or_dash(effect.suppressed.as_ref()),
            effect.why.clone(),
        ]
    });
    out.table(&["RECIPIENT", "EVENT", "STATUS", "SUPPRESSED", "WHY"], rows.collect(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_noted_where_it_came_to() {
        let message = b"To: x@y.z\r\nX: Delivered-To: no@y.z\r\ndelivered-to: <a@b.c>\r\n\r\nTo: body@y.z\r\n";
        let found: Vec<String> = recipients(message).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["a@b.c", "x@y.z"]);
        assert!(recipients(b"To: nobody in particular:;\r\n\r\n").is_empty());
    }
}
