//! What both sides of the wire share: lines, commands, replies, and the
//! framing of message content.

mod chunk;
mod command;
mod content;
mod data;
mod line;
mod parameters;
mod path;
mod reply;
mod stuffing;
mod text;
mod values;
mod xtext;

pub use chunk::ChunkDecoder;
pub use command::{Command, CommandError};
pub use content::ContentBuilder;
pub use data::{DataDecoder, DataProgress};
pub use line::{Line, LineReader};
pub use parameters::{Extensions, HoldUntil, MailRequest, RcptRequest};
pub use reply::{BadReply, ReplyParser, encode_reply};
pub use stuffing::stuff;
pub use text::{BareLineFeed, ContentFault};
pub use xtext::{decode_xtext, encode_utf8_address, encode_xtext};
