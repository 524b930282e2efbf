//! `postrider policy`.

use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use postrider_account::PolicyOwner;
use postrider_control::{Operation, PolicyOperation, PolicyRow, PolicyTest, PolicyTestRequest, PolicyWords, Response};

use super::unexpected;
use crate::access::Access;
use crate::cli::{OwnerArgs, PolicyCommand, PolicyTestArgs};
use crate::output::Output;

/// What is read of a file: more than a policy may have, so that what is too long is refused
/// for that.
const MAX_FILE: u64 = 64 << 10;

pub(crate) async fn run(command: PolicyCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    type Of = PolicyCommand;
    type To = PolicyOperation;
    let in_full = matches!(command, Of::Show { .. });
    let operation = match command {
        Of::Put { owner: attached, name, file } => {
            let text = read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            To::Put { owner: owner(attached, access)?, name, text }
        }
        Of::List { owner: attached } => To::List { owner: owner(attached, access)? },
        Of::Show { owner: attached, name } => To::Show { owner: owner(attached, access)?, name },
        Of::Delete { owner: attached, name } => To::Delete { owner: owner(attached, access)?, name },
        Of::Test(arguments) => To::Test(Box::new(request(*arguments))),
    };
    match access.ask(Operation::Policies(operation)).await? {
        Response::Policies(rows) if in_full && out.json() => out.json_document(&rows.first()),
        Response::Policies(rows) if out.json() => out.json_document(&rows),
        Response::Policies(rows) if in_full => {
            rows.iter().try_for_each(|row| out.line(row.text.trim_end_matches(['\r', '\n'])))
        }
        Response::Policies(rows) => list(&rows, out),
        Response::PolicyTest(test) if out.json() => out.json_document(&test),
        Response::PolicyTest(test) => show_test(&test, out),
        Response::Changed { count } if out.json() => out.json_line(&serde_json::json!({ "changed": count })),
        Response::Changed { .. } => out.line("done"),
        other => unexpected(&other),
    }
}

fn owner(arguments: OwnerArgs, access: &Access) -> Result<PolicyOwner> {
    let account = access.account(arguments.account.account);
    match arguments.owner(account) {
        Some(owner) => Ok(owner),
        None => bail!("name what the policy is attached to, by --credential or --identity"),
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    match file.as_os_str() == "-" {
        true => io::stdin().take(MAX_FILE).read_to_string(&mut text)?,
        false => std::fs::File::open(file)?.take(MAX_FILE).read_to_string(&mut text)?,
    };
    Ok(text)
}

fn request(arguments: PolicyTestArgs) -> PolicyTestRequest {
    let PolicyTestArgs { credential, from, name, to, return_path, ip, at, plain, source_arn } = arguments;
    PolicyTestRequest { credential, from, name, to, return_path, ip, at, is_secure: !plain, source_arn }
}

fn list(rows: &[PolicyRow], out: &mut Output) -> Result<()> {
    let rows = rows.iter().map(|row| vec![row.name.clone(), row.text.len().to_string()]);
    out.table(&["POLICY", "BYTES"], rows.collect(), "no policies")
}

fn show_test(test: &PolicyTest, out: &mut Output) -> Result<()> {
    for decision in &test.decisions {
        out.line(&decision.resource)?;
        out.line(format_args!("  credential  {}", words(&decision.credential, "it has no policies, and may do all")))?;
        out.line(format_args!("  identity    {}", words(&decision.identity, "no policy denies it")))?;
    }
    match &test.reply {
        Some(reply) => out.line(format_args!("refused: {reply}")),
        None => out.line("allowed"),
    }
}

/// `silent` says what it means that nothing is said.
fn words(words: &PolicyWords, silent: &str) -> String {
    let sid =
        words.sid.as_ref().map(|sid| format!(" ({})", postrider_mail::sanitize_text(sid, 64))).unwrap_or_default();
    let of = words.of.as_ref().map(|of| format!(" of {of}")).unwrap_or_default();
    let by = || match (&words.policy, words.statement) {
        (Some(policy), Some(number)) => format!("by statement {number}{sid} of policy {policy}{of}"),
        _ => "by a policy".to_owned(),
    };
    match words.verdict.as_str() {
        "allow" => format!("allowed {}", by()),
        "deny" => format!("denied {}", by()),
        "no-match" => "denied: no statement allows it".to_owned(),
        _ => format!("allowed: {silent}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_name_what_decided() {
        let by = |verdict: &str, of: Option<&str>, sid: Option<&str>| PolicyWords {
            verdict: verdict.to_owned(),
            of: of.map(str::to_owned),
            policy: Some("staff".to_owned()),
            statement: Some(2),
            sid: sid.map(str::to_owned),
        };
        let said = |said: &PolicyWords| words(said, "nothing is said");
        assert_eq!(said(&by("allow", None, None)), "allowed by statement 2 of policy staff");
        let denied = by("deny", Some("example.com"), Some("No\nMail"));
        assert_eq!(said(&denied), "denied by statement 2 (No?Mail) of policy staff of example.com");
        let nothing = |verdict: &str| PolicyWords { verdict: verdict.to_owned(), ..PolicyWords::default() };
        assert_eq!(said(&nothing("no-match")), "denied: no statement allows it");
        assert_eq!(said(&nothing("silent")), "allowed: nothing is said");
    }
}
