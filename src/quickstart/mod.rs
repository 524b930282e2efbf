//! `postrider quickstart`: a whole relay on 127.0.0.1 that needs no root, no DNS and no
//! configuration, with an inbox of its own, so that the first mail visibly arrives.
//!
//! It cannot reach any other machine: nothing in it can open a connection or ask a name server.

mod lines;
mod setup;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use postrider_base::{Clock, Dialer, Metrics, Random, Scope, SimNet};
use postrider_dns::Zones;
use postrider_mail::Domain;
use postrider_simulator::{Inbox, InboxDialer};

use crate::cli::QuickstartArgs;
use crate::logging::Logging;
use crate::output::Output;
use crate::serve::{self, Daemon, World};

/// The domain whose mail the built-in inbox takes (RFC 2606 keeps `.test` free).
const INBOX_DOMAIN: &str = "inbox.test";

/// The domain that mail may be sent from at first (RFC 2606).
const SENDER_DOMAIN: &str = "example.com";

/// The name that routes give the inbox.
const INBOX: &str = "inbox";

pub(crate) fn run(args: &QuickstartArgs) -> Result<()> {
    let config = setup::config(args)?;
    let logging = Logging::start(&config.log)?;
    serve::runtime(&config)?.block_on(async {
        let scope = Scope::new("quickstart");
        let domain: Domain = INBOX_DOMAIN.parse().context("the inbox's domain is no domain")?;
        let inbox = Inbox::new(domain, postrider_simulator::Settings::default(), Clock::system(), Random::system());
        let world = enclosed(&inbox, &scope);
        let file = setup::config_file(&config);
        let daemon = Daemon::start(file.clone(), config.clone(), logging, Metrics::new(), world).await?;
        setup::save_config(&file, &config)?;
        let credential = setup::credential(&config, daemon.accounts()).await?;
        setup::identity(&config, daemon.accounts()).await?;
        let mut out = Output::new(false);
        lines::print(&config, args, &credential, &mut out)?;
        view::start(&daemon, &inbox, &scope, out);
        let result = daemon.run().await;
        scope.cancel();
        result
    })
}

/// A world with the inbox in it and nothing else.
fn enclosed(inbox: &Inbox, scope: &Scope) -> World {
    let nowhere: Arc<dyn Dialer> = Arc::new(SimNet::new());
    let address = (std::net::Ipv4Addr::LOCALHOST, 25).into();
    let dialer = InboxDialer::new(inbox.clone(), address, Arc::clone(&nowhere), scope.clone());
    let built_in: BTreeMap<String, Arc<dyn Dialer>> = [(INBOX.to_owned(), Arc::new(dialer) as Arc<dyn Dialer>)].into();
    World { resolver: Arc::new(Zones::new()), validating: None, dialer: nowhere, built_in, tls_key_log: None }
}
