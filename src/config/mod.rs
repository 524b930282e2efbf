//! The configuration: one file that nests the rooms' settings.

mod load;
pub(crate) mod reference;
mod server;

use std::path::{Path, PathBuf};

use anyhow::Result;
use postrider_listener::{Listen, ListenRole, TlsSettings};
use postrider_mail::{Domain, SES_SIMULATOR};
use postrider_mailauth::verify::VerificationSettings;
use postrider_submission::{DkimSettings, ReturnPath};
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use load::parse;
pub(crate) use load::{ConfigError, load};
pub(crate) use server::Server;

/// Where the configuration is unless the command line says otherwise: the installed one, then
/// the one that `postrider quickstart` leaves in the present directory.
const PLACES: [&str; 2] = ["/etc/postrider/postrider.toml", "./postrider-data/postrider.toml"];

/// The name that routes give the mailbox simulator.
pub(crate) const SIMULATOR: &str = "simulator";

/// Everything that an operator can choose.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) listener: Vec<Listen>,
    pub(crate) sessions: postrider_listener::Settings,
    pub(crate) tls: TlsSettings,
    pub(crate) submission: postrider_submission::Settings,
    pub(crate) dkim: DkimSettings,
    pub(crate) feedback: postrider_feedback::Settings,
    pub(crate) verification: VerificationSettings,
    pub(crate) account: postrider_account::Settings,
    pub(crate) bans: postrider_account::BanSettings,
    pub(crate) reputation: postrider_account::ReputationSettings,
    pub(crate) spool: postrider_spool::Settings,
    pub(crate) delivery: postrider_delivery::Settings,
    pub(crate) dns: postrider_dns::Settings,
    pub(crate) events: postrider_events::Settings,
    pub(crate) api: postrider_api::Settings,
    pub(crate) control: postrider_control::Settings,
    pub(crate) doctor: postrider_upkeep::doctor::Settings,
    pub(crate) upkeep: postrider_upkeep::Settings,
    pub(crate) log: crate::logging::Settings,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            server: Server::default(),
            listener: Listen::defaults(),
            sessions: Default::default(),
            tls: TlsSettings::default(),
            submission: Default::default(),
            dkim: Default::default(),
            feedback: Default::default(),
            verification: Default::default(),
            account: Default::default(),
            bans: Default::default(),
            reputation: Default::default(),
            spool: Default::default(),
            delivery: Default::default(),
            dns: Default::default(),
            events: Default::default(),
            api: Default::default(),
            control: Default::default(),
            doctor: Default::default(),
            upkeep: Default::default(),
            log: Default::default(),
        }
    }
}

impl Config {
    /// Checks what the types cannot; the error starts with the key's path.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let sections = [
            ("server", self.server.validate()),
            ("listener", Listen::validate(&self.listener)),
            ("sessions", self.sessions.validate()),
            ("tls", self.tls.validate()),
            ("submission", self.submission().validate()),
            ("dkim", self.dkim.validate()),
            ("feedback", self.feedback.validate()),
            ("verification", self.verification.validate()),
            ("account", self.account.validate()),
            ("bans", self.bans.validate()),
            ("reputation", self.reputation.validate()),
            ("spool", self.spool.validate()),
            ("delivery", self.delivery().validate()),
            ("dns", self.dns.validate()),
            ("events", self.events.validate()),
            ("api", self.api.validate()),
            ("control", self.control.validate()),
            ("doctor", self.doctor.validate()),
            ("upkeep", self.upkeep.validate()),
            ("log", self.log.validate()),
        ];
        for (section, result) in sections {
            result.map_err(|message| format!("{section}.{message}"))?;
        }
        let submission = self.submission();
        if self.has_feedback() {
            submission.return_path_domain().map_err(|error| format!("submission.{error}"))?;
        } else if submission.return_path == ReturnPath::Verp {
            let text = r#"bounces would come back to nobody: "verp" needs a [[listener]] with role = "feedback""#;
            return Err(format!("submission.return_path: {text}, and there is none"));
        }
        Ok(())
    }

    /// Whether bounces and complaints can come.
    pub(crate) fn has_feedback(&self) -> bool {
        self.listener.iter().any(|listen| listen.role == ListenRole::Feedback)
    }

    /// The rules of acceptance, with the names that the whole node shares.
    pub(crate) fn submission(&self) -> postrider_submission::Settings {
        postrider_submission::Settings {
            hostname: Some(self.server.hostname()),
            region: self.server.region.clone(),
            partition: self.server.partition.clone(),
            operator_domain: self.server.operator_domain.clone(),
            node: self.server.node.0,
            ..self.submission.clone()
        }
    }

    /// Bounds of account state, with the rules of bans and of reputation.
    pub(crate) fn account(&self) -> postrider_account::Settings {
        let (bans, reputation) = (self.bans.clone(), self.reputation.clone());
        postrider_account::Settings { bans, reputation, ..self.account.clone() }
    }

    /// How mail leaves, with the node's name in EHLO unless another is given; mail for the
    /// mailbox simulator stays here, unless a route of its own says otherwise.
    pub(crate) fn delivery(&self) -> postrider_delivery::Settings {
        let mut settings = self.delivery.clone();
        settings.ehlo_name.get_or_insert_with(|| self.server.hostname());
        let own = format!("simulator.{}", self.submission().operator_domain());
        // There is no domain below an address literal.
        for domain in [SES_SIMULATOR, &own].into_iter().filter(|domain| domain.parse::<Domain>().is_ok()) {
            settings.routes.entry(domain.to_owned()).or_insert_with(|| format!("{SIMULATOR}:"));
        }
        settings
    }

    /// The configuration as a file would say it.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

/// The configuration that a command means: the file named, or the first that is in its place.
pub(crate) fn find(named: Option<&Path>) -> Result<(PathBuf, Config), ConfigError> {
    let file = match named {
        Some(file) => file.to_owned(),
        None => {
            let mut places = PLACES.iter().map(PathBuf::from);
            places.find(|place| place.exists()).ok_or_else(|| {
                let text =
                    format!("there is no configuration: neither here nor in {}; name one with --config", PLACES[1]);
                ConfigError::about(Path::new(PLACES[0]), text)
            })?
        }
    };
    let config = load(&file)?;
    Ok((file, config))
}
