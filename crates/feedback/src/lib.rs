//! What comes back after a remote host has taken a message: bounces, complaints, automatic
//! replies. It listens on no socket: it is asked at each RCPT and handed whole messages, finds
//! the message and the recipient that they are about, has that journaled, and passes on what
//! the sender should see. What it says of a bounce is delivery's classification of replies.
//!
//! Whom to believe: anybody can write to a public mail exchanger. A bounce counts only when it
//! came to a return path that [`postrider_submission::ReturnPaths`] wrote, which nobody can
//! make up; a complaint also when one is in the message that it returns, or our Message-ID
//! together with one of that message's recipients.

mod automatic;
mod complaint;
mod feedback;
mod fields;
mod finding;
mod mailbox;
mod notice;
mod original;
mod parts;
mod pass_on;
mod plain;
mod report;
mod settings;
mod status;
mod take;
mod tell;
mod told;

pub use complaint::ComplaintReport;
pub use feedback::{Arrived, Feedback, FeedbackOptions, FeedbackRules};
pub use finding::{Finding, Ours};
pub use mailbox::Mailbox;
pub use original::Original;
pub use report::{Reading, Report, read};
pub use settings::Settings;
pub use status::{Action, StatusRecipient, StatusReport};
