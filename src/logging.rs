//! The daemon's log on standard output.

use std::io::IsTerminal as _;

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

/// What the daemon logs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// How much is logged: error, warn, info, debug or trace, also by part.
    pub(crate) level: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { level: "info".to_owned() }
    }
}

/// Libraries that log whole answers of strangers, over many lines and many times
/// for one thing. What matters of it is logged by ourselves; they are heard when
/// the settings name them.
const QUIET: &str = "hickory_net=off,hickory_proto=off,hickory_resolver=off";

impl Settings {
    pub(crate) fn validate(&self) -> Result<(), String> {
        self.filter()
            .map(drop)
            .map_err(|error| format!("level: expected error, warn, info, debug or trace, or PART=LEVEL,...: {error}"))
    }

    fn filter(&self) -> Result<EnvFilter, ParseError> {
        EnvFilter::try_new(format!("{QUIET},{}", self.level))
    }
}

/// The handle that changes the level of a running daemon.
#[derive(Clone, Debug)]
pub(crate) struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Logging {
    /// Sends the process's log to standard output.
    pub(crate) fn start(settings: &Settings) -> Result<Logging> {
        let (filter, handle) = reload::Layer::new(settings.filter()?);
        let lines = fmt::layer().with_ansi(std::io::stdout().is_terminal());
        // journald stamps each line itself.
        let lines =
            if std::env::var_os("JOURNAL_STREAM").is_some() { lines.without_time().boxed() } else { lines.boxed() };
        tracing::subscriber::set_global_default(Registry::default().with(filter).with(lines))
            .context("the log was started twice")?;
        Ok(Logging { filter: handle })
    }

    /// Logs from now on as much as the settings say.
    pub(crate) fn reload(&self, settings: &Settings) -> Result<()> {
        let filter = settings.filter()?;
        self.filter.reload(filter).map_err(|error| anyhow!("cannot change the log level: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked() {
        let level = |level: &str| Settings { level: level.to_owned() }.validate();
        assert!(level("info,postrider_delivery=debug").is_ok());
        assert!(level("postrider=loud").unwrap_err().starts_with("level: "));
    }

    #[test]
    fn the_library_that_resolves_names_is_heard_only_when_it_is_named() {
        let hears = |level: &str| {
            let filter = Settings { level: level.to_owned() }.filter().unwrap();
            tracing::subscriber::with_default(Registry::default().with(filter), || {
                (
                    tracing::enabled!(target: "hickory_net::dnssec", tracing::Level::WARN),
                    tracing::enabled!(target: "postrider_dns::dnssec", tracing::Level::WARN),
                )
            })
        };
        assert_eq!(hears("info"), (false, true));
        assert_eq!(hears("debug"), (false, true));
        assert_eq!(hears("info,hickory_net=debug"), (true, true));
    }
}
