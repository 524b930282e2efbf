//! Why a message has not left, as delivery knows it.

use postrider_base::Timestamp;
use postrider_mail::{Domain, Stage};
use postrider_spool::{MessageView, OriginKind, QueueKey, RecipientView};

use crate::Delivery;
use crate::lane;
use crate::paused::SenderPause;
use crate::route::Route;
use crate::site::Asked;

/// Why the due mail of a message to one domain has not left. One reason: the first
/// thing in its way.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// Its route is `hold:`.
    RouteHolds,
    /// It is being scanned for viruses, or is next to be.
    Scanning {
        /// Since when.
        since: Timestamp,
    },
    /// It waits for a virus scan that came to nothing.
    NotScanned {
        /// What is in the way.
        why: String,
        /// Since when that is so.
        since: Timestamp,
    },
    /// Its account or its configuration set is paused, and what is queued waits too.
    SenderPaused {
        /// Which one.
        who: String,
        /// Since when.
        since: Timestamp,
        /// What whoever paused it said; may be empty.
        reason: String,
    },
    /// The hosts of its domain are being looked up.
    LookingUp {
        /// Since when.
        since: Timestamp,
    },
    /// It waits in the ready queue of a site.
    Ready {
        /// The site's name.
        site: String,
        /// Messages of the same account to the same domain before it.
        before: usize,
        /// All others that are ready for the site; they take turns by account and domain.
        others: usize,
        /// What they wait for.
        wait: Wait,
    },
    /// Its attempt has begun, and the relay has no connection left to dial with.
    NoConnection {
        /// The site's name.
        site: String,
        /// Connections that the relay may have.
        limit: usize,
        /// Since when it waits.
        since: Timestamp,
    },
    /// An attempt is under way.
    InDelivery {
        /// The site's name.
        site: String,
        /// The host that is dialled or spoken to; `None` while one is looked for.
        host: Option<String>,
        /// How far the session has come.
        stage: Stage,
        /// When the attempt began.
        since: Timestamp,
    },
    /// Mail for the site pauses.
    Paused {
        /// The site's name.
        site: String,
        /// What pauses: the name that `resume` takes.
        name: String,
        /// Only what leaves from this source.
        source: Option<String>,
        /// Only what this domain answers for.
        signing_domain: Option<String>,
        /// `operator`, `source`, `signing_domain` or `block`.
        by: String,
        /// When it began.
        since: Timestamp,
        /// When it ends by itself.
        until: Option<Timestamp>,
        /// The reply that it came from, or what the operator said.
        why: String,
    },
    /// None of the addresses that it may leave from may be used.
    NoSource {
        /// The site's name.
        site: String,
        /// When one may be, as it is known now.
        until: Option<Timestamp>,
        /// Why not.
        why: String,
    },
    /// The site has enough ready; its queue waits in the spool.
    Parked {
        /// The site's name.
        site: String,
        /// Messages that are ready for it.
        ready: usize,
    },
    /// Its attempt has ended and is being written down.
    Settling,
    /// It is due, and its turn comes as soon as delivery takes more.
    Turn,
}

/// What the mail waits for that is ready for a site.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Wait {
    /// No host of the site has greeted us yet, and until one does there is only one
    /// connection.
    FirstConnection {
        /// The host that is dialled or spoken to.
        host: Option<String>,
        /// How far the session has come.
        stage: Stage,
        /// When the attempt began.
        since: Timestamp,
    },
    /// All connections that the site may have are in other hands.
    SiteLimit {
        /// Open ones.
        open: usize,
        /// So many may be.
        limit: usize,
    },
    /// All connections that the provider's sites may have together are in other hands.
    ProviderLimit {
        /// The provider's name in the shaping rules.
        provider: String,
        /// Open ones.
        open: usize,
        /// So many may be.
        limit: usize,
    },
    /// The relay has no connection left.
    TotalLimit {
        /// So many it may have.
        limit: usize,
    },
    /// The rate limit.
    Rate {
        /// The site or the provider that it is for.
        of: String,
        /// Messages in a time.
        rate: String,
        /// When the next message may go.
        next: Option<Timestamp>,
    },
    /// The lane's connections are at work.
    Busy {
        /// Open or being opened.
        connections: usize,
        /// So many may be at the moment.
        limit: usize,
    },
}

impl Delivery {
    /// Why the recipients of `domain` of a waiting message have not got it, who are due
    /// and not held. Looks everywhere, so it is for people.
    pub fn why(&self, view: &MessageView, domain: &Domain) -> Why {
        let shared = &self.0;
        if let Some(why) = self.why_not_scanned(view, domain) {
            return why;
        }
        let queue = QueueKey { account: view.message.account, domain: domain.clone() };
        let asked = Asked { queue: &queue, message: &view.message };
        let total = shared.config.load().settings.limits.connections;
        let sites = shared.sites.all();
        if let Some(why) = sites.iter().find_map(|site| site.why_in_hand(&asked, total)) {
            return why;
        }
        let set = lane::configuration_set(&shared.accounts, &view.message);
        let kind = view.message.origin.kind;
        if let Some(pause) = SenderPause::of(&shared.accounts, queue.account, kind, set.as_deref()) {
            return pause.why();
        }
        if let Some(why) = sites.iter().find_map(|site| site.why_left(&asked)) {
            return why;
        }
        if let Some(since) = shared.seeking.lock().get(domain) {
            return Why::LookingUp { since: *since };
        }
        if self.is_held_by_route(domain) {
            return Why::RouteHolds;
        }
        let is_here = |recipient: &&postrider_spool::RecipientView| recipient.address.domain() == domain;
        match view.recipients.iter().filter(is_here).any(|recipient| recipient.in_delivery) {
            true => Why::Settling,
            false => Why::Turn,
        }
    }

    /// What of the virus scan is in the way of a message, which has had no attempt.
    fn why_not_scanned(&self, view: &MessageView, domain: &Domain) -> Option<Why> {
        let (shared, id) = (&self.0, view.message.id);
        let is_tried = |it: &RecipientView| it.address.domain() == domain && it.attempts > 0;
        let is_scanned = view.message.origin.kind == OriginKind::Submission && !view.recipients.iter().any(is_tried);
        if shared.config.load().settings.scan.clamd.is_none() || !is_scanned {
            return None;
        }
        if let Some(since) = shared.scans.under_way(id) {
            return Some(Why::Scanning { since });
        }
        match shared.scans.failure(id)? {
            Some(failure) => Some(Why::NotScanned { why: failure.why, since: failure.since }),
            // Its turn comes after those that are in line.
            None => Some(Why::Scanning { since: view.message.released_at() }),
        }
    }

    /// Whether the route of a domain is `hold:`.
    pub fn is_held_by_route(&self, domain: &Domain) -> bool {
        matches!(self.0.config.load().routes.lookup(domain), Route::Hold)
    }
}
