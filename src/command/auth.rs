//! `postrider auth check`: a message as a receiver sees it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use postrider_base::{Clock, Metrics};
use postrider_dns::{Cached, HickoryResolver, Resolver};
use postrider_mailauth::authentication_results::AuthenticationResults;
use postrider_mailauth::verify::arc::ArcResult;
use postrider_mailauth::verify::dkim::{DkimReport, DkimResult};
use postrider_mailauth::verify::dmarc::{DmarcReport, DmarcResult};
use postrider_mailauth::verify::spf::{SpfReport, SpfResult};
use postrider_mailauth::verify::{Connection, Limits, Verdict, verify};
use serde::Serialize;

use crate::cli::{AuthCheckArgs, AuthCommand};
use crate::config::{self, Config};
use crate::output::Output;

/// What programs get.
#[derive(Serialize)]
struct Checked<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    /// The header field that a receiver would add.
    authentication_results: String,
}

pub(crate) fn run(command: &AuthCommand, config: Option<&Path>, out: &mut Output) -> Result<()> {
    let AuthCommand::Check(arguments) = command;
    let config = config_or_default(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(check(arguments, &config, out))
}

/// Nothing of a node is needed but how to ask the DNS: without a configuration as the system does.
fn config_or_default(named: Option<&Path>) -> Result<Config> {
    match config::find(named) {
        Ok((_, config)) => Ok(config),
        Err(_) if named.is_none() => Ok(Config::default()),
        Err(error) => Err(error.into()),
    }
}

async fn check(arguments: &AuthCheckArgs, config: &Config, out: &mut Output) -> Result<()> {
    let limits = Limits::default();
    let message = with_crlf(read(&arguments.file, limits.size)?);
    let return_path = return_path(&message);
    let receiver = config.server.hostname();
    let connection = Connection {
        ip: arguments.ip,
        helo: &arguments.helo,
        mail_from: arguments.mail_from.as_deref().unwrap_or(&return_path).trim_matches(['<', '>']),
        receiver: &receiver,
    };
    let clock = Clock::system();
    let resolver = HickoryResolver::new(&config.dns, &Metrics::new()).context("cannot set up name resolution")?;
    let resolver: Arc<dyn Resolver> = Arc::new(Cached::new(resolver, clock.clone(), Metrics::new(), &config.dns));
    let verdict = verify(&*resolver, &clock, &message, &connection, &limits).await?;
    let results = AuthenticationResults::of(&verdict, &connection).to_field();
    if out.json() {
        return out.json_document(&Checked { verdict: &verdict, authentication_results: results });
    }
    show(&verdict, &connection, out)?;
    out.line("")?;
    results.lines().try_for_each(|line| out.line(line))
}

/// A file or stdin, at most `most` octets.
pub(super) fn read(file: &Path, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = most as u64;
    let read = if file == Path::new("-") {
        io::stdin().lock().take(most + 1).read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|open| open.take(most + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    if bytes.len() as u64 > most {
        bail!("{} has more than {most} octets", file.display());
    }
    Ok(bytes)
}

/// Files on Unix have other line ends than mail on its way.
pub(super) fn with_crlf(message: Vec<u8>) -> Vec<u8> {
    if message.windows(2).any(|pair| pair == b"\r\n") {
        return message;
    }
    let mut converted = Vec::with_capacity(message.len() + message.len() / 32);
    for byte in message {
        if byte == b'\n' {
            converted.push(b'\r');
        }
        converted.push(byte);
    }
    converted
}

/// What the receiver noted of MAIL FROM.
fn return_path(message: &[u8]) -> String {
    let lines = message.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    let fields = lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'));
    let mut found = fields.filter(|(name, _)| name.trim().eq_ignore_ascii_case("Return-Path"));
    found.next().map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

fn show(verdict: &Verdict, connection: &Connection<'_>, out: &mut Output) -> Result<()> {
    let mut rows = Vec::new();
    let mut row = |method: &str, result: &str, of: &str, reason: &str| {
        rows.push([method, result, of, reason].map(str::to_owned).to_vec());
    };
    match &verdict.spf {
        Some(spf) => row("spf", spf.result.as_str(), &spf.domain, &spf.reason),
        None => row("spf", "-", "-", "not checked: --ip says which address the message came from"),
    }
    for one in &verdict.dkim {
        row("dkim", one.result.as_str(), &format!("{} ({})", one.domain, one.selector), &one.reason);
    }
    if verdict.dkim.is_empty() {
        row("dkim", "none", "-", "the message has no signature");
    }
    row("arc", verdict.arc.result.as_str(), dashed(&verdict.arc.sealers.join(", ")), &verdict.arc.reason);
    row("dmarc", verdict.dmarc.result.as_str(), dashed(&verdict.dmarc.domain), &verdict.dmarc.reason);
    out.table(&["CHECK", "RESULT", "OF", "WHY"], rows, "")?;
    if verdict.dkim_ignored > 0 {
        out.line(format_args!("{} more signatures were not looked at", verdict.dkim_ignored))?;
    }
    if let Some(spf) = verdict.spf.as_ref().filter(|spf| !spf.lookups.is_empty()) {
        out.line(format_args!("spf asked the DNS {} times of 10, {} in vain", spf.lookups.len(), spf.void))?;
    }
    if let Some(policy) = &verdict.dmarc.policy {
        out.line(format_args!("policy of {}: {}", policy.found_at, policy.record))?;
    }
    for advice in advice(verdict, connection) {
        out.line(format_args!("do: {advice}"))?;
    }
    Ok(())
}

fn dashed(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// What the sender can do, the most useful first.
fn advice(verdict: &Verdict, connection: &Connection<'_>) -> Vec<String> {
    let mut advice = Vec::new();
    advice.extend(dmarc_advice(&verdict.dmarc));
    advice.extend(verdict.dkim.iter().filter_map(dkim_advice));
    advice.extend(verdict.spf.as_ref().and_then(|spf| spf_advice(spf, connection)));
    if verdict.arc.result == ArcResult::Fail {
        advice.push("who passed the message on broke its seals; senders can do nothing about it".to_owned());
    }
    advice.dedup();
    advice
}

fn dmarc_advice(dmarc: &DmarcReport) -> Option<String> {
    let from = &dmarc.domain;
    match dmarc.result {
        DmarcResult::Pass => None,
        DmarcResult::Fail => Some(format!("sign with DKIM for {from}, or use a MAIL FROM below it that SPF passes")),
        DmarcResult::TempError => Some("check again later: the DNS could not be asked".to_owned()),
        DmarcResult::None if from.is_empty() => Some("write one author with a domain into From".to_owned()),
        DmarcResult::None => Some(format!("publish at _dmarc.{from}: v=DMARC1; p=none; rua=mailto:...")),
    }
}

fn dkim_advice(one: &DkimReport) -> Option<String> {
    let key = format!("{}._domainkey.{}", one.selector, one.domain);
    match one.result {
        DkimResult::Pass => None,
        DkimResult::TempError => Some(format!("check again later, and whether the name servers of {key} answer")),
        DkimResult::PermError => Some(format!("compare the record at {key} with the key that signs")),
        DkimResult::Fail => Some(format!(
            "find what changes the message after {} signs it; if nothing does, compare the record at {key} with the key that signs",
            one.domain
        )),
        DkimResult::Policy => Some("let the signer cover the whole body (no l=)".to_owned()),
        DkimResult::Neutral => Some("mend the program that signs".to_owned()),
    }
}

fn spf_advice(spf: &SpfReport, connection: &Connection<'_>) -> Option<String> {
    let domain = &spf.domain;
    let ip = connection.ip?;
    match spf.result {
        SpfResult::Pass => None,
        SpfResult::TempError => Some(format!("check again later, and whether the name servers of {domain} answer")),
        SpfResult::PermError => Some(format!("mend the SPF record of {domain}: {}", spf.reason)),
        SpfResult::None => Some(format!("publish an SPF record at {domain} that lists {ip}")),
        SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral => {
            Some(format!("if {ip} may send for {domain}, add it to its SPF record"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_unix_become_mail() {
        assert_eq!(with_crlf(b"a: b\n\nc\n".to_vec()), b"a: b\r\n\r\nc\r\n");
        assert_eq!(with_crlf(b"a: b\r\n\r\nc\n".to_vec()), b"a: b\r\n\r\nc\n");
    }

    #[test]
    fn the_receiver_noted_mail_from() {
        assert_eq!(return_path(b"return-path: <a@b.c>\r\nX: y\r\n\r\nReturn-Path: <d@e.f>\r\n"), "<a@b.c>");
        assert_eq!(return_path(b"X: y\r\n\r\nReturn-Path: <d@e.f>\r\n"), "");
    }
}
