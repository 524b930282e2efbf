//! Operations on how mail is sent: configuration sets, pools, the addresses it leaves from.

use std::collections::BTreeSet;

use postrider_account::{
    ConfigurationOption, ConfigurationSets, DestinationTarget, EventDestination, EventType, Pools,
};
use postrider_base::Timestamp;
use postrider_delivery::{Delivery, ReverseDns, SourceCounts, SourceView};
use postrider_mail::AccountId;
use serde::{Deserialize, Serialize};

use crate::{Error, Response, moment};

/// Actions on configuration sets.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigurationSetOperation {
    /// Adds somebody who is told of the events of a set.
    AddDestination {
        /// Whose.
        account: AccountId,
        /// The set.
        name: String,
        /// Who.
        destination: EventDestination,
    },
    /// Changes an event destination; what is not named stays.
    ChangeDestination {
        /// Whose.
        account: AccountId,
        /// The set.
        name: String,
        /// The destination.
        destination: String,
        /// Whether it is told anything.
        enabled: Option<bool>,
        /// What it is told.
        matching: Option<BTreeSet<EventType>>,
        /// What it is.
        target: Option<DestinationTarget>,
    },
    /// Makes a set.
    Create {
        /// Whose.
        account: AccountId,
        /// Its name.
        name: String,
        /// Its rules; the others have their defaults.
        options: Vec<ConfigurationOption>,
    },
    /// Forgets a set.
    Delete {
        /// Whose.
        account: AccountId,
        /// Its name.
        name: String,
    },
    /// All sets of an account.
    List {
        /// Whose.
        account: AccountId,
    },
    /// Forgets an event destination.
    RemoveDestination {
        /// Whose.
        account: AccountId,
        /// The set.
        name: String,
        /// The destination.
        destination: String,
    },
    /// Changes rules of a set.
    Set {
        /// Whose.
        account: AccountId,
        /// Its name.
        name: String,
        /// The rules to change; the others stay.
        options: Vec<ConfigurationOption>,
    },
    /// One set.
    Show {
        /// Whose.
        account: AccountId,
        /// Its name.
        name: String,
    },
}

impl ConfigurationSetOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::AddDestination { .. } => "event-destinations-create",
            Self::ChangeDestination { .. } => "event-destinations-set",
            Self::RemoveDestination { .. } => "event-destinations-delete",
            Self::Create { .. } => "configuration-sets-create",
            Self::Delete { .. } => "configuration-sets-delete",
            Self::List { .. } => "configuration-sets-list",
            Self::Set { .. } => "configuration-sets-set",
            Self::Show { .. } => "configuration-sets-show",
        }
    }

    pub(crate) async fn execute(self, sets: &ConfigurationSets) -> Result<Response, Error> {
        Ok(match self {
            Self::AddDestination { account, name, destination } => {
                sets.add_destination(account, &name, destination).await?;
                Response::Changed { count: 1 }
            }
            Self::ChangeDestination { account, name, destination, enabled, matching, target } => {
                let change = |found: &mut EventDestination| {
                    found.enabled = enabled.unwrap_or(found.enabled);
                    found.matching = matching.unwrap_or_else(|| found.matching.clone());
                    found.target = target.unwrap_or_else(|| found.target.clone());
                };
                sets.change_destination(account, &name, &destination, change).await?;
                Response::Changed { count: 1 }
            }
            Self::RemoveDestination { account, name, destination } => {
                sets.remove_destination(account, &name, &destination).await?;
                Response::Changed { count: 1 }
            }
            Self::Create { account, name, options } => {
                sets.create(account, &name, options).await?;
                Response::Changed { count: 1 }
            }
            Self::Delete { account, name } => {
                sets.delete(account, &name).await?;
                Response::Changed { count: 1 }
            }
            Self::List { account } => {
                Response::ConfigurationSets(sets.list(account).iter().map(|set| (**set).clone()).collect())
            }
            Self::Set { account, name, options } => {
                sets.set(account, &name, options).await?;
                Response::Changed { count: 1 }
            }
            Self::Show { account, name } => {
                let absent = || Error::NotFound(format!("there is no configuration set {name:?}"));
                Response::ConfigurationSets(vec![(*sets.find(account, &name).ok_or_else(absent)?).clone()])
            }
        })
    }
}

