//! What is to be done about rates: SES's ladder of review and pause, one pure step at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider_base::Timestamp;
use serde::{Deserialize, Serialize};

use super::ReputationSettings;
use super::window::Tally;
use crate::PausedBy;

/// Where a sender stands, in SES's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnforcementStatus {
    /// Nothing is to be done.
    #[default]
    Healthy,
    /// It may send, and has until the end of the review to mend what is wrong.
    UnderReview,
    /// The review is over and a rate still too high: a person decides.
    PendingEndOfReviewDecision,
    /// A rate asks for a pause, and rules may not make one here: a person decides.
    PendingSendingPause,
    /// It may not send.
    SendingPaused,
}

impl EnforcementStatus {
    /// SES's spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::UnderReview => "Under review",
            Self::PendingEndOfReviewDecision => "Pending end of review decision",
            Self::PendingSendingPause => "Pending sending pause",
            Self::SendingPaused => "Sending paused",
        }
    }
}

/// What one of its rates has to do with that, in SES's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricStatus {
    /// Nothing.
    #[default]
    Healthy,
    /// It brought the review about and is low enough again.
    AlmostHealed,
    /// It is high enough for a review.
    UnderReview,
    /// It is high enough for a pause, which nobody has made.
    PendingSendingPause,
    /// It is high enough for a pause, and sending is paused.
    SendingPause,
}

impl MetricStatus {
    /// SES's spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::AlmostHealed => "Almost healed",
            Self::UnderReview => "Under review",
            Self::PendingSendingPause => "Pending sending pause",
            Self::SendingPause => "Sending pause",
        }
    }
}

/// What people are told, each once until everything has been well for as long as a review
/// takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// A rate is not good any more.
    Warning,
    /// A review has begun.
    Review,
    /// A review has ended, and did not help.
    ReviewEnded,
    /// A person is to pause sending.
    PauseDue,
    /// A rule has paused sending.
    Paused,
}

/// Where a sender stands, and what people know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Of the whole.
    pub status: EnforcementStatus,
    /// Since when.
    pub since: Timestamp,
    /// When the review ends, during one.
    pub review_until: Option<Timestamp>,
    /// Of the bounce rate.
    pub bounce: MetricStatus,
    /// Of the complaint rate.
    pub complaint: MetricStatus,
    /// What has been told, and when.
    told: BTreeMap<Notice, Timestamp>,
    /// The fresh start that all of this came after.
    fresh: Timestamp,
}

/// What a step is decided by.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// What is counted.
    pub tally: Tally,
    /// Who has paused sending, where somebody has.
    pub paused_by: Option<PausedBy>,
    /// Whether a rule may pause it.
    pub auto_pause: bool,
    /// The last fresh start.
    pub fresh_start: Timestamp,
    /// The time.
    pub now: Timestamp,
}

/// What a step comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where the sender stands now.
    pub standing: Standing,
    /// Whether sending is to be paused, by rule.
    pub pauses: bool,
    /// What people are to be told.
    pub notice: Option<Notice>,
}

/// How bad a rate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Too little has been sent to say.
    Unknown,
    Good,
    Warning,
    Review,
    Pause,
}

impl Tally {
    /// Hard bounces by recipients; `None` before the first bounce, as in SES.
    #[must_use]
    pub fn bounce_rate(&self) -> Option<f64> {
        rate(self.bounces, self.recipients)
    }

    /// Complaints by recipients; `None` before the first complaint, as in SES. SES divides by
    /// the recipients whose providers report complaints, so this one may be lower.
    #[must_use]
    pub fn complaint_rate(&self) -> Option<f64> {
        rate(self.complaints, self.recipients)
    }

    /// Whether enough has been sent for rules to act.
    #[must_use]
    pub fn is_representative(&self, settings: &ReputationSettings) -> bool {
        self.recipients >= settings.min_sample
    }
}

fn rate(count: u32, of: u32) -> Option<f64> {
    (count > 0).then(|| f64::from(count) / f64::from(of.max(1)))
}

