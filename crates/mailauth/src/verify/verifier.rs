//! Verification of what comes in, as a service: its bounds, and what it counts.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use postrider_base::metrics::{Held, Verified};
use postrider_base::{Clock, Metrics, Period};
use postrider_dns::Resolver;
use postrider_mail::EmailAddress;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::arc::ArcResult;
use super::dkim::DkimResult;
use super::dmarc::DmarcResult;
use super::spf::{MOST_LOOKUPS, MOST_VOID_LOOKUPS, SpfLimits, SpfResult};
use super::{Connection, Limits, Verdict, VerifyError, verify};
use crate::authentication_results::AuthenticationResults;

/// How much work verification may make of messages that anybody can send.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct VerificationSettings {
    /// DKIM signatures of a message that are looked at, from the top.
    pub signatures: usize,
    /// Keys that are asked for to verify a message, of DKIM signatures and ARC seals together.
    /// What needs one more does not pass.
    pub keys: usize,
    /// Terms of SPF records that may ask the DNS; with fewer than 10 (RFC 7208 section 4.6.4)
    /// records that others understand are a `permerror`.
    pub spf_lookups: usize,
    /// Such terms that may find nothing; the RFC says 2.
    pub spf_void_lookups: usize,
    /// The longest that SPF, all keys together, and DMARC may take, each; and the wait before.
    /// What is not known by then is a `temperror`.
    pub time: Period,
    /// Messages that are verified at the same time. Others wait, at most `time`; then they are
    /// taken unverified.
    pub at_once: usize,
}

impl Default for VerificationSettings {
    fn default() -> VerificationSettings {
        VerificationSettings {
            signatures: 10,
            keys: 50,
            spf_lookups: MOST_LOOKUPS,
            spf_void_lookups: MOST_VOID_LOOKUPS,
            time: Period::from_secs(20),
            at_once: 50,
        }
    }
}

impl VerificationSettings {
    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.time.is_zero() {
            return Err("time: must be longer than 0s".to_owned());
        }
        if self.at_once == 0 || self.at_once > Semaphore::MAX_PERMITS {
            return Err("at_once: must be at least 1".to_owned());
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        let time = self.time.as_duration();
        let spf = SpfLimits { lookups: self.spf_lookups, void: self.spf_void_lookups, time };
        Limits { signatures: self.signatures, keys: self.keys, spf, time, ..Limits::default() }
    }
}

/// Verifies what comes in. A cheap handle; clones are the same.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    resolver: Arc<dyn Resolver>,
    clock: Clock,
    metrics: Metrics,
    receiver: String,
    settings: VerificationSettings,
    turns: Semaphore,
}

impl Verifier {
    /// Verification by these settings, which have been validated. `receiver` is our own name:
    /// who has found out what `Authentication-Results` says.
    #[must_use]
    pub fn new(
        resolver: Arc<dyn Resolver>,
        clock: Clock,
        metrics: Metrics,
        receiver: String,
        settings: VerificationSettings,
    ) -> Verifier {
        let turns = Semaphore::new(settings.at_once);
        Verifier(Arc::new(Inner { resolver, clock, metrics, receiver, settings, turns }))
    }

    /// The name that speaks in `Authentication-Results`.
    #[must_use]
    pub fn receiver(&self) -> &str {
        &self.0.receiver
    }

    /// Looks at a message with CRLF line ends. It always comes to an end, and decides nothing:
    /// what can not be verified in time, or exceeds a bound, is said to be unverified.
    pub async fn look(
        &self,
        message: &[u8],
        client: IpAddr,
        helo: Option<&str>,
        sender: Option<&EmailAddress>,
    ) -> Looked {
        let Inner { resolver, clock, metrics, receiver, settings, turns } = &*self.0;
        let _open = Held::new(&metrics.verifying);
        let connection = Connection {
            ip: Some(client),
            helo: helo.unwrap_or_default(),
            mail_from: sender.map(EmailAddress::as_str).unwrap_or_default(),
            receiver,
        };
        let began = clock.instant();
        let turn = tokio::time::timeout(settings.time.as_duration(), turns.acquire()).await;
        let (verdict, refused) = match turn {
            Ok(_turn) => match verify(&**resolver, clock, message, &connection, &settings.limits()).await {
                Ok(verdict) => (Some(verdict), None),
                Err(refused) => (None, Some(refused)),
            },
            Err(_) => (None, None),
        };
        metrics.verification_duration.observe(clock.instant() - began);
        let results = match &verdict {
            Some(verdict) => {
                count(verdict, metrics);
                AuthenticationResults::of(verdict, &connection)
            }
            None => {
                metrics.unverified.inc();
                AuthenticationResults { authserv_id: receiver.clone(), results: Vec::new() }
            }
        };
        Looked { verdict, refused, results }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// What verification has found. `Display` is for the log: `spf=pass dkim=pass (example.com)
/// arc=none dmarc=pass`, printable and on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// All of it; none where the message was not looked at.
    pub verdict: Option<Verdict>,
    /// Why it was not, where that does not pass; there was no turn in time where this says
    /// nothing either.
    pub refused: Option<VerifyError>,
    /// What a header field says of it.
    pub results: AuthenticationResults,
}

impl Looked {
    /// The `Authentication-Results` field, to go on top of the message: the whole field, folded,
    /// with its final CRLF. Fields that claim to be ours must be
    /// [taken off](crate::authentication_results::without_forged).
    #[must_use]
    pub fn field(&self) -> String {
        self.results.to_field()
    }

