//! What is looked at again and again: whether identities and MAIL FROM domains are what
//! their owners say, which keys are due for rotation, whose mail bounces too much, and what
//! the doctor finds. Slow work on the injected clock; nothing here stands in a message's way.

pub mod doctor;
mod error;
mod link;
mod look;
mod machine;
mod notices;
mod reputation;
mod rotation;
mod round;
mod settings;
#[cfg(test)]
mod tests;
mod upkeep;

pub use error::Error;
pub use link::LinkError;
pub use rotation::{Rotation, look_at_next};
pub use settings::Settings;
pub use upkeep::{Deps, Upkeep};
