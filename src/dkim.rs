//! The DKIM keys of the node, and the file that opens them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use postrider_account::Accounts;
use postrider_base::{Clock, Disk, Period, Random};
use postrider_submission::{KeyRing, KeyRingDeps, Sealer};

use crate::config::Config;
use crate::state::StateDir;

const FILE: &str = "dkim-sealing.key";

/// Where systemd puts the credentials of a service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The keys in the account tables. A file that is not as it should be is an error of those
/// who want to use a key.
pub(crate) fn key_ring(
    config: &Config,
    state: &StateDir,
    disk: Arc<dyn Disk>,
    accounts: &Accounts,
    clock: &Clock,
    random: &Random,
) -> KeyRing {
    KeyRing::new(KeyRingDeps {
        accounts: accounts.clone(),
        sealer: Sealer::file(disk, sealing_key_file(config, state), random.clone()),
        clock: clock.clone(),
        random: random.clone(),
        max_open: config.dkim.max_open_keys as usize,
        retention: retention(config),
    })
}

/// Whether the daemon can open the keys.
///
/// # Errors
/// Why not, with every file that may be the one.
pub(crate) fn check(ring: &KeyRing, config: &Config, state: &StateDir) -> Result<()> {
    let own = state.room("keys").join(FILE);
    match ring.check() {
        Err(error) if own.exists() && sealing_key_file(config, state) != own => Err(anyhow!(
            "{error}. There is {} too: if commands that did not have the service's credential sealed the keys with it, \
             give the service that file, as its credential or in dkim.sealing_key_file",
            own.display()
        )),
        checked => Ok(checked?),
    }
}

fn sealing_key_file(config: &Config, state: &StateDir) -> PathBuf {
    if let Some(file) = &config.dkim.sealing_key_file {
        return file.clone();
    }
    let credential = std::env::var_os(CREDENTIALS).map(|directory| PathBuf::from(directory).join(FILE));
    credential.filter(|file| file.exists()).unwrap_or_else(|| state.room("keys").join(FILE))
}

/// For how long mail that was signed can be under way here, and a day for others.
fn retention(config: &Config) -> Duration {
    let here = config.submission.expiry.as_duration() + config.submission.max_hold.as_duration();
    here + Period::from_days(1).as_duration()
}