impl Standing {
    /// What is to be done in a situation.
    #[must_use]
    pub fn step(&self, situation: &Situation, settings: &ReputationSettings) -> Step {
        let was_resumed = self.status == EnforcementStatus::SendingPaused && situation.paused_by.is_none();
        let starts_anew = was_resumed || situation.fresh_start > self.fresh;
        let anew = Standing { fresh: situation.fresh_start, since: situation.now, ..Standing::default() };
        let before = if starts_anew { &anew } else { self };
        let bounces =
            level(&situation.tally, Tally::bounce_rate, settings, |s| [s.bounce_warn, s.bounce_review, s.bounce_pause]);
        let complaints = level(&situation.tally, Tally::complaint_rate, settings, |s| {
            [s.complaint_warn, s.complaint_review, s.complaint_pause]
        });
        before.follow(bounces, complaints, situation, settings.review_period.as_duration())
    }

    fn follow(&self, bounces: Level, complaints: Level, situation: &Situation, review: Duration) -> Step {
        use EnforcementStatus::{Healthy, SendingPaused};
        let (worst, now) = (bounces.max(complaints), situation.now);
        let pauses = worst == Level::Pause && situation.auto_pause && situation.paused_by.is_none();
        let status = self.next_status(worst, pauses || situation.paused_by.is_some(), now);
        let mut standing = Standing { status, ..self.clone() };
        if status != self.status {
            standing.since = now;
        }
        standing.review_until = match status {
            Healthy | SendingPaused => None,
            _ => self.review_until.or(Some(now.saturating_add(review))),
        };
        standing.bounce = self.bounce.next(bounces, status);
        standing.complaint = self.complaint.next(complaints, status);
        let last_told = self.told.values().max();
        let is_forgotten = last_told.is_none_or(|at| now.saturating_since(*at) >= review);
        if status == Healthy && worst <= Level::Good && is_forgotten {
            standing.told.clear();
        }
        let by_rule = pauses || situation.paused_by == Some(PausedBy::Rule);
        let notice = notice_of(status, worst, by_rule).filter(|notice| !standing.told.contains_key(notice));
        if let Some(notice) = notice {
            standing.told.insert(notice, now);
        }
        Step { standing, pauses, notice }
    }

    fn next_status(&self, worst: Level, is_paused: bool, now: Timestamp) -> EnforcementStatus {
        use EnforcementStatus::{Healthy, PendingEndOfReviewDecision, PendingSendingPause, SendingPaused, UnderReview};
        let is_over = self.review_until.is_some_and(|until| until <= now);
        match (worst, self.status) {
            _ if is_paused => SendingPaused,
            (Level::Pause, _) => PendingSendingPause,
            (Level::Review, PendingEndOfReviewDecision) => PendingEndOfReviewDecision,
            (Level::Review, UnderReview | PendingSendingPause) if is_over => PendingEndOfReviewDecision,
            (Level::Review, _) => UnderReview,
            // It has to stay low until the end of the review.
            (_, UnderReview | PendingSendingPause) if !is_over => UnderReview,
            _ => Healthy,
        }
    }
}

impl MetricStatus {
    fn next(self, level: Level, status: EnforcementStatus) -> Self {
        use EnforcementStatus::{Healthy, SendingPaused};
        match level {
            Level::Pause if status == SendingPaused => Self::SendingPause,
            Level::Pause => Self::PendingSendingPause,
            Level::Review => Self::UnderReview,
            _ if self != Self::Healthy && status != Healthy => Self::AlmostHealed,
            _ => Self::Healthy,
        }
    }
}