    /// The domains that the message is from for certain: by SPF, and by its DKIM signatures.
    #[must_use]
    pub fn domains(&self) -> Vec<String> {
        let Some(verdict) = &self.verdict else { return Vec::new() };
        let spf = verdict.spf.iter().filter(|spf| spf.result == SpfResult::Pass).map(|spf| &spf.domain);
        let mut domains: Vec<String> = spf.chain(signed_by(verdict)).cloned().collect();
        domains.sort_unstable();
        domains.dedup();
        domains
    }
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(verdict) = &self.verdict else { return f.write_str("unverified") };
        let spf = verdict.spf.as_ref().map_or(SpfResult::None, |spf| spf.result);
        write!(f, "spf={spf} dkim={}", best(verdict))?;
        let mut signers = signed_by(verdict);
        if let Some(first) = signers.next() {
            write!(f, " ({first}")?;
            signers.try_for_each(|signer| write!(f, " {signer}"))?;
            f.write_str(")")?;
        }
        write!(f, " arc={} dmarc={}", verdict.arc.result, verdict.dmarc.result.as_str())
    }
}

fn signed_by(verdict: &Verdict) -> impl Iterator<Item = &String> {
    verdict.dkim.iter().filter(|one| one.result == DkimResult::Pass).map(|one| &one.domain)
}

/// A signature that passes says enough; else the first one speaks for all.
fn best(verdict: &Verdict) -> &'static str {
    let passes = verdict.dkim.iter().find(|one| one.result == DkimResult::Pass);
    passes.or(verdict.dkim.first()).map_or("none", |one| one.result.as_str())
}

fn count(verdict: &Verdict, metrics: &Metrics) {
    if let Some(spf) = &verdict.spf {
        let result = match spf.result {
            SpfResult::None => Verified::None,
            SpfResult::Neutral => Verified::Neutral,
            SpfResult::Pass => Verified::Pass,
            SpfResult::Fail => Verified::Fail,
            SpfResult::SoftFail => Verified::SoftFail,
            SpfResult::TempError => Verified::TempError,
            SpfResult::PermError => Verified::PermError,
        };
        metrics.verified_spf.of(result).inc();
    }
    for one in &verdict.dkim {
        let result = match one.result {
            DkimResult::Pass => Verified::Pass,
            DkimResult::Fail => Verified::Fail,
            DkimResult::Policy => Verified::Policy,
            DkimResult::Neutral => Verified::Neutral,
            DkimResult::TempError => Verified::TempError,
            DkimResult::PermError => Verified::PermError,
        };
        metrics.verified_dkim.of(result).inc();
    }
    if verdict.dkim.is_empty() {
        metrics.verified_dkim.of(Verified::None).inc();
    }
    let arc = match verdict.arc.result {
        ArcResult::None => Verified::None,
        ArcResult::Pass => Verified::Pass,
        ArcResult::Fail => Verified::Fail,
        ArcResult::TempError => Verified::TempError,
    };
    metrics.verified_arc.of(arc).inc();
    let dmarc = match verdict.dmarc.result {
        DmarcResult::None => Verified::None,
        DmarcResult::Pass => Verified::Pass,
        DmarcResult::Fail => Verified::Fail,
        DmarcResult::TempError => Verified::TempError,
    };
    metrics.verified_dmarc.of(dmarc).inc();
}

#[cfg(test)]
mod tests {
    use postrider_base::Timestamp;
    use postrider_dns::Zones;
    use postrider_dns::zones::Failure;

    use super::*;

    const MESSAGE: &[u8] = b"From: a@example.com\r\nSubject: x\r\n\r\nbody\r\n";

