//! `postrider dkim`.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, bail};
use postrider_account::KeyState;
use postrider_control::{DkimKeyView, DkimOperation, Operation, Response, Secret};
use zeroize::Zeroizing;

use super::unexpected;
use crate::access::Access;
use crate::cli::DkimCommand;
use crate::output::{Output, or_dash, time};

/// More than the longest key has.
const MAX_KEY: usize = 64 * 1024;

pub(crate) async fn run(command: DkimCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    type To = DkimOperation;
    let (mut in_full, mut is_list) = (false, false);
    let operation = match command {
        DkimCommand::List { domain, account } => {
            is_list = true;
            To::List { account: access.account(account.account), domain }
        }
        DkimCommand::Show { key } => {
            in_full = true;
            To::Show { account: access.account(key.account.account), domain: key.domain, selector: key.selector }
        }
        DkimCommand::Create { domain, algorithm, account } => {
            To::Create { account: access.account(account.account), domain, algorithm: algorithm.into() }
        }
        DkimCommand::Import { key, now } => To::Import {
            account: access.account(key.account.account),
            domain: key.domain,
            selector: key.selector,
            key: key_from_stdin()?,
            now,
        },
        DkimCommand::Rotate { domain, selector, force, account } => {
            To::Rotate { account: access.account(account.account), domain, selector, force }
        }
        DkimCommand::Retire { key, force } => {
            let account = access.account(key.account.account);
            To::Retire { account, domain: key.domain, selector: key.selector, force }
        }
        DkimCommand::Delete { key, force } => {
            let account = access.account(key.account.account);
            To::Delete { account, domain: key.domain, selector: key.selector, force }
        }
    };
    match access.ask(Operation::Dkim(operation)).await? {
        Response::DkimKeys(keys) if in_full && out.json() => out.json_document(&keys.first()),
        Response::DkimKeys(keys) if out.json() => out.json_document(&keys),
        Response::DkimKeys(keys) if in_full => keys.iter().try_for_each(|key| show(key, out)),
        Response::DkimKeys(keys) if is_list => list(&keys, out),
        Response::DkimKeys(keys) => {
            list(&keys, out)?;
            to_publish(&keys, out)
        }
        Response::Changed { .. } if out.json() => out.json_line(&serde_json::json!({ "changed": 1 })),
        Response::Changed { .. } => out.line("done"),
        other => unexpected(&other),
    }
}

fn list(keys: &[DkimKeyView], out: &mut Output) -> Result<()> {
    let rows = keys.iter().map(|key| {
        vec![
            key.domain.to_string(),
            key.selector.to_string(),
            key.algorithm.to_string(),
            key.state.to_string(),
            time(key.since),
            key.origin.as_str().to_owned(),
            or_dash(key.seen.map(time)),
            or_dash(key.published_until.map(time)),
        ]
    });
    let header = ["DOMAIN", "SELECTOR", "ALGORITHM", "STATE", "SINCE", "ORIGIN", "SEEN IN DNS", "PUBLISH UNTIL"];
    out.table(&header, rows.collect(), "no DKIM keys")
}

/// What has to be done before those that do not sign yet will.
fn to_publish(keys: &[DkimKeyView], out: &mut Output) -> Result<()> {
    let waiting: Vec<_> = keys.iter().filter(|key| key.state == KeyState::Next && key.seen.is_none()).collect();
    if waiting.is_empty() {
        return Ok(());
    }
    out.line("\nTo publish; a key signs when its record has been seen in the DNS:\n")?;
    waiting.into_iter().try_for_each(|key| zone_line(key, out))
}

fn show(key: &DkimKeyView, out: &mut Output) -> Result<()> {
    out.line(format_args!("domain         {}", key.domain))?;
    out.line(format_args!("selector       {}", key.selector))?;
    out.line(format_args!("algorithm      {}", key.algorithm))?;
    out.line(format_args!("origin         {}", key.origin.as_str()))?;
    out.line(format_args!("created        {}", time(key.created)))?;
    out.line(format_args!("state          {} since {}", key.state, time(key.since)))?;
    out.line(format_args!("seen in DNS    {}", or_dash(key.seen.map(time))))?;
    if let Some(until) = key.published_until {
        out.line(format_args!("publish until  {}", time(until)))?;
    }
    out.line("")?;
    zone_line(key, out)
}

fn zone_line(key: &DkimKeyView, out: &mut Output) -> Result<()> {
    out.line(format_args!("{}. 3600 IN TXT {}", key.record_name, key.zone_text))
}

/// A private key never comes from the command line, where every user of the machine sees it.
#[expect(clippy::print_stderr, reason = "the prompt must not mix with what is printed")]
fn key_from_stdin() -> Result<Secret> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("paste the private key in PEM, then Ctrl-D:");
    }
    // As long as it can become: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY));
    stdin.take(MAX_KEY as u64).read_to_string(&mut text).context("cannot read the private key from stdin")?;
    if text.trim().is_empty() {
        bail!("expected a private key in PEM on stdin");
    }
    Ok(Secret::new(text))
}