fn notice_of(status: EnforcementStatus, worst: Level, by_rule: bool) -> Option<Notice> {
    match status {
        // Also of a pause that was made before, if the process ended before it told anybody.
        EnforcementStatus::SendingPaused if by_rule => Some(Notice::Paused),
        EnforcementStatus::Healthy => (worst == Level::Warning).then_some(Notice::Warning),
        EnforcementStatus::UnderReview => Some(Notice::Review),
        EnforcementStatus::PendingEndOfReviewDecision => Some(Notice::ReviewEnded),
        EnforcementStatus::PendingSendingPause => Some(Notice::PauseDue),
        // Whoever has paused it knows.
        EnforcementStatus::SendingPaused => None,
    }
}

fn level(
    tally: &Tally,
    rate: impl Fn(&Tally) -> Option<f64>,
    settings: &ReputationSettings,
    thresholds: impl Fn(&ReputationSettings) -> [f64; 3],
) -> Level {
    if !tally.is_representative(settings) {
        return Level::Unknown;
    }
    let (rate, [warning, review, pause]) = (rate(tally).unwrap_or(0.0), thresholds(settings));
    match rate {
        _ if rate >= pause => Level::Pause,
        _ if rate >= review => Level::Review,
        _ if rate >= warning => Level::Warning,
        _ => Level::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    /// Bounces of 1,000 recipients, on a day.
    fn on(day: u32, bounces: u32) -> Situation {
        Situation {
            tally: Tally { recipients: 1000, bounces, complaints: 0 },
            paused_by: None,
            auto_pause: false,
            fresh_start: Timestamp::default(),
            now: START.saturating_add(DAY * day),
        }
    }

    fn after(steps: &[Situation]) -> (Standing, Vec<Option<Notice>>) {
        let settings = ReputationSettings::default();
        let mut standing = Standing::default();
        let told = steps.iter().map(|situation| {
            let step = standing.step(situation, &settings);
            standing = step.standing;
            step.notice
        });
        let told = told.collect();
        (standing, told)
    }

    #[test]
    fn each_rate_has_its_status_and_each_notice_comes_once() {
        use EnforcementStatus::{Healthy, PendingSendingPause, UnderReview};
        for (bounces, status, metric, notice) in [
            (19, Healthy, MetricStatus::Healthy, None),
            (20, Healthy, MetricStatus::Healthy, Some(Notice::Warning)),
            (49, Healthy, MetricStatus::Healthy, Some(Notice::Warning)),
            (50, UnderReview, MetricStatus::UnderReview, Some(Notice::Review)),
            (99, UnderReview, MetricStatus::UnderReview, Some(Notice::Review)),
            (100, PendingSendingPause, MetricStatus::PendingSendingPause, Some(Notice::PauseDue)),
        ] {
            let (standing, told) = after(&[on(0, bounces), on(1, bounces)]);
            assert_eq!((standing.status, standing.bounce), (status, metric), "{bounces}");
            assert_eq!(told, [notice, None], "{bounces}");
        }
    }

    #[test]
    fn complaints_count_by_thresholds_of_their_own() {
        let mut situation = on(0, 0);
        situation.tally.complaints = 1;
        let (standing, told) = after(&[situation]);
        assert_eq!((standing.status, standing.complaint), (EnforcementStatus::UnderReview, MetricStatus::UnderReview));
        assert_eq!((standing.bounce, told), (MetricStatus::Healthy, vec![Some(Notice::Review)]));
    }

    #[test]
    fn too_few_recipients_say_nothing() {
        let mut few = on(0, 900);
        (few.tally.recipients, few.auto_pause) = (999, true);
        let step = Standing::default().step(&few, &ReputationSettings::default());
        assert_eq!((step.standing.status, step.pauses, step.notice), (EnforcementStatus::Healthy, false, None));
    }

    #[test]
    fn what_heals_during_a_review_is_healthy_at_its_end() {
        let (standing, told) = after(&[on(0, 60), on(3, 10)]);
        assert_eq!((standing.status, standing.bounce), (EnforcementStatus::UnderReview, MetricStatus::AlmostHealed));
        assert_eq!(told, [Some(Notice::Review), None]);
        let (standing, _) = after(&[on(0, 60), on(3, 10), on(7, 10)]);
        assert_eq!((standing.status, standing.bounce), (EnforcementStatus::Healthy, MetricStatus::Healthy));
        let (standing, told) = after(&[on(0, 60), on(3, 10), on(6, 60), on(7, 60), on(8, 60), on(9, 10)]);
        assert_eq!(standing.status, EnforcementStatus::Healthy);
        assert_eq!(told, [Some(Notice::Review), None, None, Some(Notice::ReviewEnded), None, None]);
    }

    #[test]
    fn a_rule_pauses_where_it_may_and_nothing_resumes_by_itself() {
        let settings = ReputationSettings::default();
        let bad = Situation { auto_pause: true, ..on(0, 100) };
        let step = Standing::default().step(&bad, &settings);
        assert!(step.pauses && step.notice == Some(Notice::Paused));
        assert_eq!(step.standing.bounce, MetricStatus::SendingPause);
        let healed = Situation { paused_by: Some(PausedBy::Rule), auto_pause: true, ..on(20, 0) };
        let later = step.standing.step(&healed, &settings);
        assert_eq!((later.standing.status, later.notice), (EnforcementStatus::SendingPaused, None));
        // A person has resumed it: the next time is a time of its own.
        let resumed = Situation { paused_by: None, fresh_start: bad.now, ..bad };
        let again = later.standing.step(&Situation { now: START.saturating_add(DAY * 21), ..resumed }, &settings);
        assert!(again.pauses && again.notice == Some(Notice::Paused));
    }

    #[test]
    fn of_a_pause_by_rule_people_are_told_though_the_process_ended_in_between() {
        let settings = ReputationSettings::default();
        let paused = |by| Situation { paused_by: Some(by), ..on(0, 100) };
        let step = Standing::default().step(&paused(PausedBy::Rule), &settings);
        assert_eq!((step.pauses, step.notice), (false, Some(Notice::Paused)));
        assert_eq!(step.standing.step(&paused(PausedBy::Rule), &settings).notice, None);
        assert_eq!(Standing::default().step(&paused(PausedBy::Operator), &settings).notice, None);
    }

    #[test]
    fn a_fresh_start_forgets_the_review() {
        let settings = ReputationSettings::default();
        let (standing, _) = after(&[on(0, 60)]);
        let fresh = Situation { fresh_start: START, tally: Tally::default(), ..on(1, 0) };
        let step = standing.step(&fresh, &settings);
        assert_eq!((step.standing.status, step.standing.review_until), (EnforcementStatus::Healthy, None));
    }

    proptest! {
        /// Whatever the rates do: only rules that may pause do, a notice is not repeated within
        /// a review's time, and a review always has an end.
        #[test]
        fn the_ladder_keeps_its_promises(bounces in proptest::collection::vec(0..200u32, 1..60), auto_pause: bool) {
            let settings = ReputationSettings::default();
            let (mut standing, mut is_paused) = (Standing::default(), false);
            let mut told: Vec<(Notice, u32)> = Vec::new();
            for (day, bounces) in (0u32..).zip(bounces) {
                let paused_by = is_paused.then_some(PausedBy::Rule);
                let step = standing.step(&Situation { paused_by, auto_pause, ..on(day, bounces) }, &settings);
                prop_assert_eq!(step.pauses, auto_pause && !is_paused && bounces >= 100);
                is_paused |= step.pauses;
                prop_assert_eq!(step.standing.status == EnforcementStatus::SendingPaused, is_paused);
                let ends = step.standing.review_until.is_some();
                let is_open = !matches!(
                    step.standing.status, EnforcementStatus::Healthy | EnforcementStatus::SendingPaused
                );
                prop_assert_eq!(ends, is_open);
                if let Some(notice) = step.notice {
                    let last = told.iter().rev().find(|(known, _)| *known == notice);
                    prop_assert!(last.is_none_or(|(_, at)| day - at >= 7), "{:?} again on day {}", notice, day);
                    told.push((notice, day));
                }
                standing = step.standing;
            }
        }
    }
}