/// Actions on dedicated pools.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolOperation {
    /// Puts a source into a pool, or changes its weight there; it leaves the other pool that
    /// it was in.
    Assign {
        /// Whose.
        account: AccountId,
        /// The pool.
        name: String,
        /// The source, as the configuration names it.
        source: String,
        /// Its share against the pool's others.
        weight: u32,
    },
    /// Makes a pool without sources.
    Create {
        /// Whose.
        account: AccountId,
        /// Its name.
        name: String,
    },
    /// Forgets a pool; its sources are in the shared one then.
    Delete {
        /// Whose.
        account: AccountId,
        /// Its name.
        name: String,
    },
    /// All pools of an account.
    List {
        /// Whose.
        account: AccountId,
    },
    /// Takes a source out of a pool; it is in the shared one then.
    Remove {
        /// Whose.
        account: AccountId,
        /// The pool.
        name: String,
        /// The source.
        source: String,
    },
}

impl PoolOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Assign { .. } => "pools-assign",
            Self::Create { .. } => "pools-create",
            Self::Delete { .. } => "pools-delete",
            Self::List { .. } => "pools-list",
            Self::Remove { .. } => "pools-remove",
        }
    }

    /// `known` are the sources of the configuration.
    pub(crate) async fn execute(self, pools: &Pools, known: &[String]) -> Result<Response, Error> {
        Ok(match self {
            Self::Assign { source, .. } if !known.contains(&source) => return Err(no_source(&source)),
            Self::Assign { account, name, source, weight } => {
                Response::Assigned { left: pools.assign(account, &name, &source, weight).await? }
            }
            Self::Create { account, name } => {
                pools.create(account, &name).await?;
                Response::Changed { count: 1 }
            }
            Self::Delete { account, name } => {
                pools.delete(account, &name).await?;
                Response::Changed { count: 1 }
            }
            Self::List { account } => {
                Response::Pools(pools.list(account).iter().map(|pool| (**pool).clone()).collect())
            }
            Self::Remove { account, name, source } => {
                pools.remove(account, &name, &source).await?;
                Response::Changed { count: 1 }
            }
        })
    }
}

/// Actions on the addresses that mail leaves from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceOperation {
    /// All of them.
    List,
    /// One of them.
    Show {
        /// What the configuration calls it.
        name: String,
    },
    /// Begins a warm-up anew.
    WarmUp {
        /// What the configuration calls the source.
        name: String,
        /// Where it begins; at 100 it is complete.
        percent: u8,
    },
}

impl SourceOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::List => "sources-list",
            Self::Show { .. } => "sources-show",
            Self::WarmUp { .. } => "sources-warm-up",
        }
    }

    pub(crate) async fn execute(self, delivery: &Delivery) -> Result<Response, Error> {
        Ok(match self {
            Self::List => Response::Sources(delivery.sources().into_iter().map(SourceRow::from).collect()),
            Self::Show { name } => {
                let found = delivery.sources().into_iter().find(|source| source.name == name);
                Response::Sources(vec![found.ok_or_else(|| no_source(&name))?.into()])
            }
            Self::WarmUp { percent: 101.., .. } => {
                return Err(Error::Invalid("a warm-up begins at 0 to 100 percent".to_owned()));
            }
            Self::WarmUp { name, percent } => {
                delivery.warm_up(&name, percent).await.map_err(|error| match error {
                    postrider_delivery::Error::NoSuchSource(_) => no_source(&name),
                    other => Error::Failed(other.to_string()),
                })?;
                Response::Changed { count: 1 }
            }
        })
    }
}

fn no_source(name: &str) -> Error {
    Error::NotFound(format!("there is no source {name:?} in the configuration"))
}

/// An address that mail leaves from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SourceRow {
    /// What the configuration calls it.
    pub name: String,
    /// Its IPv4 address.
    pub ipv4: Option<String>,
    /// Its IPv6 address.
    pub ipv6: Option<String>,
    /// Whether mail leaves from its IPv6 address.
    pub ipv6_used: bool,
    /// What reverse DNS says of the IPv4 address: the name that is confirmed, or what is wrong.
    pub reverse_ipv4: Option<String>,
    /// The same of the IPv6 address.
    pub reverse_ipv6: Option<String>,
    /// Whether something is wrong with either.
    pub reverse_confirmed: bool,
    /// The name given in EHLO, where it has one of its own.
    pub ehlo_name: Option<String>,
    /// Whose pool it is in.
    pub account: Option<String>,
    /// The name of that pool; none is the shared one.
    pub pool: Option<String>,
    /// `pause` or `move`.
    pub on_block: String,
    /// How far it is warmed up.
    pub warm_up: WarmUpRow,
    /// What became of its mail, by day (UTC), oldest first.
    pub days: Vec<SourceDay>,
}

