//! Fuzz targets: what must hold for whatever strangers send. Not tests by
//! themselves: libFuzzer calls them with inputs that it grows from coverage
//! (`cargo xtask fuzz`), and a test calls them with seeded ones.
//!
//! Each function takes any bytes and panics when its promise is broken. The
//! first bytes of an input steer the target (where to cut, which options), so
//! that the fuzzer decides about those too.

mod feedback;
mod filter;
mod header;
mod mailauth;
mod mime;
mod policy;
mod sasl;
mod session;
mod steering;
mod wire;

pub use feedback::feedback;
pub use filter::{clamd, milter};
pub use header::header;
pub use mailauth::{report, results};
pub use mime::mime;
pub use policy::policy;
pub use sasl::sasl;
pub use session::{conversation, session};
pub use wire::{chunk, command, content, reply};

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets; each has a folder of seeds of its name under `corpus/` and a
/// program `fuzz-NAME`.
pub const TARGETS: [Target; 15] = [
    ("chunk", chunk),
    ("clamd", clamd),
    ("command", command),
    ("content", content),
    ("conversation", conversation),
    ("feedback", feedback),
    ("header", header),
    ("milter", milter),
    ("mime", mime),
    ("policy", policy),
    ("reply", reply),
    ("report", report),
    ("results", results),
    ("sasl", sasl),
    ("session", session),
];
