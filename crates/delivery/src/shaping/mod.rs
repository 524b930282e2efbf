//! How much mail goes where at which pace, and what follows from what hosts
//! say: own code in simulated time, because it must explain itself.
//!
//! - `Shaping`: limits and feedback rules, read from the built-in
//!   `etc/shaping.toml` and from the operator's file; pure data.
//! - `Governor`: the state while the relay runs. Limits hold for the sum of
//!   a provider's sites, then for the sum of a site's lanes.
//! - `Gate`: what one lane sees of it.

mod bucket;
mod desk;
mod feedback;
mod file;
mod gate;
mod governor;
mod look;
mod orders;
mod pacer;
mod pause;
mod rate;
mod retry_after;
mod rules;
mod seats;
#[cfg(test)]
mod tests;
mod throttle;
mod view;

pub use desk::PauseRequest;
pub use view::{FeedbackView, PauseView, ProviderView, ReplyView, RuleView, ShapingView, SiteShaping, StateView};

pub(crate) use gate::{Action, FAIR_TURN, Gate, Heard, Permit, Turn};
pub(crate) use governor::Governor;
pub(crate) use look::{Bounds, GateLook};
pub(crate) use pause::{Ended, Pause};
pub(crate) use rules::{Shaping, SiteRules};
