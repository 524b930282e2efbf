//! The real daemon in front of remotes as they are: broken, hostile, slow,
//! behind networks that fail; and real mail servers. Whatever they do, nothing
//! crashes, hangs, is injected, is lost, or leaves in clear that had to be
//! encrypted; and nobody else's mail waits for it.

mod conduct;
mod dane;
mod encryption;
mod hostile;
mod networks;
mod receivers;
mod sources;
mod sts;
mod world;

use std::error::Error;

type Outcome = Result<(), Box<dyn Error>>;
