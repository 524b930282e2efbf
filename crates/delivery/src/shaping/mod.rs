//! How much mail goes where at which pace, and what follows from what hosts
//! say: own code in simulated time, because it must explain itself.
//!
//! - [`rules::Shaping`]: limits and feedback rules, read from the built-in
//!   `etc/shaping.toml` and from the operator's file; pure data.
//! - [`Governor`]: the state while the relay runs. Limits hold for the sum of
//!   a provider's sites, then for the sum of a site's lanes.
//! - [`Gate`]: what one lane sees of it.

mod bucket;
mod feedback;
mod file;
mod gate;
mod governor;
mod orders;
mod pacer;
mod pause;
mod rate;
mod retry_after;
mod rules;
mod seats;
mod throttle;

pub(crate) use file::{OnBlock, TlsMinimum};
pub(crate) use gate::{Action, Gate, Heard, Permit};
pub(crate) use governor::Governor;
pub(crate) use orders::Order;
pub(crate) use pause::Pause;
pub(crate) use rules::{Shaping, SiteRules};
