//! From the spool's queues to the sites: takes what is due, finds its route and
//! hands it on. One task; the only one that takes claims.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use postrider_account::ConfigurationSet;
use postrider_mail::Domain;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::Shared;
use crate::attempt::Attempt;
use crate::config::Config;
use crate::finding::{Finding, millis};
use crate::holds::Holds;
use crate::lane::{self, Demand, Lane};
use crate::paused::{Held, SenderPause};
use crate::report;
use crate::route::Route;
use crate::scan::{Gate, Scanned, Scans};
use crate::settle::Settling;
use crate::shaping::Ended;
use crate::site::{HeldBy, Job, Overdue, Pushed, Site};
use crate::sites::Destination;
use crate::sought::{Sought, Waiting};
use crate::source::{Choice, Place, Wish};
use crate::sts::{self, Way};
use crate::target::{Kind, Target, find_mx};
use crate::telling::Report;
use crate::unattempted;

/// Claims taken at once.
const BATCH: usize = 256;

/// Domains whose way is remembered. Beyond, all are forgotten and found again:
/// a relay that sends to more domains within an hour looks up most of them
/// anyway.
const MOST_PLANS: usize = 100_000;

/// Runs until the relay stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let (news_sender, news) = mpsc::unbounded_channel();
    let generation = shared.config.load().generation;
    let dispatcher = Dispatcher {
        generation,
        plans: HashMap::new(),
        sought: Sought::new(shared.clone()),
        holds: Holds::new(shared.clone()),
        held: Held::default(),
        scans: Scans::new(shared.clone()),
        shared,
        news_sender,
        news,
        settling: Settling::default(),
    };
    dispatcher.run().await;
}

struct Dispatcher {
    shared: Arc<Shared>,
    /// Of the settings that the plans were made by.
    generation: u64,
    plans: HashMap<Domain, Plan>,
    sought: Sought,
    holds: Holds,
    held: Held,
    scans: Scans,
    /// At most one entry for each claim, which the settings bound.
    news_sender: mpsc::UnboundedSender<News>,
    news: mpsc::UnboundedReceiver<News>,
    settling: Settling,
}

/// The way of a domain, until the DNS may say otherwise.
struct Plan {
    way: Way,
    until: Option<Instant>,
}

/// A step of a lookup has ended.
struct News {
    domain: Domain,
    answer: Result<Known, Finding>,
}

/// What a lookup has come to.
enum Known {
    /// The way of the domain, and for how long it is.
    Way(Way, Duration),
    /// Its hosts. Its policy has to be fetched.
    Hosts(Hosts),
}

/// What the DNS says of a domain.
struct Hosts {
    target: Target,
    holds: Duration,
    /// The id of its policy.
    announced: Option<String>,
}

impl Dispatcher {
    async fn run(mut self) {
        let shared = self.shared.clone();
        self.scans.probe();
        let mut failed = std::pin::pin!(shared.spool.failed());
        let mut addresses = shared.sources.news();
        let mut pools = shared.accounts.pools().changes();
        let mut tenants = shared.accounts.tenants().changes();
        let mut sets = shared.accounts.configuration_sets().changes();
        // Kept while others have their say: what it has begun to read is not read again.
        let mut taking = Box::pin(take(&shared));
        loop {
            // Only the waiting is raced; what was taken is dispatched whole.
            let step = async {
                tokio::select! {
                    biased;
                    () = shared.scope.cancelled() => Step::Stop,
                    () = &mut failed => Step::Failed,
                    Some(news) = self.news.recv() => Step::News(news),
                    sites = shared.sites.alarm() => Step::Alarm(sites),
                    ended = shared.governor.ended() => Step::Resume(ended),
                    Ok(()) = addresses.changed() => Step::Resource,
                    Ok(()) = pools.changed() => Step::Resource,
                    Ok(()) = tenants.changed() => Step::Senders,
                    // They name pools, too.
                    Ok(()) = sets.changed() => Step::SendersAndResource,
                    () = self.holds.advance() => Step::Nothing,
                    scanned = self.scans.advance() => Step::Scanned(scanned),
                    jobs = taking.as_mut() => Step::Jobs(jobs),
                }
            };
            let step = self.settling.along(step).await;
            if matches!(step, Step::Jobs(_)) {
                taking.set(take(&shared));
            }
            if self.deal_with(step).is_break() {
                break;
            }
            self.settling.make_room().await;
        }
        drop(taking);
        self.sought.clear();
        self.scans.clear();
        shared.sites.clear();
        self.settling.finish().await;
    }

