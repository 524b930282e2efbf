//! When bounces and complaints speak against a sender.

use postrider_base::Period;
use serde::{Deserialize, Serialize};

/// How rates are counted, and from when on something is done about them. Rates are fractions:
/// 0.05 is 5 %.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ReputationSettings {
    /// The recipients that a rate is made of: the last ones with an outcome, at most so many.
    pub volume: u32,
    /// How long an outcome counts, in whole days.
    pub window: Period,
    /// The recipients that there must be before a rate means anything.
    pub min_sample: u32,
    /// The bounce rate at which operator and owner are warned.
    pub bounce_warn: f64,
    /// The bounce rate at which the sender is under review.
    pub bounce_review: f64,
    /// The bounce rate at which sending should be paused, and is where the account says
    /// `auto_pause`.
    pub bounce_pause: f64,
    /// The complaint rate at which operator and owner are warned.
    pub complaint_warn: f64,
    /// The complaint rate at which the sender is under review.
    pub complaint_review: f64,
    /// The complaint rate at which sending should be paused.
    pub complaint_pause: f64,
    /// How long a review takes.
    pub review_period: Period,
    /// How often rates are looked at.
    pub check_interval: Period,
    /// The most accounts and sets whose rates are exported as metrics: those with the worst.
    pub exported: usize,
}

impl Default for ReputationSettings {
    fn default() -> Self {
        Self {
            volume: 10_000,
            window: Period::from_days(30),
            min_sample: 1_000,
            bounce_warn: 0.02,
            bounce_review: 0.05,
            bounce_pause: 0.10,
            complaint_warn: 0.000_5,
            complaint_review: 0.001,
            complaint_pause: 0.005,
            review_period: Period::from_days(7),
            check_interval: Period::from_secs(30),
            exported: 100,
        }
    }
}

impl ReputationSettings {
    /// Checks what the types can not.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if !(100..=1_000_000).contains(&self.volume) {
            return Err("volume: must be 100 to 1000000".to_owned());
        }
        if self.min_sample == 0 || self.min_sample > self.volume {
            return Err("min_sample: must be 1 to volume".to_owned());
        }
        if self.window < Period::from_days(1) || self.window > Period::from_days(365) {
            return Err("window: must be 1d to 365d".to_owned());
        }
        if self.review_period < Period::from_mins(1) || self.review_period > Period::from_days(365) {
            return Err("review_period: must be 1m to 365d".to_owned());
        }
        if self.check_interval < Period::from_secs(1) || self.check_interval > Period::from_hours(1) {
            return Err("check_interval: must be 1s to 1h".to_owned());
        }
        if self.exported > 10_000 {
            return Err("exported: must be at most 10000".to_owned());
        }
        let ladders = [
            ("bounce", [self.bounce_warn, self.bounce_review, self.bounce_pause]),
            ("complaint", [self.complaint_warn, self.complaint_review, self.complaint_pause]),
        ];
        for (metric, [warn, review, pause]) in ladders {
            let is_ladder = 0.0 < warn && warn <= review && review <= pause && pause <= 1.0;
            if !is_ladder {
                return Err(format!(
                    "{metric}_warn, {metric}_review and {metric}_pause: must grow in this order, above 0 and up to 1"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_refused_by_name() {
        let with = |change: fn(&mut ReputationSettings)| {
            let mut settings = ReputationSettings::default();
            change(&mut settings);
            settings.validate().unwrap_err()
        };
        assert_eq!(ReputationSettings::default().validate(), Ok(()));
        assert!(with(|s| s.volume = 99).starts_with("volume: "));
        assert!(with(|s| s.min_sample = 0).starts_with("min_sample: "));
        assert!(with(|s| s.min_sample = 10_001).starts_with("min_sample: "));
        assert!(with(|s| s.window = Period::from_hours(23)).starts_with("window: "));
        assert!(with(|s| s.review_period = Period::from_secs(1)).starts_with("review_period: "));
        assert!(with(|s| s.check_interval = Period::from_secs(0)).starts_with("check_interval: "));
        assert!(with(|s| s.exported = 10_001).starts_with("exported: "));
        assert!(with(|s| s.bounce_warn = 0.06).starts_with("bounce_warn, "));
        assert!(with(|s| s.bounce_warn = f64::NAN).starts_with("bounce_warn, "));
        assert!(with(|s| s.complaint_pause = 1.1).starts_with("complaint_warn, "));
    }
}
