//! `postrider serve`: starts the rooms in the order in which they need each other, keeps them
//! until a signal, and stops them in the other order.

mod daemon;
mod feedback;
mod reload;
mod running;
mod simulator;
mod supervisor;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use postrider_base::{Clock, Dialer, Metrics, TcpDialer};
use postrider_dns::{Cached, HickoryResolver, Resolver};
use tokio::runtime::Runtime;

pub(crate) use daemon::Daemon;

use crate::config::{self, Config};
use crate::logging::Logging;

/// What lies outside the process: the real one for `serve`, a smaller one for `quickstart`.
pub(crate) struct World {
    pub(crate) resolver: Arc<dyn Resolver>,
    /// What is behind it, where that validates answers.
    pub(crate) validating: Option<HickoryResolver>,
    pub(crate) dialer: Arc<dyn Dialer>,
    /// Destinations inside the process, by the name that routes give them.
    pub(crate) built_in: BTreeMap<String, Arc<dyn Dialer>>,
    /// Where the keys of TLS sessions are to be written, for debugging.
    pub(crate) tls_key_log: Option<PathBuf>,
}

pub(crate) fn run(file: Option<&Path>, tls_key_log: Option<PathBuf>) -> Result<()> {
    let (file, config) = config::find(file)?;
    let logging = Logging::start(&config.log)?;
    runtime(&config)?.block_on(async {
        let metrics = Metrics::new();
        let world = World { tls_key_log, ..World::real(&config, &metrics)? };
        Daemon::start(file, config, logging, metrics, world).await?.run().await
    })
}

/// The threads that everything but the logs runs on.
pub(crate) fn runtime(config: &Config) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.server.threads {
        builder.worker_threads(threads);
    }
    builder.thread_name("postrider").enable_all().build().context("cannot start the runtime's threads")
}

impl World {
    fn real(config: &Config, metrics: &Metrics) -> Result<World> {
        let resolver = HickoryResolver::new(&config.dns, metrics).context("cannot set up name resolution")?;
        Ok(World {
            validating: Some(resolver.clone()),
            resolver: Arc::new(Cached::new(resolver, Clock::system(), metrics.clone(), &config.dns)),
            dialer: Arc::new(TcpDialer),
            built_in: BTreeMap::new(),
            tls_key_log: None,
        })
    }
}
