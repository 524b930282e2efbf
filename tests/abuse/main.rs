//! What attackers do to a mail server, done to the real one while a good
//! client goes on sending: it must not notice, memory stays bounded, and every
//! attack ends with its documented reply and a count.

#[cfg(target_os = "linux")]
mod flood;
#[cfg(target_os = "linux")]
mod slow;
#[cfg(target_os = "linux")]
mod support;
#[cfg(target_os = "linux")]
mod tls;
#[cfg(target_os = "linux")]
mod vanish;