    fn deal_with(&mut self, step: Step) -> ControlFlow<()> {
        let sites = &self.shared.sites;
        match step {
            Step::Jobs(jobs) => jobs.into_iter().for_each(|job| self.dispatch(job)),
            Step::Resume(ended) => self.count_recalled(sites.resume(&ended)),
            Step::Resource => self.count_recalled(sites.resource()),
            Step::Senders => self.release(),
            Step::SendersAndResource => {
                self.release();
                self.count_recalled(self.shared.sites.resource());
            }
            Step::Nothing => {}
            Step::Scanned(scanned) => self.scanned(scanned),
            Step::Alarm(sites) => sites.iter().for_each(|site| self.wake(site)),
            Step::News(News { domain, answer }) => self.arrive(domain, answer),
            Step::Stop => return ControlFlow::Break(()),
            Step::Failed => {
                tracing::error!("the spool has failed: no delivery starts any more");
                self.shared.scope.cancel();
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn dispatch(&mut self, mut job: Job) {
        let config = self.shared.config.load_full();
        job.late = report::late_at(&job.claim, &config.settings);
        match self.scans.admit(&config.settings.scan, job) {
            Gate::Open(job) => self.go_on(&config, job),
            Gate::Waits => {}
            Gate::Overdue(job, why) => {
                self.give_word(Overdue { job, said: Some(format!("451 4.3.0 No virus scan: {why}")) });
            }
        }
    }

    fn scanned(&mut self, scanned: Scanned) {
        match scanned {
            Scanned::Passed(jobs) => {
                let config = self.shared.config.load_full();
                jobs.into_iter().for_each(|job| self.go_on(&config, job));
            }
            Scanned::Ended(job, results) => self.settling.settle(&self.shared, *job, results),
            Scanned::Nothing => {}
        }
    }

    /// Sends a job on the way of its domain.
    fn go_on(&mut self, config: &Arc<Config>, job: Job) {
        if config.generation != self.generation {
            self.generation = config.generation;
            self.plans.clear();
            self.sought.let_all_in();
        }
        let domain = &job.claim.queue.domain;
        let is_valid = |plan: &&Plan| plan.until.is_none_or(|until| self.shared.clock.instant() < until);
        match self.plans.get(domain).filter(is_valid) {
            Some(plan) => {
                let way = plan.way.clone();
                self.send(config, &way, job);
            }
            None if self.sought.is_sought(domain) => self.seek(config, job),
            None => self.find(config, job),
        }
    }

    /// Finds the way of a domain by its route.
    fn find(&mut self, config: &Arc<Config>, job: Job) {
        let domain = job.claim.queue.domain.clone();
        let target = match config.routes.lookup(&domain) {
            Route::Mx => return self.seek(config, job),
            Route::Hold => return self.holds.begin(job),
            Route::Static(route) => Some(Arc::new(Target::of_route(route))),
            Route::Smarthost(name) => config.smarthosts.get(&**name).cloned(),
            Route::BuiltIn(name) => {
                let dialer = self.shared.built_in.get(&**name).cloned();
                dialer.map(|dialer| Arc::new(Target::of_built_in(name, dialer)))
            }
        };
        match target {
            Some(target) => {
                let way = Way::of(target);
                self.remember(domain, Plan { way: way.clone(), until: None });
                self.send(config, &way, job);
            }
            // The settings were checked: their routes lead somewhere.
            None => self.refuse(vec![job], &Finding::internal("the route leads nowhere")),
        }
    }

    /// Asks the DNS, or waits for its answer.
    fn seek(&mut self, config: &Arc<Config>, job: Job) {
        let domain = job.claim.queue.domain.clone();
        if !self.sought.add(job, config.generation, &config.settings.limits) {
            return;
        }
        let (shared, config, of) = (self.shared.clone(), config.clone(), domain.clone());
        self.ask(domain, async move { look_up(&shared, &config, &of).await });
    }

    /// Has a task do a step of a lookup, and tell what came of it.
    fn ask(&self, domain: Domain, step: impl Future<Output = Result<Known, Finding>> + Send + 'static) {
        let answer = Err(Finding::internal("the lookup failed"));
        let report = self.report(News { domain: domain.clone(), answer });
        let shared = self.shared.clone();
        self.shared.scope.spawn("lookup", async move {
            tokio::select! {
                biased;
                answer = step => report.say(News { domain, answer }),
                () = shared.scope.cancelled() => {}
            }
        });
    }

    /// A step of a lookup has ended: the next one begins, or those that waited go on.
    fn arrive(&mut self, domain: Domain, answer: Result<Known, Finding>) {
        let config = self.shared.config.load_full();
        match answer {
            Ok(Known::Hosts(hosts)) => {
                if self.sought.fetch(&domain, &config.settings.limits) {
                    let (shared, config, of) = (self.shared.clone(), config.clone(), domain.clone());
                    self.ask(domain, async move { find_policy(&shared, &config, &of, hosts).await });
                }
            }
            Ok(Known::Way(way, holds)) => self.end(&config, &domain, Ok((way, holds))),
            Err(finding) => self.end(&config, &domain, Err(finding)),
        }
        self.sought.let_in(&config.settings.limits);
    }

    /// A lookup has ended: those that waited for it go on.
    fn end(&mut self, config: &Config, domain: &Domain, answer: Result<(Way, Duration), Finding>) {
        let Some((Waiting { generation, jobs, .. }, left)) = self.sought.end(domain) else { return };
        match answer {
            // The domain may have another route by now.
            _ if generation != config.generation => jobs.into_iter().for_each(|job| self.dispatch(job)),
            Ok((way, holds)) => {
                let until = Some(self.shared.clock.instant() + holds);
                self.remember(domain.clone(), Plan { way: way.clone(), until });
                for job in jobs {
                    self.send(config, &way, job);
                }
            }
            Err(finding) => self.refuse(jobs, &finding),
        }
        left.iter().for_each(|queue| self.shared.spool.unpark(queue));
    }

    fn send(&mut self, config: &Config, way: &Way, mut job: Job) {
        let set = lane::configuration_set(&self.shared.accounts, &job.claim.message);
        let demand = Demand::of(&job.claim.message, set.as_deref());
        let target = match way.for_demand(demand) {
            Ok(target) => target,
            Err(finding) => return self.refuse(vec![job], finding),
        };
        if set.as_ref().is_some_and(|set| set.per_recipient) {
            while let Some(copy) = job.split_first(&self.shared.ready) {
                self.hand_on(config, target, set.as_deref(), copy);
            }
        }
        self.hand_on(config, target, set.as_deref(), job);
    }

    /// Gives a job to the lane that is right for it.
    fn hand_on(&mut self, config: &Config, target: &Arc<Target>, set: Option<&ConfigurationSet>, mut job: Job) {
        let message = &job.claim.message;
        let demand = Demand::of(message, set);
        let pause = SenderPause::of(&self.shared.accounts, message.account, message.origin.kind, set);
        let (by, choice) = match pause {
            Some(pause) => {
                self.held.add(message.account, &pause);
                (HeldBy::Sender, Choice::Wait { until: message.expires_at, why: pause.words() })
            }
            None => (HeldBy::Source, self.choose_source(target, set, &job)),
        };
        let (source, wait) = match choice {
            Choice::Use { source, place } => {
                job.place = place;
                (source, None)
            }
            Choice::Wait { until, why } => (None, Some((until, why))),
        };
        let lane = Lane { site: target.name.clone(), source, demand };
        let (generation, limits) = (config.generation, &config.settings.limits);
        let destination = Destination { generation, target, lane, limits };
        let pushed = match wait {
            None => self.shared.sites.push(destination, job),
            Some((until, why)) => self.shared.sites.hold_back(destination, job, until, &why, by),
        };
        match pushed {
            Pushed::Taken => {}
            Pushed::Opens(site) => self.shared.start_worker(site),
            Pushed::Overdue(overdue) => self.give_word(overdue),
            Pushed::Unreachable(site, job, refused) => {
                let (job, results) = Attempt::new(&self.shared, &site, job).refuse(&refused);
                self.settling.settle(&self.shared, job, results);
            }
        }
    }

    /// Where a job leaves from.
    fn choose_source(&self, target: &Target, set: Option<&ConfigurationSet>, job: &Job) -> Choice {
        let shared = &self.shared;
        if matches!(target.kind, Kind::BuiltIn(_)) || !shared.sources.are_there() {
            return Choice::Use { source: None, place: Place::default() };
        }
        let message = &job.claim.message;
        let provider = shared.governor.provider(target);
        let last = job.claim.recipients.iter().find_map(|due| due.last.as_ref()?.remote.as_ref()?.source_ip);
        shared.sources.choose(&Wish {
            account: message.account,
            pool: set.and_then(|set| set.pool.as_deref()),
            site: provider.as_deref().unwrap_or(&target.name),
            by_dns: target.is_found_by_dns(),
            last,
            now: shared.clock.now(),
            paused: &|source| shared.governor.is_paused(&target.name, Some(&source.name)),
        })
    }

    /// A site's alarm has gone off.
    fn wake(&mut self, site: &Arc<Site>) {
        site.ring().into_iter().for_each(|overdue| self.give_word(overdue));
        self.shared.sites.tidy(site);
    }

    /// What was held of senders goes on that are not paused any more.
    fn release(&mut self) {
        let accounts = self.held.take_ended(&self.shared.accounts);
        if !accounts.is_empty() {
            self.count_recalled(self.shared.sites.release(&accounts));
        }
    }

    fn count_recalled(&self, queues: u64) {
        self.shared.metrics.outbound_recalled.inc_by(queues);
    }

    fn give_word(&mut self, overdue: Overdue) {
        let results = unattempted::overdue(&self.shared, &overdue);
        self.settling.settle(&self.shared, overdue.job, results);
    }

    fn refuse(&mut self, jobs: Vec<Job>, finding: &Finding) {
        for job in jobs {
            let results = unattempted::unrouted(&self.shared, &job, finding);
            self.settling.settle(&self.shared, job, results);
        }
    }

    fn report(&self, news: News) -> Report<News> {
        Report::new(news, &self.news_sender)
    }

    fn remember(&mut self, domain: Domain, plan: Plan) {
        if self.plans.len() >= MOST_PLANS {
            self.plans.clear();
        }
        self.plans.insert(domain, plan);
    }
}

/// Asks the DNS for the hosts of `domain`, and at the same time for its policy. One that
/// has to be fetched is another step, so that it keeps nobody else from looking up.
async fn look_up(shared: &Shared, config: &Config, domain: &Domain) -> Result<Known, Finding> {
    let limit = config.settings.timeouts.lookup.as_duration();
    let (began, found, announced) = {
        let _turn = shared.lookups.acquire().await;
        let began = shared.clock.instant();
        let finding = find_mx(&*shared.resolver, domain, shared.submission.settings().hostname());
        let (found, announced) = tokio::join!(timeout(limit, finding), shared.sts.announced(config, domain));
        (began, found, announced)
    };
    let silent = |_| Err(Finding::no_dns(domain.as_str()).asking(&format!("DNS MX {domain}"), ""));
    let (target, holds) = found.unwrap_or_else(silent).map_err(|mut finding| {
        let took = shared.clock.instant().duration_since(began);
        finding.asked.iter_mut().for_each(|asked| asked.ms = millis(took));
        finding
    })?;
    let hosts = Hosts { target, holds, announced };
    match shared.sts.has_to_fetch(config, domain, hosts.announced.as_deref()) {
        true => Ok(Known::Hosts(hosts)),
        false => find_policy(shared, config, domain, hosts).await,
    }
}

/// The way to these hosts of `domain` by its policy, which is fetched if need be.
async fn find_policy(shared: &Shared, config: &Config, domain: &Domain, hosts: Hosts) -> Result<Known, Finding> {
    let Hosts { target, holds, announced } = hosts;
    let known = shared.sts.find(config, domain, announced.as_deref()).await;
    let known = known.map_err(|_| Finding::no_tls(&format!("the MTA-STS policy of {domain} cannot be read here")))?;
    if let Some(error) = &known.failed {
        shared.tls_reports.note_fetch(&config.settings, domain, error);
    }
    let holds = known.holds.map_or(holds, |policy| policy.min(holds));
    let named = |target| shared.governor.split(domain, target);
    let way = sts::apply(target, domain, known.policy.as_ref(), named);
    if way.is_closed() {
        shared.tls_reports.note_unmatched(&config.settings, domain);
    }
    Ok(Known::Way(way, holds))
}

enum Step {
    Jobs(Vec<Job>),
    Alarm(Vec<Arc<Site>>),
    /// Pauses have ended.
    Resume(Vec<Ended>),
    /// There is news of the addresses to leave from.
    Resource,
    /// Senders may be paused or not any more.
    Senders,
    SendersAndResource,
    Nothing,
    Scanned(Scanned),
    News(News),
    Stop,
    Failed,
}

/// Takes what is due, as far as there is room for it.
async fn take(shared: &Shared) -> Vec<Job> {
    let room = shared.ready.available_permits().clamp(1, BATCH);
    let permits = u32::try_from(room).unwrap_or(1);
    let Ok(mut rooms) = shared.ready.clone().acquire_many_owned(permits).await else { return Vec::new() };
    let claims = shared.spool.take_due(room).await;
    claims
        .into_iter()
        .filter_map(|claim| Some(Job { claim, room: rooms.split(1)?, place: Place::default(), late: None }))
        .collect()
}
