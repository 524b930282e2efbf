//! The settings in force, made ready for use.

use std::collections::BTreeMap;
use std::sync::Arc;

use postrider_base::{Clock, Dialer};
use postrider_smtp::{Credentials, Timeouts};

use crate::Error;
use crate::route::RouteTable;
use crate::schedule::RetrySchedule;
use crate::settings::{Settings, Smarthost};
use crate::smarthost::section;
use crate::target::Target;
use crate::tls::{Authorities, TlsClient};

/// The settings in force. Replaced as a whole when they change.
pub(crate) struct Config {
    /// Counts the changes.
    pub(crate) generation: u64,
    pub(crate) settings: Settings,
    pub(crate) routes: RouteTable,
    pub(crate) schedule: RetrySchedule,
    pub(crate) tls: TlsClient,
    pub(crate) ehlo_name: String,
    /// By the names that routes give them.
    pub(crate) smarthosts: BTreeMap<String, Arc<Target>>,
    pub(crate) timeouts: Timeouts,
}

impl Config {
    /// Checks `settings` and reads the files that they name.
    pub(crate) fn new(
        generation: u64,
        settings: Settings,
        hostname: &str,
        built_in: &BTreeMap<String, Arc<dyn Dialer>>,
        clock: &Clock,
    ) -> Result<Self, Error> {
        settings.validate().map_err(Error::Settings)?;
        let routes = settings.route_table().map_err(Error::Settings)?;
        if let Some(unknown) = routes.built_ins().find(|name| !built_in.contains_key(*name)) {
            let known = built_in.keys().map(|name| format!(", {name}:")).collect::<String>();
            return Err(Error::Settings(format!(
                "routes: expected mx:, smarthost:, hold:{known} or an address such as smtp://HOST:PORT, \
                 found \"{unknown}:\""
            )));
        }
        Ok(Self {
            generation,
            routes,
            schedule: RetrySchedule::new(&settings),
            tls: TlsClient::new(&settings, clock)?,
            ehlo_name: settings.ehlo_name.clone().unwrap_or_else(|| hostname.to_owned()),
            smarthosts: read_smarthosts(&settings)?,
            timeouts: timeouts(&settings),
            settings,
        })
    }
}

fn read_smarthosts(settings: &Settings) -> Result<BTreeMap<String, Arc<Target>>, Error> {
    let mut targets = BTreeMap::new();
    for (name, smarthost) in settings.all_smarthosts() {
        let (ca_key, password_key) = match name {
            "" => ("smarthost.ca_file", "smarthost.password_file"),
            _ => ("smarthosts.*.ca_file", "smarthosts.*.password_file"),
        };
        let authorities = match &smarthost.ca_file {
            Some(path) if smarthost.verify => Some(Authorities::read(ca_key, path)?),
            _ => None,
        };
        let credentials = read_credentials(password_key, smarthost)?;
        let target = Target::of_smarthost(&section(name), smarthost, authorities, credentials);
        targets.extend(target.map(|target| (name.to_owned(), Arc::new(target))));
    }
    Ok(targets)
}

fn read_credentials(key: &'static str, smarthost: &Smarthost) -> Result<Option<Credentials>, Error> {
    let (Some(user), Some(path)) = (&smarthost.user, &smarthost.password_file) else { return Ok(None) };
    let error = |reason: String| Error::File { key, path: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        return Err(error("expected the password on the first line".to_owned()));
    }
    Ok(Some(Credentials { user: user.clone(), password: password.to_owned() }))
}

fn timeouts(settings: &Settings) -> Timeouts {
    let timeouts = &settings.timeouts;
    Timeouts {
        banner: timeouts.banner.as_duration(),
        hello: timeouts.ehlo.as_duration(),
        mail: timeouts.mail.as_duration(),
        rcpt: timeouts.rcpt.as_duration(),
        data: timeouts.data.as_duration(),
        block: timeouts.data_block.as_duration(),
        content: timeouts.content.as_duration(),
        end: timeouts.end_of_data.as_duration(),
        reset: timeouts.reset.as_duration(),
    }
}
