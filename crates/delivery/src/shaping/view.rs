//! What operators see of shaping.

use std::sync::Arc;

use postrider_base::Timestamp;
use postrider_base::metrics::Label as _;

use super::feedback::Rule;
use super::gate::SYSTEM;
use super::governor::{Inner, ProviderState, SiteState};
use super::orders::Order;
use super::pause::{Pause, Scope};
use super::rules::{Explained, Place};
use super::throttle::{LastReply, Look, UNLIMITED};

/// Which rules hold for a domain, a site or a provider, and how it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ShapingView {
    /// What was asked for.
    pub name: String,
    /// Who runs the sites.
    pub provider: Option<ProviderView>,
    /// The sites, by name: where a domain's mail goes, or those of a provider that are in use.
    pub sites: Vec<SiteShaping>,
    /// The feedback rules in the order in which they are tried.
    pub feedback: Vec<FeedbackView>,
}

/// A provider.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderView {
    /// Its name in the rules.
    pub name: String,
    /// Ends of the names of its hosts.
    pub mx: Vec<String>,
    /// How it stands, over all of its sites.
    pub state: StateView,
}

/// A site with its rules.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteShaping {
    /// The site's name.
    pub name: String,
    /// Its rules, each with the entry that it is from.
    pub rules: Vec<RuleView>,
    /// How it stands; none while it is not in use.
    pub state: Option<StateView>,
}

/// One rule of a site.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleView {
    /// The key in the file.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The entry and the file that it is from.
    pub from: String,
}

/// How a site or a provider stands.
#[derive(Clone, Debug, PartialEq)]
pub struct StateView {
    /// Connections that are open or being opened.
    pub connections: usize,
    /// Connections that there may be now; none without a limit.
    pub limit: Option<usize>,
    /// Connections that the rules allow at most; none without a limit.
    pub most: Option<usize>,
    /// Connections that wait for their turn.
    pub waiting: usize,
    /// Messages that it took since it was last forgotten.
    pub messages: u64,
    /// The rate that holds now.
    pub rate: Option<String>,
    /// Messages that may go at once by that rate.
    pub tokens: Option<u64>,
    /// How often it is halved at the moment.
    pub halved: u32,
    /// What pauses.
    pub pauses: Vec<PauseView>,
    /// The last replies that were no success, oldest first.
    pub replies: Vec<ReplyView>,
}

/// Mail that does not leave for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct PauseView {
    /// The domain, site or provider.
    pub name: String,
    /// Only from this source; `system` is the address that the system chooses.
    pub source: Option<String>,
    /// Only what this domain signs.
    pub signing_domain: Option<String>,
    /// `operator`, `source`, `signing_domain` or `block`.
    pub kind: &'static str,
    /// When it began.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    /// The reply that it came from, or what the operator said.
    pub why: String,
}

/// What a host said.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyView {
    /// When.
    pub at: Timestamp,
    /// The stage of the session.
    pub stage: &'static str,
    /// The reply, in one line.
    pub text: String,
    /// The feedback rule that it met.
    pub rule: Option<String>,
}

/// A feedback rule.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedbackView {
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: String,
    /// The file that it is from.
    pub from: String,
    /// The reply that it was made for.
    pub example: String,
}

impl Inner {
    pub(super) fn provider_view(&self, provider: &ProviderState) -> ProviderView {
        let shaping = self.shaping.load();
        let rules = shaping.provider(&provider.name);
        ProviderView {
            name: provider.name.to_string(),
            mx: rules.map(|rules| rules.mx.clone()).unwrap_or_default(),
            state: self.state_view(&provider.name, &provider.throttle.look()),
        }
    }

    pub(super) fn site_view(&self, site: &SiteState) -> SiteShaping {
        let state = self.state_view(&site.place.name, &site.throttle.look());
        SiteShaping { state: Some(state), ..self.place_view(&site.place) }
    }

    /// A site that is not in use.
    pub(super) fn place_view(&self, place: &Place) -> SiteShaping {
        let rules = self.shaping.load().explain(place).into_iter().map(RuleView::from).collect();
        SiteShaping { name: place.name.to_string(), rules, state: None }
    }

    pub(super) fn feedback_views(&self, provider: Option<&str>) -> Vec<FeedbackView> {
        self.shaping.load().feedback_of(provider).map(|rule| FeedbackView::from(&**rule)).collect()
    }

    /// Everything that pauses: operators' pauses first.
    pub(super) fn pause_views(&self) -> Vec<PauseView> {
        let now = self.clock.now();
        let ordered = self.orders.all();
        let mut views: Vec<_> = ordered.iter().map(|order| PauseView::from(&**order)).collect();
        for (name, throttle) in self.throttles() {
            if throttle.is_paused() {
                views.extend(pauses(&name, &throttle.look(), now));
            }
        }
        views
    }

    fn state_view(&self, name: &Arc<str>, look: &Look) -> StateView {
        let limited = |count: usize| (count < UNLIMITED).then_some(count);
        StateView {
            connections: look.taken,
            limit: limited(look.limit),
            most: limited(look.most),
            waiting: look.waiting,
            messages: look.messages,
            rate: look.rate.map(|rate| rate.to_string()),
            tokens: look.tokens,
            halved: look.halved,
            pauses: pauses(name, look, self.clock.now()),
            replies: look.replies.iter().map(ReplyView::from).collect(),
        }
    }
}

fn pauses(name: &str, look: &Look, now: Timestamp) -> Vec<PauseView> {
    let lasting = look.pauses.iter().filter(|(_, pause)| !pause.is_over(now));
    let mut views: Vec<_> = lasting.map(|(scope, pause)| PauseView::of(name, scope, pause)).collect();
    views.sort_by(|a, b| (&a.source, &a.signing_domain).cmp(&(&b.source, &b.signing_domain)));
    views
}

impl PauseView {
    pub(super) fn of(name: &str, scope: &Scope, pause: &Pause) -> Self {
        let (source, signing_domain) = match scope {
            Scope::Source(source) => (Some(source.as_deref().unwrap_or(SYSTEM).to_owned()), None),
            Scope::SigningDomain(domain) => (None, Some(domain.to_string())),
        };
        Self {
            name: name.to_owned(),
            source,
            signing_domain,
            kind: pause.kind.as_str(),
            since: pause.since,
            until: pause.until,
            why: pause.why.to_string(),
        }
    }
}

impl From<&Order> for PauseView {
    fn from(order: &Order) -> Self {
        let pause = order.pause();
        Self {
            name: order.name.clone(),
            source: order.source.clone(),
            signing_domain: None,
            kind: pause.kind.as_str(),
            since: pause.since,
            until: pause.until,
            why: pause.why.to_string(),
        }
    }
}

impl From<Explained> for RuleView {
    fn from(rule: Explained) -> Self {
        Self { key: rule.key.to_owned(), value: rule.value, from: rule.from }
    }
}

impl From<&LastReply> for ReplyView {
    fn from(reply: &LastReply) -> Self {
        Self {
            at: reply.at,
            stage: reply.stage.as_str(),
            text: reply.text.clone(),
            rule: reply.rule.as_ref().map(ToString::to_string),
        }
    }
}

impl From<&Rule> for FeedbackView {
    fn from(rule: &Rule) -> Self {
        let about = if rule.is_about_provider { ", at the whole provider" } else { "" };
        Self {
            name: rule.name.to_string(),
            action: format!("{}{about}", rule.effect.describe()),
            from: rule.origin.to_string(),
            example: rule.example.clone(),
        }
    }
}
