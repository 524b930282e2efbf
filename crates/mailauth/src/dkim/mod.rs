//! DKIM keys and signatures (RFC 6376, RFC 8301, RFC 8463).
//!
//! Signing is `c=relaxed/simple`: gateways re-fold header fields, so the header is taken
//! relaxedly; nobody may touch the body, so the body is taken as it is.
//!
//! The canonical forms and the field are written here, the operations on keys are aws-lc's.
//! `mail-auth`, which verifies for us, does not sign: it takes a form feed for a space and a
//! lone line feed for a line end, which RFC 6376 section 3.4 does not, reads the system's
//! clock, and now and then folds before the last semicolon, where dkimpy stumbles.

mod canonical;
mod key;
mod pem;
mod seal;
mod sign;

pub use postrider_mail::{DkimAlgorithm as Algorithm, Selector, SelectorError};

pub use key::{KeyError, MAX_RSA_BITS, MIN_RSA_BITS, PrivateKey, PublicKey};
pub use seal::{SealError, Sealing};
pub use sign::{Digested, SignError, Signer};
