//! Mail authentication: DKIM keys and signatures, checks of what comes in (SPF, DKIM,
//! DMARC, ARC), reports of others about our domains, and the records that a domain should
//! publish. It asks DNS through [`postrider_dns::Resolver`] alone, keeps nothing durable,
//! and decides nothing about what is sent or refused.

pub mod authentication_results;
pub mod dkim;
pub mod dmarc_report;
mod mac;
pub mod publish;
pub mod records;
pub mod verify;

pub use mac::MacKey;
