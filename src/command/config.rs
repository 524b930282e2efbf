//! `postrider config`.

use std::path::Path;

use anyhow::Result;

use crate::cli::ConfigCommand;
use crate::config::{self, reference};
use crate::output::Output;

pub(crate) fn run(command: &ConfigCommand, file: Option<&Path>, out: &mut Output) -> Result<()> {
    match command {
        ConfigCommand::Check => {
            let (file, _) = config::find(file)?;
            if out.json() {
                return out.json_line(&serde_json::json!({ "file": file, "ok": true }));
            }
            out.line(format_args!("{}: right", file.display()))
        }
        ConfigCommand::Show => {
            let (_, config) = config::find(file)?;
            if out.json() { out.json_document(&config) } else { out.raw(config.to_toml()?.as_bytes()) }
        }
        ConfigCommand::Reference => out.raw(reference::markdown().as_bytes()),
    }
}
