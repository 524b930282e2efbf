//! What a lane sees of shaping.

use std::sync::Arc;
use std::time::Duration;

use postrider_base::metrics::{Feedback, PauseKind, ShapingWait};
use postrider_mail::{BounceKind, Domain, Severity, SmtpReply, Stage};
use tokio::time::Instant;

use super::feedback::{Effect, Rule, comparable};
use super::governor::{Inner, SiteState};
use super::pacer::Given;
use super::pause::{Ended, Pause, Scope};
use super::retry_after::retry_after;
use super::rules::SiteRules;
use super::seats::Seat;
use super::throttle::{LastReply, Throttle};

/// While others wait for a place, it is given up after so many messages, over
/// however many connections.
pub(crate) const FAIR_TURN: u32 = 10;

/// The same after so long, with however few messages.
const FAIR_TIME: Duration = Duration::from_secs(60);

/// What the address that the system chooses is called.
pub(super) const SYSTEM: &str = "system";

/// The way of one lane: from one source to one site.
pub(crate) struct Gate {
    pub(super) inner: Arc<Inner>,
    pub(super) site: Arc<SiteState>,
    pub(super) source: Scope,
    /// Whether mail leaves from other sources while this one pauses.
    pub(super) moves: bool,
    number: u64,
}

/// A place for one connection at a time. Free again when dropped.
pub(crate) struct Permit {
    site: Seat,
    provider: Option<Seat>,
    /// When its holder has had it for [`FAIR_TIME`].
    fair_until: Instant,
}

/// Leave to begin one message. Unless it is [`used`](Turn::used) it goes to the next
/// one who asks.
#[derive(Default)]
#[must_use = "a turn that is dropped is given back"]
pub(crate) struct Turn {
    /// Whose rates count it: the site's, the provider's.
    counted: [Option<Arc<Throttle>>; 2],
}

impl Turn {
    /// A message has begun by it.
    pub(crate) fn used(mut self) {
        self.counted = [None, None];
    }

    /// True when there was something to wait for.
    async fn take(&mut self, throttle: &Arc<Throttle>) -> bool {
        match throttle.pacer.turn().await {
            Given::Free => false,
            Given::Counted { has_waited } => {
                let free = self.counted.iter_mut().find(|place| place.is_none());
                free.map(|place| place.insert(throttle.clone()));
                has_waited
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.counted.iter().flatten().for_each(|throttle| throttle.pacer.give_back());
    }
}

/// What follows from a reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Heard {
    pub(crate) action: Option<Action>,
    /// How long the host asks to be left alone with this: within 1 second and 4 hours.
    pub(crate) retry_after: Option<Duration>,
}

/// What a feedback rule has done, or asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// The site gets half.
    Slowed,
    /// Mail of the lane, or of the signing domain, waits.
    Paused(Pause),
    /// Mail of the lane waits, and somebody has to look.
    Blocked(Pause),
    /// The recipient has bounced.
    Bounce(BounceKind),
}

impl Gate {
    pub(super) fn new(inner: Arc<Inner>, site: Arc<SiteState>, source: Option<Arc<str>>, number: u64) -> Self {
        Self { inner, site, source: Scope::Source(source), moves: false, number }
    }

    /// The rules of the site.
    pub(crate) fn rules(&self) -> Arc<SiteRules> {
        self.site.rules.load_full()
    }

    /// Connections that the site may have at the moment, from all sources.
    pub(crate) fn limit(&self) -> usize {
        self.site.throttle.seats.limit()
    }

    /// A place for a connection, at once or in turn: round the lanes, and in
    /// the order of asking within one. Giving up waiting loses nothing.
    pub(crate) async fn connection(&self) -> Permit {
        let site = self.seat(&self.site.throttle, ShapingWait::SiteConnection).await;
        let provider = match self.site.provider.load_full() {
            Some(provider) => Some(self.seat(&provider.throttle, ShapingWait::ProviderConnection).await),
            None => None,
        };
        Permit { site, provider, fair_until: self.inner.clock.instant() + FAIR_TIME }
    }

    async fn seat(&self, throttle: &Throttle, wait: ShapingWait) -> Seat {
        if throttle.seats.taken() >= throttle.seats.limit() {
            self.inner.metrics.shaping_waits.of(wait).inc();
        }
        throttle.seats.take(self.number).await
    }

