//! The milter protocol, version 6, as a mail server speaks it: one message is shown to one
//! filter, which says what is to become of it.
//!
//! There is no official text of it; libmilter and what Sendmail and Postfix do are the
//! reference. [`Session`] is the machine for one message, [`ask`] drives it over a connection.

mod changes;
mod client;
mod packet;
mod reply;
mod session;

pub use changes::{Changes, HeaderChange};
pub use client::ask;
pub use packet::{Fault, MAX_PACKET, Packet, PacketParser};
pub use reply::{Actions, Protocol, Reply};
pub use session::{FAREWELL, Letter, Macro, Next, Session, Step, Verdict};
