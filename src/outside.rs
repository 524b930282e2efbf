//! What operations look at the world with.

use std::path::PathBuf;
use std::sync::Arc;

use postrider_base::{Clock, Dialer, Metrics, RealDisk, TcpDialer};
use postrider_control::World;
use postrider_dns::{HickoryResolver, Resolver};
use postrider_submission::ReturnPaths;

use crate::config::Config;
use crate::state::StateDir;

/// Where the listeners keep the certificate that they make where none is configured.
const SELF_SIGNED: &str = "self-signed.pem";

/// Through a daemon's resolver and dialer, or through new ones where none runs.
pub(crate) fn world(
    config: &Config,
    state: &StateDir,
    clock: &Clock,
    return_paths: Option<ReturnPaths>,
    daemon: Option<(Arc<dyn Resolver>, Arc<dyn Dialer>)>,
) -> World {
    let (resolver, dialer) = match daemon {
        Some((resolver, dialer)) => (Ok(resolver), dialer),
        None => {
            let resolver = HickoryResolver::new(&config.dns, &Metrics::new()).map_err(|error| error.to_string());
            let dialer: Arc<dyn Dialer> = Arc::new(TcpDialer);
            (resolver.map(|resolver| Arc::new(resolver) as Arc<dyn Resolver>), dialer)
        }
    };
    World {
        resolver,
        dialer,
        clock: clock.clone(),
        disk: Arc::new(RealDisk),
        doctor: config.doctor.clone(),
        upkeep: config.upkeep.clone(),
        operator_domain: config.server.operator_domain.as_ref().and_then(|domain| domain.parse().ok()),
        operator_signature: config.dkim.operator_signature,
        submission: config.submission(),
        return_paths,
        feedback: config.feedback.clone(),
        delivery: config.delivery(),
        certificates: certificates(config, state),
        min_free: config.spool.min_free_bytes.bytes(),
    }
}

fn certificates(config: &Config, state: &StateDir) -> Vec<PathBuf> {
    let made = || Some(state.room("keys").join(SELF_SIGNED)).filter(|path| path.exists());
    let first = config.tls.certificate.clone().or_else(made);
    first.into_iter().collect()
}