    /// Resolves when the next message may begin. Giving up waiting loses nothing.
    /// Costs two atomic loads where there is no rate.
    pub(crate) async fn turn(&self) -> Turn {
        let mut turn = Turn::default();
        let mut has_waited = turn.take(&self.site.throttle).await;
        if let Some(provider) = self.site.provider.load_full() {
            has_waited |= turn.take(&provider.throttle).await;
        }
        if has_waited {
            self.inner.metrics.shaping_waits.of(ShapingWait::Rate).inc();
        }
        turn
    }

    /// Why mail of the lane to a recipient domain, signed by `signing_domain`,
    /// has to wait.
    pub(crate) fn pause<'m>(&self, domain: &Domain, signing_domain: impl FnOnce() -> Option<&'m str>) -> Option<Pause> {
        let provider = self.site.provider.load();
        let provider_name = provider.as_ref().map(|provider| &*provider.name);
        let ordered = self.inner.orders.pause_of(&self.site.place, provider_name, self.source_name(), domain.as_str());
        if ordered.is_some() {
            return ordered;
        }
        let is_paused = |throttle: &Throttle| throttle.is_paused();
        if !is_paused(&self.site.throttle) && !provider.as_ref().is_some_and(|provider| is_paused(&provider.throttle)) {
            return None;
        }
        let signed = signing_domain().map(|domain| Scope::SigningDomain(domain.to_ascii_lowercase().into()));
        let scopes: Vec<Scope> = [Some(self.source.clone()), signed].into_iter().flatten().collect();
        self.site.pause_of(&scopes, self.inner.clock.now())
    }

    /// Whether mail that has to wait for the end of a pause may leave from another source
    /// meanwhile.
    pub(crate) fn moves_from(&self, pause: &Pause) -> bool {
        self.moves && matches!(pause.kind, PauseKind::Source | PauseKind::Block)
    }

    /// Whether a pause that has ended held mail of the lane to a recipient domain. Mail that
    /// moves waits only while all sources pause, for whichever is the first to go on.
    pub(crate) fn was_held_by(&self, ended: &Ended, domain: &Domain) -> bool {
        let provider = self.site.provider.load();
        match ended {
            Ended::Heard(throttle, scope) => {
                let of_provider = provider.as_ref().map(|provider| &provider.throttle);
                let is_there = [Some(&self.site.throttle), of_provider].into_iter().flatten();
                let is_mine = self.moves || matches!(scope, Scope::SigningDomain(_)) || *scope == self.source;
                is_mine && is_there.into_iter().any(|known| Arc::ptr_eq(known, throttle))
            }
            Ended::Ordered(order) => {
                let provider = provider.as_ref().map(|provider| &*provider.name);
                order.holds(&self.site.place, provider, self.source_name(), domain.as_str())
            }
        }
    }

    /// The site has taken a message.
    pub(crate) fn taken(&self) {
        self.site.throttle.message_taken();
        if let Some(provider) = &*self.site.provider.load() {
            provider.throttle.message_taken();
        }
    }

    /// A host of the site has said something that is no success; `may_block`: of our
    /// address, if that is what it seems to say.
    pub(crate) fn heard(
        &self,
        signing_domain: Option<&str>,
        stage: Stage,
        reply: &SmtpReply,
        may_block: bool,
    ) -> Heard {
        if matches!(reply.severity(), Severity::Positive | Severity::Intermediate) {
            return Heard::default();
        }
        let rules = self.site.rules.load();
        let provider = rules.provider.as_ref().map(|provider| &*provider.name);
        let text = comparable(reply);
        let shaping = self.inner.shaping.load();
        let mut rules = shaping.feedback_of(provider).filter(|rule| may_block || !rule.blocks());
        let rule = rules.find(|rule| rule.matches(stage, reply, &text));
        // A permanent refusal has no time, unless it is our address that it is about.
        let is_block = rule.is_some_and(|rule| rule.blocks());
        let has_time = is_block || reply.severity() == Severity::Transient;
        let said = has_time.then(|| retry_after(&text)).flatten();
        if said.is_some() {
            self.inner.metrics.shaping_retry_after.inc();
        }
        self.site.throttle.note(LastReply {
            at: self.inner.clock.now(),
            stage,
            text: reply.one_line(),
            rule: rule.map(|rule| rule.name.clone()),
        });
        let action = rule.and_then(|rule| self.act(rule, signing_domain, reply, said));
        Heard { action, retry_after: said }
    }

    fn act(
        &self,
        rule: &Rule,
        signing_domain: Option<&str>,
        reply: &SmtpReply,
        said: Option<Duration>,
    ) -> Option<Action> {
        let metrics = &self.inner.metrics.shaping_feedback;
        let site = &*self.site.place.name;
        match rule.effect {
            Effect::Ignore => None,
            Effect::Slow => {
                metrics.of(Feedback::Slow).inc();
                if self.throttle(rule).slow() {
                    tracing::info!(site, rule = &*rule.name, %reply, "half as much from now on, because the site says so");
                }
                Some(Action::Slowed)
            }
            Effect::PauseSource(time) => {
                metrics.of(Feedback::PauseSource).inc();
                let pause = self.pause_from(rule, PauseKind::Source, said.unwrap_or(time), reply);
                if self.add_pause(rule, self.source.clone(), &pause) {
                    tracing::info!(site, rule = &*rule.name, %reply, "paused, because the site says so");
                }
                Some(Action::Paused(pause))
            }
            Effect::PauseSigningDomain(time) => {
                metrics.of(Feedback::PauseSigningDomain).inc();
                let domain: Arc<str> = signing_domain?.to_ascii_lowercase().into();
                let pause = self.pause_from(rule, PauseKind::SigningDomain, said.unwrap_or(time), reply);
                if self.add_pause(rule, Scope::SigningDomain(domain.clone()), &pause) {
                    tracing::info!(site, domain = &*domain, rule = &*rule.name, %reply, "mail of this domain pauses, because the site says so");
                }
                Some(Action::Paused(pause))
            }
            Effect::BlockSource(time) => {
                metrics.of(Feedback::BlockSource).inc();
                let pause = self.pause_from(rule, PauseKind::Block, said.unwrap_or(time), reply);
                if self.add_pause(rule, self.source.clone(), &pause) {
                    let source = self.source_name();
                    tracing::warn!(site, source, rule = &*rule.name, %reply, "the site has blocked this address: somebody has to look");
                }
                Some(Action::Blocked(pause))
            }
            Effect::Bounce(kind) => {
                metrics.of(Feedback::Bounce).inc();
                Some(Action::Bounce(kind))
            }
        }
    }

    fn pause_from(&self, rule: &Rule, kind: PauseKind, time: Duration, reply: &SmtpReply) -> Pause {
        let since = self.inner.clock.now();
        let why = format!("{}: {reply}", rule.name).into();
        Pause { kind, since, until: Some(since.saturating_add(time)), why }
    }

    fn add_pause(&self, rule: &Rule, scope: Scope, pause: &Pause) -> bool {
        let throttle = self.throttle(rule);
        let is_new = throttle.pause(scope, pause.clone());
        if let Some(until) = pause.until {
            self.inner.ends(&throttle, until);
        }
        is_new
    }

    /// Whom a rule is about: the site, or all sites of its provider.
    fn throttle(&self, rule: &Rule) -> Arc<Throttle> {
        let provider = self.site.provider.load();
        match provider.as_ref().filter(|_| rule.is_about_provider) {
            Some(provider) => provider.throttle.clone(),
            None => self.site.throttle.clone(),
        }
    }

    pub(super) fn source_name(&self) -> &str {
        match &self.source {
            Scope::Source(Some(name)) => name,
            Scope::Source(None) | Scope::SigningDomain(_) => SYSTEM,
        }
    }
}

impl Permit {
    /// Resolves when the place is wanted by somebody else: an idle connection
    /// should be closed then.
    pub(crate) async fn wanted(&self) {
        match &self.provider {
            Some(provider) => tokio::select! {
                () = self.site.wanted() => {}
                () = provider.wanted() => {}
            },
            None => self.site.wanted().await,
        }
    }

    /// As [`Permit::wanted`], for a holder who has something to send and may not
    /// yet: not before he has had the place for a fair time.
    pub(crate) async fn overdue(&self) {
        tokio::time::sleep_until(self.fair_until).await;
        self.wanted().await;
    }

    /// Whether the place should be given up for the sake of others, after so many
    /// `messages` by its holder.
    pub(crate) fn must_yield(&self, messages: u32, now: Instant) -> bool {
        let has_had_enough = messages >= FAIR_TURN || now >= self.fair_until;
        has_had_enough && (self.site.is_wanted() || self.provider.as_ref().is_some_and(Seat::is_wanted))
    }
}