    fn verifier(zones: &Zones, metrics: &Metrics, settings: VerificationSettings) -> Verifier {
        let clock = Clock::simulated(Timestamp::default());
        Verifier::new(Arc::new(zones.clone()), clock, metrics.clone(), "mx.example.net".to_owned(), settings)
    }

    async fn look(verifier: &Verifier) -> Looked {
        let sender: EmailAddress = "b@example.com".parse().unwrap();
        verifier.look(MESSAGE, IpAddr::from([192, 0, 2, 1]), Some("h.example.com"), Some(&sender)).await
    }

    #[tokio::test]
    async fn what_is_found_is_said_and_counted() {
        let (zones, metrics) = (Zones::new(), Metrics::new());
        zones.add_txt("example.com", "v=spf1 ip4:192.0.2.0/24 -all").add_txt("_dmarc.example.com", "v=DMARC1; p=none");
        let looked = look(&verifier(&zones, &metrics, VerificationSettings::default())).await;
        assert_eq!(looked.to_string(), "spf=pass dkim=none arc=none dmarc=pass");
        assert_eq!(looked.domains(), ["example.com"]);
        assert!(looked.field().starts_with("Authentication-Results: mx.example.net;\r\n\tspf=pass\r\n"));
        assert_eq!(metrics.verified_spf.of(Verified::Pass).get(), 1);
        assert_eq!(metrics.verified_dkim.of(Verified::None).get(), 1);
        assert_eq!((metrics.verification_duration.count(), metrics.verifying.get()), (1, 0));
    }

    #[tokio::test]
    async fn who_may_not_send_is_said_not_refused() {
        let (zones, metrics) = (Zones::new(), Metrics::new());
        zones.add_txt("example.com", "v=spf1 -all").add_txt("_dmarc.example.com", "v=DMARC1; p=reject");
        let looked = look(&verifier(&zones, &metrics, VerificationSettings::default())).await;
        assert_eq!(looked.to_string(), "spf=fail dkim=none arc=none dmarc=fail");
        assert!(looked.domains().is_empty());
        zones.fail("example.com", Failure::ServFail);
        let looked = look(&verifier(&zones, &metrics, VerificationSettings::default())).await;
        assert!(looked.to_string().starts_with("spf=temperror "), "{looked}");
    }

    #[tokio::test]
    async fn fewer_lookups_are_a_setting() {
        let (zones, metrics) = (Zones::new(), Metrics::new());
        zones.add_txt("example.com", "v=spf1 include:a.example.com -all");
        zones.add_txt("a.example.com", "v=spf1 ip4:192.0.2.1 -all");
        assert_eq!(look(&verifier(&zones, &metrics, VerificationSettings::default())).await.domains(), ["example.com"]);
        let none = VerificationSettings { spf_lookups: 0, ..VerificationSettings::default() };
        let looked = look(&verifier(&zones, &metrics, none)).await;
        assert!(looked.to_string().starts_with("spf=permerror "), "{looked}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_turn_is_taken_unverified() {
        let metrics = Metrics::new();
        let settings = VerificationSettings { at_once: 1, ..VerificationSettings::default() };
        let verifier = verifier(&Zones::new(), &metrics, settings);
        let busy = verifier.0.turns.acquire().await.unwrap();
        let looked = look(&verifier).await;
        assert_eq!((looked.to_string().as_str(), metrics.unverified.get()), ("unverified", 1));
        assert_eq!(looked.refused, None, "it may have one later");
        assert_eq!(looked.field(), "Authentication-Results: mx.example.net; none\r\n");
        drop(busy);
        assert!(look(&verifier).await.verdict.is_some());
    }

    #[tokio::test]
    async fn what_exceeds_a_bound_is_unverified_for_good() {
        let verifier = verifier(&Zones::new(), &Metrics::new(), VerificationSettings::default());
        let message = ["X: x\r\n".repeat(2_001).as_bytes(), b"\r\n"].concat();
        let looked = verifier.look(&message, IpAddr::from([192, 0, 2, 1]), None, None).await;
        assert_eq!((looked.verdict, looked.refused), (None, Some(VerifyError::TooManyFields(2_000))));
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        assert_eq!(VerificationSettings::default().validate(), Ok(()));
        let never = VerificationSettings { time: Period::from_secs(0), ..VerificationSettings::default() };
        assert!(never.validate().unwrap_err().starts_with("time:"));
        let nobody = VerificationSettings { at_once: 0, ..VerificationSettings::default() };
        assert!(nobody.validate().unwrap_err().starts_with("at_once:"));
    }
}
