//! `postrider credentials`.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, bail};
use postrider_account::{CredentialOption, RecipientOverflow, derive_smtp_password};
use postrider_control::{
    CredentialOperation, CredentialRequest, CredentialView, NewCredential, Operation, Response, Secret,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::unexpected;
use crate::access::Access;
use crate::cli::{CredentialOptions, CredentialWishes, CredentialsCommand, OnOff};
use crate::output::{Output, or_dash, time};

/// Where the secret may come from instead of stdin.
const SECRET_VARIABLE: &str = "POSTRIDER_SECRET_ACCESS_KEY";

/// More than any secret has; a whole file piped in by mistake is not read.
const MAX_SECRET: u64 = 4096;

/// Prints the SMTP password alone, for scripts.
pub(crate) fn derive(region: &str, out: &mut Output) -> Result<()> {
    let secret = match std::env::var(SECRET_VARIABLE) {
        Ok(secret) if !secret.trim().is_empty() => SecretString::from(secret.trim()),
        _ => secret_from_stdin("the secret access key")?,
    };
    let password = derive_smtp_password(&secret, region);
    if out.json() {
        return out.json_line(&serde_json::json!({ "smtp_password": password.expose_secret() }));
    }
    out.line(password.expose_secret())
}

pub(crate) async fn run(command: CredentialsCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    let operation = match command {
        CredentialsCommand::Create { wishes } => CredentialOperation::Create(wishes.into_request(access)),
        CredentialsCommand::List => return list(access, out).await,
        CredentialsCommand::Show { user } => CredentialOperation::Show { user_name: user },
        CredentialsCommand::Set { user, options } => {
            CredentialOperation::Set { user_name: user, options: options.changes() }
        }
        CredentialsCommand::Disable { user } => CredentialOperation::Disable { user_name: user },
        CredentialsCommand::Enable { user } => CredentialOperation::Enable { user_name: user },
        CredentialsCommand::Sandbox { user, sandbox } => {
            CredentialOperation::Set { user_name: user, options: vec![CredentialOption::Sandbox(sandbox == OnOff::On)] }
        }
        CredentialsCommand::Delete { user } => CredentialOperation::Delete { user_name: user },
        CredentialsCommand::Import { user, wishes } => CredentialOperation::Import {
            secret: Secret::new(
                secret_from_stdin("the SMTP password or secret access key")?.expose_secret().to_owned(),
            ),
            user_name: user,
            request: wishes.into_request(access),
        },
        CredentialsCommand::Derive { .. } => unreachable!("deriving needs no node"),
    };
    match access.ask(Operation::Credentials(operation)).await? {
        Response::Changed { .. } if out.json() => out.json_line(&serde_json::json!({ "changed": 1 })),
        Response::Changed { .. } => out.line("done"),
        Response::Credential(credential) => show_new(&credential, out),
        Response::Credentials(credentials) if out.json() => out.json_document(&credentials.first()),
        Response::Credentials(credentials) => credentials.iter().try_for_each(|credential| show(credential, out)),
        other => unexpected(&other),
    }
}

impl CredentialWishes {
    fn into_request(self, access: &Access) -> CredentialRequest {
        CredentialRequest {
            account: access.account(self.account.account),
            label: self.label.unwrap_or_default(),
            recipient_overflow: self.overflow.into(),
            sandbox: self.sandbox,
            daily_quota: self.daily_quota,
            max_rate: self.max_rate,
        }
    }
}

impl CredentialOptions {
    fn changes(self) -> Vec<CredentialOption> {
        let all = [
            self.label.map(CredentialOption::Label),
            self.overflow.map(|overflow| CredentialOption::RecipientOverflow(overflow.into())),
            self.sandbox.map(|sandbox| CredentialOption::Sandbox(sandbox == OnOff::On)),
            self.daily_quota.map(|quota| CredentialOption::DailyQuota(Some(quota))),
            self.no_daily_quota.then_some(CredentialOption::DailyQuota(None)),
            self.max_rate.map(|rate| CredentialOption::MaxRate(Some(rate))),
            self.no_max_rate.then_some(CredentialOption::MaxRate(None)),
        ];
        all.into_iter().flatten().collect()
    }
}

fn show_new(credential: &NewCredential, out: &mut Output) -> Result<()> {
    if out.json() {
        return out.json_document(credential);
    }
    out.line(format_args!("user name:          {}", credential.user_name))?;
    if let Some(password) = &credential.smtp_password {
        out.line(format_args!("SMTP password:      {}", password.expose()))?;
    }
    if let Some(secret) = &credential.secret_access_key {
        out.line(format_args!("secret access key:  {}", secret.expose()))?;
        out.line("\nThe two secrets are shown now and never again; they are kept nowhere.")?;
    }
    Ok(())
}

async fn list(access: &mut Access, out: &mut Output) -> Result<()> {
    let mut credentials: Vec<CredentialView> = Vec::new();
    let mut take = |response| match response {
        Response::Credentials(page) => {
            credentials.extend(page);
            Ok(())
        }
        other => unexpected(&other),
    };
    access.each(Operation::Credentials(CredentialOperation::List), &mut take).await?;
    if out.json() {
        return out.json_document(&credentials);
    }
    let rows = credentials.iter().map(|credential| {
        vec![
            credential.user_name.clone(),
            credential.account.to_string(),
            state(credential).to_owned(),
            credential.sent_last_24_hours.to_string(),
            or_dash(credential.daily_quota),
            or_dash(credential.max_rate),
            time(credential.created),
            credential.label.clone(),
        ]
    });
    let header = ["USER", "ACCOUNT", "STATE", "SENT IN 24 H", "A DAY", "A SECOND", "CREATED", "LABEL"];
    out.table(&header, rows.collect(), "no credentials")
}

fn show(credential: &CredentialView, out: &mut Output) -> Result<()> {
    let overflow = match credential.recipient_overflow {
        RecipientOverflow::Reject => "the message is refused",
        RecipientOverflow::Defer => "the recipients beyond are put off",
    };
    let sent = credential.sent_last_24_hours;
    out.line(format_args!("user name       {}", credential.user_name))?;
    out.line(format_args!("account         {}", credential.account))?;
    out.line(format_args!("label           {}", credential.label))?;
    out.line(format_args!("state           {}", state(credential)))?;
    out.line(format_args!("region          {}", credential.region))?;
    out.line(format_args!("created         {}", time(credential.created)))?;
    out.line(format_args!("in 24 hours     {}, {sent} sent", or_dash(credential.daily_quota)))?;
    out.line(format_args!("a second        {}", or_dash(credential.max_rate)))?;
    out.line(format_args!("over the bound  {overflow}"))
}

fn state(credential: &CredentialView) -> &'static str {
    match (credential.disabled, credential.sandbox) {
        (true, _) => "disabled",
        (false, true) => "sandbox",
        (false, false) => "enabled",
    }
}

/// Secrets never come from the command line, where every user of the machine sees them.
#[expect(clippy::print_stderr, reason = "the prompt must not mix with the password on stdout")]
fn secret_from_stdin(what: &str) -> Result<SecretString> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("type {what}, then Enter and Ctrl-D:");
    }
    let mut text = String::new();
    stdin.take(MAX_SECRET).read_to_string(&mut text).with_context(|| format!("cannot read {what} from stdin"))?;
    let secret = text.trim();
    if secret.is_empty() {
        bail!("expected {what} on stdin");
    }
    if secret.contains(char::is_whitespace) {
        bail!("expected {what} alone on stdin, found several words");
    }
    Ok(SecretString::from(secret))
}
