//! `postrider config`.

use std::path::Path;

use anyhow::Result;
use postrider_base::Clock;

use crate::cli::ConfigCommand;
use crate::config::{self, Config, ConfigError, reference};
use crate::output::Output;

pub(crate) fn run(command: &ConfigCommand, file: Option<&Path>, out: &mut Output) -> Result<()> {
    match command {
        ConfigCommand::Check => {
            let (file, config) = config::find(file)?;
            let warnings = certificates(&file, &config)?;
            if out.json() {
                return out.json_line(&serde_json::json!({ "file": file, "ok": true, "warnings": warnings }));
            }
            warnings.iter().try_for_each(|warning| out.line(format_args!("warning: {warning}")))?;
            out.line(format_args!("{}: right", file.display()))
        }
        ConfigCommand::Show => {
            let (_, config) = config::find(file)?;
            if out.json() { out.json_document(&config) } else { out.raw(config.to_toml()?.as_bytes()) }
        }
        ConfigCommand::Reference => out.raw(reference::markdown().as_bytes()),
    }
}

/// Opens what the daemon would open.
fn certificates(file: &Path, config: &Config) -> Result<Vec<String>, ConfigError> {
    let now = Clock::system().now();
    let warnings = postrider_listener::check_certificates(&config.tls, &config.listener, now)
        .map_err(|error| ConfigError::about(file, format!("tls: {error}")))?;
    let say = |warning: postrider_listener::CertificateWarning| {
        let verb = if warning.expired { "expired" } else { "expires" };
        format!("the certificate in {} {verb} at {}", warning.file.display(), warning.expires.rfc3339())
    };
    Ok(warnings.into_iter().map(say).collect())
}
