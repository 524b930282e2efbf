//! An MX of our own behind a built-in route: it accepts mail for one domain and
//! shows it, or it is the mailbox simulator, whose mailboxes take or refuse mail
//! as SES's do. It does not deliver: what the simulator's mailboxes write back
//! ([`Answer`]) is sent elsewhere.
//!
//! An [`Inbox`] speaks SMTP on any stream: over a loopback listener
//! ([`Inbox::serve`]) or, without a socket, as the [`InboxDialer`] of whoever
//! would dial it.

mod answer;
mod dialer;
mod inbox;
mod session;
mod settings;

pub use answer::Answer;
pub use dialer::InboxDialer;
pub use inbox::{Arrived, Inbox};
pub use settings::Settings;
