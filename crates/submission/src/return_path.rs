//! Return paths: what MAIL FROM says to the next host, where that is not what the client said.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::RwLock;
use postrider_account::{Accounts, Identities, MailFrom, Resolved};
use postrider_mail::{Domain, EmailAddress, MessageId, Verp, VerpScope};
use postrider_mailauth::MacKey;
use postrider_spool::Message;

use crate::author::author;

/// What codes of return paths are good for.
const PURPOSE: &str = "return path";

/// Writes the return paths of outgoing mail, by which bounces find their messages, and reads
/// them again. A cheap handle; clones are the same.
///
/// A return path is in the custom MAIL FROM domain of the identity that the author's address
/// belongs to, while that domain is as it should be; else in a domain of the relay's. A From
/// field longer than what is kept of a header ([`postrider_spool::OriginalHeaders`]) names nobody.
#[derive(Clone, Debug)]
pub struct ReturnPaths {
    accounts: Accounts,
    key: MacKey,
    domain: Domain,
    custom: Arc<RwLock<Custom>>,
}

/// The custom MAIL FROM domains of all identities.
#[derive(Debug)]
struct Custom {
    /// Of the identities that they are of.
    revision: u64,
    domains: HashSet<Domain>,
}

impl Custom {
    fn of(identities: &Identities) -> Custom {
        // A change meanwhile is looked for once more.
        let revision = identities.revision();
        let all = identities.all();
        let custom = all.iter().filter_map(|identity| identity.mail_from.as_ref());
        Custom { revision, domains: custom.map(|custom| custom.domain.clone()).collect() }
    }
}

impl ReturnPaths {
    /// Return paths under `key`, in `domain` for mail without a custom MAIL FROM domain.
    #[must_use]
    pub fn new(accounts: Accounts, key: MacKey, domain: Domain) -> Self {
        let custom = Arc::new(RwLock::new(Custom::of(accounts.identities())));
        Self { accounts, key, domain, custom }
    }

    /// The return path of a message in a transaction for these of its recipients. The null sender stays what it is (RFC 5321 section 4.5.5).
    #[must_use]
    pub fn of(&self, message: &Message, scope: VerpScope) -> Option<EmailAddress> {
        let submitted = message.envelope.sender.as_ref()?;
        let verp = Verp { id: message.id, scope };
        let local = verp.encode(|named| self.key.short_tag(PURPOSE, named));
        // So long a domain that it has no room beside is left as it is submitted.
        Some(EmailAddress::new(&local, self.domain_of(message)).unwrap_or_else(|_| submitted.clone()))
    }

    /// The message and the recipients that a return path of ours names, in any case. `None`
    /// for every other address, those among them that somebody made up. In which domain it
    /// is, says nothing: those of the past are still written to.
    #[must_use]
    pub fn read(&self, address: &EmailAddress) -> Option<Verp> {
        Verp::decode(address.local(), |named| self.key.short_tag(PURPOSE, named))
    }

    /// A return path in this domain that belongs to no message: taken wherever ours are, and by
    /// nobody else. `None` for a domain that leaves no room for one.
    #[must_use]
    pub fn of_nobody(&self, domain: &Domain) -> Option<EmailAddress> {
        let verp = Verp { id: MessageId::from_bytes([0; 24]), scope: VerpScope::One(0) };
        EmailAddress::new(&verp.encode(|named| self.key.short_tag(PURPOSE, named)), domain.clone()).ok()
    }

    /// Whether return paths can be in this domain: the relay's, or a custom MAIL FROM domain,
    /// whatever its state. A look-up, but for the first one after identities have changed.
    #[must_use]
    pub fn is_domain(&self, domain: &Domain) -> bool {
        let identities = self.accounts.identities();
        if self.custom.read().revision != identities.revision() {
            *self.custom.write() = Custom::of(identities);
        }
        *domain == self.domain || self.custom.read().domains.contains(domain)
    }

    fn domain_of(&self, message: &Message) -> Domain {
        let fields = &message.origin.headers.fields;
        let from = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("from"));
        let author = from.and_then(|(_, value)| author(value));
        let resolved = author.and_then(|author| self.accounts.identities().resolve(message.account, &author));
        let custom = resolved.as_ref().and_then(Resolved::mail_from).filter(|custom| MailFrom::is_usable(custom));
        custom.map_or_else(|| self.domain.clone(), |custom| custom.domain.clone())
    }
}
