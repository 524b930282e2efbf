//! DKIM keys and signatures (RFC 6376, RFC 8301, RFC 8463).
//!
//! Signing is `c=relaxed/simple`: gateways re-fold header fields, so the header is taken
//! relaxedly; nobody may touch the body, so the body is taken as it is. The canonical forms
//! are written here, because those of `mail-auth` take a form feed for a space and a lone
//! line feed for a line end, which is not what RFC 6376 section 3.4 says; the form of the
//! field is `mail-auth`'s, and the operations on keys are aws-lc's.

mod canonical;
mod key;
mod pem;
mod seal;
mod sign;

pub use postrider_mail::{DkimAlgorithm as Algorithm, Selector, SelectorError};

pub use key::{KeyError, MAX_RSA_BITS, MIN_RSA_BITS, PrivateKey, PublicKey};
pub use seal::{SealError, Sealing};
pub use sign::{Digested, SignError, Signer};
