//! How many recipients the credential and its account may still send to: the last thing that is
//! asked, and taken before the spool is.

use postrider_account::{Accounts, Exceeded, Holder, Limits, Reservation};
use postrider_base::Metrics;
use postrider_base::metrics::QuotaBound;
use postrider_mail::is_simulator;
use postrider_spool::NewMessage;

use crate::Refusal;

/// A message's place in the quotas of its account and of its credential. Dropped, it is given
/// back.
#[derive(Debug)]
#[must_use = "dropped, it gives back what was taken"]
pub(crate) struct Quota {
    account: Reservation,
    credential: Option<Reservation>,
}

impl Quota {
    /// Takes the place of a message of this time, all of its recipients but the simulator's.
    /// Suppressed ones count: what is on the list is only looked at when mail leaves.
    ///
    /// # Errors
    /// [`Refusal::RateExceeded`], [`Refusal::DailyQuotaExceeded`]; [`Refusal::Unavailable`] in
    /// the first seconds, while what was sent before is counted.
    pub(crate) fn take(
        accounts: &Accounts,
        message: &NewMessage,
        operator_domain: &str,
        metrics: &Metrics,
    ) -> Result<Self, Refusal> {
        let NewMessage { account, origin, envelope, accepted_at, .. } = message;
        let recipients = envelope.recipients.iter().map(|recipient| recipient.address.domain());
        let counted = recipients.filter(|domain| !is_simulator(domain, operator_domain)).count();
        let counted = u32::try_from(counted).unwrap_or(u32::MAX);
        let reserve = |holder: Holder, limits: Limits, bounds: [QuotaBound; 2]| {
            let reserved = accounts.quotas().reserve(holder, &limits, counted, *accepted_at);
            reserved.map_err(|exceeded| refusal(exceeded, bounds, metrics))
        };
        // The credential's first: who is over it takes nothing from the second that the others
        // of the account have.
        let of_credential = |user_name: &String| {
            let limits = accounts.credentials().limits(user_name);
            let bounds = [QuotaBound::CredentialRate, QuotaBound::CredentialDaily];
            reserve(Holder::Credential(user_name.clone()), limits, bounds)
        };
        let credential = origin.credential.as_ref().map(of_credential).transpose()?;
        let limits = Limits::of(&accounts.tenants().find(*account));
        match reserve((*account).into(), limits, [QuotaBound::Rate, QuotaBound::Daily]) {
            Ok(account) => Ok(Self { account, credential }),
            // Or those whose account is kept busy by others would wait for their own rate too.
            Err(refusal) => {
                credential.into_iter().for_each(Reservation::undo);
                Err(refusal)
            }
        }
    }

    /// Keeps the place, or gives it back where the spool says that it has not taken the message.
    /// A spool that failed may have: it counts, until the process is started anew.
    pub(crate) fn settle<T>(self, accepted: &Result<T, postrider_spool::Error>) {
        use postrider_spool::Error::{Closed, Full, NoFile, TooLarge};
        if !matches!(accepted, Err(Full(_) | NoFile | TooLarge(_) | Closed)) {
            self.account.keep();
            if let Some(credential) = self.credential {
                credential.keep();
            }
        }
    }
}

fn refusal(exceeded: Exceeded, [rate, daily]: [QuotaBound; 2], metrics: &Metrics) -> Refusal {
    let (bound, refusal) = match exceeded {
        Exceeded::Rate => (rate, Refusal::RateExceeded),
        Exceeded::Daily => (daily, Refusal::DailyQuotaExceeded),
        _ => (QuotaBound::Recounting, Refusal::Unavailable),
    };
    metrics.quota_refused.of(bound).inc();
    refusal
}
