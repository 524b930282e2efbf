//! `postrider identities`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use postrider_control::{IdentityOperation, IdentityRow, Operation, Response};

use super::unexpected;
use crate::access::Access;
use crate::cli::{IdentitiesCommand, Switch};
use crate::output::{Output, or_dash, time};

pub(crate) async fn run(command: IdentitiesCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    type Of = IdentitiesCommand;
    type To = IdentityOperation;
    let is_list = matches!(command, Of::List { .. });
    let operation = match command {
        Of::List { account } => To::List { account: access.account(account.account) },
        Of::Show { name, account } => To::Show { account: access.account(account.account), name },
        Of::Create { name, trust, configuration_set, tags, account } => {
            let (account, tags) = (access.account(account.account), parsed(&tags)?);
            To::Create { account, name, trusted: trust, configuration_set, tags }
        }
        Of::SetTags { name, tags, untags, account } => {
            To::Tag { account: access.account(account.account), name, tags: parsed(&tags)?, untags }
        }
        Of::Verify { name, account } => To::Verify { account: access.account(account.account), name },
        Of::Trust { name, account } => To::Trust { account: access.account(account.account), name, trusted: true },
        Of::Untrust { name, account } => To::Trust { account: access.account(account.account), name, trusted: false },
        Of::Delete { name, account } => To::Delete { account: access.account(account.account), name },
        Of::MailFrom { name, domain, on_failure, none: _, account } => {
            To::MailFrom { account: access.account(account.account), name, domain, on_failure: on_failure.into() }
        }
        Of::Dkim { name, signing, ed25519, account } => {
            let is_on = |switch: Option<Switch>| switch.map(|switch| switch == Switch::On);
            let (enabled, ed25519) = (is_on(signing), is_on(ed25519));
            To::Dkim { account: access.account(account.account), name, enabled, ed25519 }
        }
    };
    match access.ask(Operation::Identities(operation)).await? {
        Response::Identities(rows) if is_list && out.json() => out.json_document(&rows),
        Response::Identities(rows) if is_list => list(&rows, out),
        Response::Identities(rows) if out.json() => out.json_document(&rows.first()),
        Response::Identities(rows) => rows.iter().try_for_each(|row| show(row, out)),
        Response::Changed { .. } if out.json() => out.json_line(&serde_json::json!({ "changed": 1 })),
        Response::Changed { .. } => out.line("done"),
        other => unexpected(&other),
    }
}

fn parsed(tags: &[String]) -> Result<BTreeMap<String, String>> {
    let parsed = tags.iter().map(|tag| {
        let (key, value) = tag.split_once('=').with_context(|| format!("{tag:?} is no tag: KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    });
    parsed.collect()
}

fn list(rows: &[IdentityRow], out: &mut Output) -> Result<()> {
    let rows = rows.iter().map(|row| {
        let mail_from = row.mail_from_attributes.as_ref();
        vec![
            row.identity_name.to_string(),
            status(row),
            if row.dkim_attributes.signing_enabled { &row.dkim_attributes.status } else { "off" }.to_owned(),
            or_dash(mail_from.map(|own| format!("{} ({})", own.mail_from_domain, own.mail_from_domain_status))),
            or_dash(row.configuration_set_name.as_ref()),
        ]
    });
    let header = ["IDENTITY", "VERIFICATION", "DKIM", "MAIL FROM", "CONFIGURATION SET"];
    out.table(&header, rows.collect(), "no identities")
}

fn show(row: &IdentityRow, out: &mut Output) -> Result<()> {
    out.line(format_args!("identity           {}", row.identity_name))?;
    // Trust is declared, and has no time of its own.
    let since = if row.trusted { String::new() } else { format!(" since {}", time(row.since)) };
    out.line(format_args!("verification       {}{since}", status(row)))?;
    out.line(format_args!("checked            {}", or_dash(row.last_checked.map(time))))?;
    if let Some(problem) = &row.problem {
        out.line(format_args!("found              {problem}"))?;
    }
    let dkim = &row.dkim_attributes;
    let signing = if dkim.signing_enabled { &dkim.status } else { "off" };
    out.line(format_args!("DKIM               {signing} ({})", dkim.signing_attributes_origin))?;
    if let Some(own) = &row.mail_from_attributes {
        out.line(format_args!("MAIL FROM          {}", own.mail_from_domain))?;
        out.line(format_args!("                   {}, otherwise {}", own.mail_from_domain_status, otherwise(own)))?;
        if let Some(problem) = &own.problem {
            out.line(format_args!("                   {problem}"))?;
        }
    }
    out.line(format_args!("configuration set  {}", or_dash(row.configuration_set_name.as_ref())))?;
    for tag in &row.tags {
        out.line(format_args!("tag                {}={}", tag.key, tag.value))?;
    }
    if row.records.is_empty() {
        return Ok(());
    }
    out.line("\nTo publish:\n")?;
    row.records.iter().try_for_each(|record| {
        out.line(format_args!("; {}", record.why))?;
        let (name, kind, value) = (&record.name, record.data.kind(), record.data.presentation());
        out.line(format_args!("{name}. {} IN {kind} {value}", record.ttl))
    })
}

fn status(row: &IdentityRow) -> String {
    if row.trusted { "trusted".to_owned() } else { row.verification_status.clone() }
}

fn otherwise(own: &postrider_control::MailFromAttributes) -> &'static str {
    match own.behavior_on_mx_failure.as_str() {
        "REJECT_MESSAGE" => "mail is refused",
        _ => "mail leaves with the return path that it would have without",
    }
}
