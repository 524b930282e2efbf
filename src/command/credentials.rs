//! `postrider credentials`.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, bail};
use postrider_account::derive_smtp_password;
use postrider_control::{CredentialOperation, CredentialView, NewCredential, Operation, Response, Secret};
use secrecy::{ExposeSecret as _, SecretString};

use super::unexpected;
use crate::access::Access;
use crate::cli::{CredentialsCommand, OnOff};
use crate::output::{Output, time};

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
        CredentialsCommand::Create { label, overflow, sandbox, account } => CredentialOperation::Create {
            sandbox,
            account: access.account(account.account),
            label: label.unwrap_or_default(),
            recipient_overflow: overflow.into(),
        },
        CredentialsCommand::List => CredentialOperation::List,
        CredentialsCommand::Disable { user } => CredentialOperation::Disable { user_name: user },
        CredentialsCommand::Enable { user } => CredentialOperation::Enable { user_name: user },
        CredentialsCommand::Sandbox { user, sandbox } => {
            CredentialOperation::Sandbox { user_name: user, sandbox: sandbox == OnOff::On }
        }
        CredentialsCommand::Delete { user } => CredentialOperation::Delete { user_name: user },
        CredentialsCommand::Import { user, label, overflow, sandbox, account } => CredentialOperation::Import {
            sandbox,
            account: access.account(account.account),
            label: label.unwrap_or_default(),
            secret: Secret::new(
                secret_from_stdin("the SMTP password or secret access key")?.expose_secret().to_owned(),
            ),
            user_name: user,
            recipient_overflow: overflow.into(),
        },
        CredentialsCommand::Derive { .. } => unreachable!("deriving needs no node"),
    };
    match access.ask(Operation::Credentials(operation)).await? {
        Response::Changed { .. } if out.json() => out.json_line(&serde_json::json!({ "changed": 1 })),
        Response::Changed { .. } => out.line("done"),
        Response::Credential(credential) => show_new(&credential, out),
        Response::Credentials(credentials) => show_all(&credentials, out),
        other => unexpected(&other),
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

fn show_all(credentials: &[CredentialView], out: &mut Output) -> Result<()> {
    if out.json() {
        return out.json_document(credentials);
    }
    let rows = credentials.iter().map(|credential| {
        vec![
            credential.user_name.clone(),
            credential.account.to_string(),
            state(credential).to_owned(),
            time(credential.created),
            credential.label.clone(),
        ]
    });
    out.table(&["USER", "ACCOUNT", "STATE", "CREATED", "LABEL"], rows.collect(), "no credentials")
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