/// How far a source is warmed up.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct WarmUpRow {
    /// `off`, `in progress` or `complete`.
    pub status: String,
    /// 1 to 100.
    pub percent: u8,
    /// When it began.
    #[serde(with = "moment")]
    pub since: Timestamp,
    /// When it is complete, or was.
    #[serde(with = "moment")]
    pub until: Timestamp,
    /// Most messages to one site today, while it is in progress.
    pub daily: Option<u32>,
    /// Messages of today by site, the busiest first.
    pub today: Vec<(String, u32)>,
}

/// One day of a source.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SourceDay {
    /// When it began.
    #[serde(with = "moment")]
    pub day: Timestamp,
    /// What became of its mail.
    #[serde(flatten)]
    pub counts: SourceCounts,
}

impl From<SourceView> for SourceRow {
    fn from(source: SourceView) -> SourceRow {
        let warm_up = source.warm_up;
        let in_progress = warm_up.enabled && warm_up.percent < 100;
        let is_wrong = |reverse: &Option<ReverseDns>| matches!(reverse, Some(ReverseDns::Unconfirmed(_)));
        SourceRow {
            reverse_confirmed: !is_wrong(&source.reverse_ipv4) && !is_wrong(&source.reverse_ipv6),
            reverse_ipv4: source.reverse_ipv4.map(told),
            reverse_ipv6: source.reverse_ipv6.map(told),
            name: source.name,
            ipv4: source.ipv4.map(|ip| ip.to_string()),
            ipv6: source.ipv6.map(|ip| ip.to_string()),
            ipv6_used: source.ipv6_used,
            ehlo_name: source.ehlo_name,
            account: source.account,
            pool: source.pool,
            on_block: source.on_block.as_str().to_owned(),
            warm_up: WarmUpRow {
                status: match () {
                    () if in_progress => "in progress",
                    () if warm_up.enabled => "complete",
                    () => "off",
                }
                .to_owned(),
                percent: warm_up.percent,
                since: warm_up.since,
                until: warm_up.until,
                daily: warm_up.daily.filter(|_| in_progress),
                today: warm_up.today,
            },
            days: source.days.into_iter().map(|(day, counts)| SourceDay { day, counts }).collect(),
        }
    }
}

/// What is wrong with the sources and the pools that name them.
pub(crate) fn warnings(delivery: &Delivery, pools: &Pools) -> Vec<String> {
    let sources = delivery.sources();
    let is_known = |name: &str| sources.iter().any(|source| source.name == name);
    let mut warnings = Vec::new();
    for pool in pools.all() {
        let absent = pool.members.iter().filter(|member| !is_known(&member.source));
        let warning = |source: &str| format!("pool {} names source {source}, which is not configured", pool.name);
        warnings.extend(absent.map(|member| warning(&member.source)));
    }
    let warning = |source: SourceView| {
        let wrong =
            [source.reverse_ipv4, source.reverse_ipv6].into_iter().flatten().filter_map(|reverse| match reverse {
                ReverseDns::Unconfirmed(why) => Some(why),
                _ => None,
            });
        let wrong = wrong.collect::<Vec<_>>().join("; ");
        let unused = if source.ipv6.is_some() && !source.ipv6_used { "; it is not used over IPv6" } else { "" };
        (!wrong.is_empty()).then(|| format!("reverse DNS of source {}: {wrong}{unused}", source.name))
    };
    warnings.extend(sources.into_iter().filter_map(warning));
    warnings
}

fn told(reverse: ReverseDns) -> String {
    match reverse {
        ReverseDns::Unknown => "not looked up yet".to_owned(),
        ReverseDns::Private => "not looked up: the address is private".to_owned(),
        ReverseDns::Confirmed(name) => name,
        ReverseDns::Unconfirmed(why) => format!("not confirmed: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_whole() {
        let options = vec![ConfigurationOption::Pool(None), ConfigurationOption::PerRecipient(true)];
        let set = ConfigurationSetOperation::Set { account: AccountId::default(), name: "news".into(), options };
        let text = serde_json::to_string(&set).unwrap();
        assert_eq!(
            text,
            r#"{"set":{"account":"000000000001","name":"news","options":[{"pool":null},{"per-recipient":true}]}}"#
        );
        assert_eq!(serde_json::from_str::<ConfigurationSetOperation>(&text).unwrap(), set);
        let row =
            SourceDay { day: Timestamp::from_millis(0), counts: SourceCounts { attempts: 1, ..Default::default() } };
        let text = serde_json::to_string(&row).unwrap();
        assert!(text.starts_with(r#"{"day":"1970-01-01T00:00:00.000Z","attempts":1,"#), "{text}");
        assert_eq!(serde_json::from_str::<SourceDay>(&text).unwrap(), row);
    }
}
