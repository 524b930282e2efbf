//! An MX of our own behind a built-in route: it accepts mail for one domain and
//! shows it, or it is the mailbox simulator, whose mailboxes take or refuse mail
//! as SES's do. It does not deliver; what the simulator's mailboxes say
//! afterwards is made elsewhere.
//!
//! An [`Inbox`] speaks SMTP on any stream: over a loopback listener
//! ([`Inbox::serve`]) or, without a socket, as the [`InboxDialer`] of whoever
//! would dial it.

mod dialer;
mod inbox;
mod session;
mod settings;

pub use dialer::InboxDialer;
pub use inbox::{Arrived, Inbox};
pub use settings::Settings;
