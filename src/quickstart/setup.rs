//! What quickstart keeps in its directory: the state, a configuration file for the other
//! commands, and the one credential.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use postrider_account::{Accounts, Identity, IdentityName, NewCredential, RecipientOverflow};
use postrider_listener::{Listen, ListenAddress, ListenTls};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::{INBOX, INBOX_DOMAIN, SENDER_DOMAIN};
use crate::cli::QuickstartArgs;
use crate::config::Config;

/// The longest path of a socket that the kernel takes, with room for the name under which it is made.
const MAX_SOCKET_PATH: usize = 100;

/// The one credential, as the lines to paste need it. Only quickstart ever keeps a secret in a file.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Credential {
    pub(crate) user_name: String,
    pub(crate) smtp_password: String,
    pub(crate) secret_access_key: String,
}

/// The configuration that quickstart runs with.
pub(crate) fn config(args: &QuickstartArgs) -> Result<Config> {
    let dir = absolute(&args.dir).with_context(|| format!("cannot use {}", args.dir.display()))?;
    let mut config = Config::default();
    config.server.hostname = Some("localhost".to_owned());
    config.server.state_dir = dir.clone();
    config.listener =
        vec![listen(args.starttls_port, ListenTls::StartTls), listen(args.wrapper_port, ListenTls::TlsWrapper)];
    config.api.listen = None;
    config.control.socket = socket_path(&dir, &args.dir);
    config.delivery.routes.insert(INBOX_DOMAIN.to_owned(), format!("{INBOX}:"));
    config.delivery.routes.insert("*".to_owned(), "hold:".to_owned());
    // The live view is what there is to see; that the certificate is self-signed is said there.
    config.log.level = "warn,mail=off,postrider_listener::tls=error".to_owned();
    Ok(config)
}

/// On loopback alone: what is not reachable needs no firewall.
fn listen(port: u16, tls: ListenTls) -> Listen {
    let address = ListenAddress::One((Ipv4Addr::LOCALHOST, port).into());
    Listen::on(address, tls)
}

/// Where the other commands find the configuration.
pub(crate) fn config_file(config: &Config) -> PathBuf {
    config.server.state_dir.join("postrider.toml")
}

pub(crate) fn save_config(file: &Path, config: &Config) -> Result<()> {
    let text = format!("# Written by `postrider quickstart` at each start.\n\n{}", config.to_toml()?);
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The credential of the last start, if the node still knows it, or a new one.
pub(crate) async fn credential(config: &Config, accounts: &Accounts) -> Result<Credential> {
    let file = config.server.state_dir.join("credential.toml");
    let kept: Option<Credential> = fs::read_to_string(&file).ok().and_then(|text| toml::from_str(&text).ok());
    if let Some(kept) = kept
        && accounts.credentials().authenticate(&kept.user_name, kept.smtp_password.as_bytes()).is_ok()
    {
        return Ok(kept);
    }
    let wanted = NewCredential {
        account: config.server.account,
        label: "quickstart".to_owned(),
        region: config.server.region.clone(),
        recipient_overflow: RecipientOverflow::Defer,
        ..NewCredential::default()
    };
    let issued = accounts.credentials().create(wanted).await?;
    let credential = Credential {
        user_name: issued.credential.user_name,
        smtp_password: issued.smtp_password.expose_secret().to_owned(),
        secret_access_key: issued.secret_access_key.expose_secret().to_owned(),
    };
    save_private(&file, &toml::to_string(&credential)?).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(credential)
}

/// The identity that the lines to paste send from. Nothing leaves, so nobody need prove it.
pub(crate) async fn identity(config: &Config, accounts: &Accounts) -> Result<()> {
    let (account, name) = (config.server.account, SENDER_DOMAIN.parse::<IdentityName>()?);
    if accounts.identities().find(account, &name).is_none() {
        let identity = Identity { trusted: true, ..Identity::new(account, name) };
        accounts.identities().create(identity).await?;
    }
    Ok(())
}

fn save_private(file: &Path, text: &str) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes())
}

/// The directory itself need not be there yet.
fn absolute(dir: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(dir)?;
    Ok(absolute.components().collect())
}

/// A deep directory makes a path that no socket can have; from there the relative one still works.
fn socket_path(absolute: &Path, given: &Path) -> PathBuf {
    const NAME: &str = "control.sock";
    let path = absolute.join(NAME);
    if path.as_os_str().len() <= MAX_SOCKET_PATH { path } else { given.join(NAME) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &str) -> QuickstartArgs {
        QuickstartArgs { dir: PathBuf::from(dir), starttls_port: 2587, wrapper_port: 2465 }
    }

    #[test]
    fn the_configuration_is_right_and_leads_nowhere_else() {
        let config = config(&args("/tmp/x")).unwrap();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.delivery.routes["*"], "hold:");
        assert_eq!(config.control.socket, Path::new("/tmp/x/control.sock"));
        let text = config.to_toml().unwrap();
        assert_eq!(crate::config::parse(&text, Path::new("x")).unwrap(), config);
    }

    #[test]
    fn deep_directories_get_a_relative_socket() {
        let deep = format!("/{}", "d/".repeat(60));
        assert_eq!(socket_path(Path::new(&deep), Path::new("./data")), Path::new("./data/control.sock"));
    }
}
