//! What people are told about rates.

use std::fmt::Write as _;

use postrider_account::{Notice, ReputationSettings, Sender, Standing, Tally};

/// What is told, of whom.
pub(super) struct Told<'a> {
    pub(super) sender: &'a Sender,
    pub(super) notice: Notice,
    pub(super) tally: &'a Tally,
    pub(super) standing: &'a Standing,
    pub(super) settings: &'a ReputationSettings,
}

/// What the pause of a set is for its account.
const REST: &str = "\n\nThe rates of the account begin at nothing, without what this set did: the rest of its\n\
                    mail has to show by itself.";

/// The subject and the text of a mail.
pub(super) fn letter(told: &Told<'_>) -> (String, String) {
    let Told { sender, notice, tally, standing, settings } = told;
    let what = match notice {
        Notice::Warning => "has a high rate of bounces or complaints",
        Notice::Review => "is under review",
        Notice::ReviewEnded => "is still over the limit at the end of its review",
        Notice::PauseDue => "should be paused",
        Notice::Paused => "is paused",
    };
    let subject = format!("{sender} {what}");
    let mut text = format!("{subject}.\n\n");
    let _ = write!(
        text,
        "Status:      {}\nBounces:     {} (warning {}, review {}, pause {})\nComplaints:  {} (warning {}, review {}, \
         pause {})\nRecipients:  the last {} with an outcome\n\n{}\n",
        standing.status.as_str(),
        rate(tally.bounce_rate(), tally.bounces),
        percent(settings.bounce_warn),
        percent(settings.bounce_review),
        percent(settings.bounce_pause),
        rate(tally.complaint_rate(), tally.complaints),
        percent(settings.complaint_warn),
        percent(settings.complaint_review),
        percent(settings.complaint_pause),
        tally.recipients,
        advice(told),
    );
    (subject, text)
}

/// Why a rule pauses, in one line.
pub(super) fn reason(tally: &Tally) -> String {
    let Tally { recipients, bounces, complaints } = tally;
    let complained = if *complaints == 0 { String::new() } else { format!(" and {complaints} complaints") };
    format!("{bounces} hard bounces{complained} among the last {recipients} recipients")
}

fn advice(told: &Told<'_>) -> String {
    let options = options(told.sender);
    let until = told.standing.review_until.map(|until| until.rfc3339());
    match told.notice {
        Notice::Warning => "Nothing needs to be done yet. Find out where the addresses come from before it\n\
                            becomes a review."
            .to_owned(),
        Notice::Review => format!(
            "Mail is still sent. Stop the mail that bounces, mend its cause, and then let only what\nfollows count:\n\n    \
             postrider reputation fresh-start {options}\n\nThe review ends at {}.",
            until.unwrap_or_default(),
        ),
        Notice::ReviewEnded | Notice::PauseDue => format!(
            "Mail is still sent: rules may not pause it, or not for this. It is for the operator to\ndecide:\n\n    \
             {}\n    postrider reputation fresh-start {options}",
            command(told.sender, "pause"),
        ),
        Notice::Paused => format!(
            "New mail is answered with 454 Throttling failure: Sending paused, so that clients\nkeep it. What had been \
             accepted before is still sent. Nothing resumes by itself: when the\ncause is mended, resume it, which is \
             a fresh start:\n\n    {}{}",
            command(told.sender, "resume"),
            if told.sender.set.is_some() { REST } else { "" },
        ),
    }
}

fn command(sender: &Sender, verb: &str) -> String {
    match &sender.set {
        None => format!("postrider accounts {verb} {}", sender.account),
        Some(set) => format!("postrider configuration-sets {verb} {set} --account {}", sender.account),
    }
}

fn options(sender: &Sender) -> String {
    match &sender.set {
        None => format!("--account {}", sender.account),
        Some(set) => format!("--account {} --configuration-set {set}", sender.account),
    }
}

fn rate(rate: Option<f64>, count: u32) -> String {
    rate.map_or_else(|| "none".to_owned(), |rate| format!("{} ({count})", percent(rate)))
}

fn percent(rate: f64) -> String {
    let text = format!("{:.2}", rate * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_mail::AccountId;

    #[test]
    fn a_letter_says_what_is_wrong_and_what_to_type() {
        let sender = Sender::set(AccountId::default(), "news");
        let told = Told {
            sender: &sender,
            notice: Notice::Paused,
            tally: &Tally { recipients: 1000, bounces: 100, complaints: 0 },
            standing: &Standing::default(),
            settings: &ReputationSettings::default(),
        };
        let (subject, text) = letter(&told);
        assert_eq!(subject, "configuration set news of account 000000000001 is paused");
        for part in [
            "Bounces:     10% (100) (warning 2%, review 5%, pause 10%)\n",
            "Complaints:  none (warning 0.05%, review 0.1%, pause 0.5%)\n",
            "    postrider configuration-sets resume news --account 000000000001\n",
            "The rates of the account begin at nothing",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 100), "{text}");
        assert_eq!(reason(told.tally), "100 hard bounces among the last 1000 recipients");
    }
}
