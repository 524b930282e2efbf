//! How much mail goes where: the rules, how they stand, pauses.

use postrider_base::{Period, Timestamp};
use postrider_delivery::Delivery;
use postrider_delivery::shaping::{
    FeedbackView, PauseRequest, PauseView, ReplyView, RuleView, ShapingView, SiteShaping, StateView,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Response, moment};

/// Actions on shaping.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShapingOperation {
    /// Everything that pauses.
    List,
    /// Lets no mail out to a domain, a site or a provider.
    Pause {
        /// The domain, host, site or provider.
        name: String,
        /// Only what leaves from this source.
        source: Option<String>,
        /// How long; none is until it is lifted.
        time: Option<Period>,
        /// Why.
        reason: Option<String>,
    },
    /// Ends the pauses of a name, those that replies led to included.
    Resume {
        /// The domain, host, site or provider.
        name: String,
        /// Only pauses of this source.
        source: Option<String>,
    },
    /// Which rules hold, from where, and how it stands.
    Show {
        /// A recipient domain, host, site or provider.
        name: String,
    },
}

impl ShapingOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::List => "shaping-list",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Show { .. } => "shaping-show",
        }
    }

    pub(crate) async fn execute(self, delivery: &Delivery) -> Result<Response, Error> {
        Ok(match self {
            Self::List => Response::Pauses(delivery.pauses().into_iter().map(PauseRow::from).collect()),
            Self::Pause { name, source, time, reason } => {
                let time = time.map(Period::as_duration);
                let pause = delivery.pause(PauseRequest { name, source, time, reason }).await.map_err(error)?;
                Response::Pauses(vec![pause.into()])
            }
            Self::Resume { name, source } => {
                let count = delivery.resume(&name, source.as_deref()).await.map_err(error)?;
                Response::Changed { count: count as u64 }
            }
            Self::Show { name } => Response::Shaping(Box::new(delivery.shaping(&name).await.map_err(error)?.into())),
        })
    }
}

fn error(error: postrider_delivery::Error) -> Error {
    match error {
        postrider_delivery::Error::Unknown(reason) => Error::NotFound(reason),
        error @ postrider_delivery::Error::NoSuchSource(_) => Error::NotFound(error.to_string()),
        postrider_delivery::Error::Settings(reason) => Error::Invalid(reason),
        other => Error::Failed(other.to_string()),
    }
}

/// Which rules hold for a domain, a site or a provider, and how it stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ShapingRow {
    /// What was asked for.
    pub name: String,
    /// Who runs the sites.
    pub provider: Option<ProviderRow>,
    /// The sites.
    pub sites: Vec<SiteShapingRow>,
    /// The feedback rules in the order in which they are tried.
    pub feedback: Vec<FeedbackRow>,
}

/// A provider.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ProviderRow {
    /// Its name in the rules.
    pub name: String,
    /// Ends of the names of its hosts.
    pub mx: Vec<String>,
    /// How it stands, over all of its sites.
    pub state: ShapingState,
}

/// A site with its rules.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SiteShapingRow {
    /// The site's name.
    pub name: String,
    /// Its rules.
    pub rules: Vec<RuleRow>,
    /// How it stands; none while it is not in use.
    pub state: Option<ShapingState>,
}

/// One rule of a site.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RuleRow {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The entry and the file that it is from.
    pub from: String,
}

/// How a site or a provider stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ShapingState {
    /// Connections that are open or being opened.
    pub connections: usize,
    /// Connections that there may be now; none is any number.
    pub limit: Option<usize>,
    /// Connections that the rules allow at most; none is any number.
    pub most: Option<usize>,
    /// Connections that wait for their turn.
    pub waiting: usize,
    /// Messages that it took since it was last forgotten.
    pub messages: u64,
    /// The rate that holds now.
    pub rate: Option<String>,
    /// Messages that may go at once by that rate.
    pub tokens: Option<u64>,
    /// How often connections and rate are halved at the moment.
    pub halved: u32,
    /// What pauses.
    pub pauses: Vec<PauseRow>,
    /// The last replies that were no success, oldest first.
    pub replies: Vec<ReplyRow>,
}

/// Mail that does not leave for a while.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PauseRow {
    /// The domain, host, site or provider.
    pub name: String,
    /// Only from this source; `system` is the address that the system chooses.
    pub source: Option<String>,
    /// Only what this domain signs.
    pub signing_domain: Option<String>,
    /// `operator`, `source`, `signing_domain` or `block`.
    pub kind: String,
    /// When it began.
    #[serde(with = "moment")]
    pub since: Timestamp,
    /// When it ends by itself.
    #[serde(with = "moment::optional")]
    pub until: Option<Timestamp>,
    /// The reply that it came from, or what the operator said.
    pub why: String,
}

/// What a host said.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ReplyRow {
    /// When.
    #[serde(with = "moment")]
    pub at: Timestamp,
    /// The stage of the session.
    pub stage: String,
    /// The reply, in one line.
    pub text: String,
    /// The feedback rule that it met.
    pub rule: Option<String>,
}

/// A feedback rule.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FeedbackRow {
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: String,
    /// The file that it is from.
    pub from: String,
    /// The reply that it was made for.
    pub example: String,
}

impl From<ShapingView> for ShapingRow {
    fn from(view: ShapingView) -> ShapingRow {
        let provider = view.provider.map(|provider| ProviderRow {
            name: provider.name,
            mx: provider.mx,
            state: provider.state.into(),
        });
        ShapingRow {
            name: view.name,
            provider,
            sites: view.sites.into_iter().map(SiteShapingRow::from).collect(),
            feedback: view.feedback.into_iter().map(FeedbackRow::from).collect(),
        }
    }
}

impl From<SiteShaping> for SiteShapingRow {
    fn from(site: SiteShaping) -> SiteShapingRow {
        let rule = |RuleView { key, value, from }| RuleRow { key, value, from };
        SiteShapingRow {
            name: site.name,
            rules: site.rules.into_iter().map(rule).collect(),
            state: site.state.map(ShapingState::from),
        }
    }
}

impl From<StateView> for ShapingState {
    fn from(state: StateView) -> ShapingState {
        ShapingState {
            connections: state.connections,
            limit: state.limit,
            most: state.most,
            waiting: state.waiting,
            messages: state.messages,
            rate: state.rate,
            tokens: state.tokens,
            halved: state.halved,
            pauses: state.pauses.into_iter().map(PauseRow::from).collect(),
            replies: state.replies.into_iter().map(ReplyRow::from).collect(),
        }
    }
}

impl From<PauseView> for PauseRow {
    fn from(pause: PauseView) -> PauseRow {
        let PauseView { name, source, signing_domain, kind, since, until, why } = pause;
        PauseRow { name, source, signing_domain, kind: kind.to_owned(), since, until, why }
    }
}

impl From<ReplyView> for ReplyRow {
    fn from(reply: ReplyView) -> ReplyRow {
        ReplyRow { at: reply.at, stage: reply.stage.to_owned(), text: reply.text, rule: reply.rule }
    }
}

impl From<FeedbackView> for FeedbackRow {
    fn from(rule: FeedbackView) -> FeedbackRow {
        let FeedbackView { name, action, from, example } = rule;
        FeedbackRow { name, action, from, example }
    }
}
