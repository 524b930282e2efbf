//! What `postrider configuration-sets` shows, and the destinations of a set's events.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use postrider_account::{
    ConfigurationOption, ConfigurationSet, DestinationTarget, Dimension, DimensionSource, EventDestination, Pause,
    PausedBy, Sending, TlsPolicy,
};
use postrider_base::{Period, Timestamp};
use postrider_control::{ConfigurationSetOperation, Operation, Response};
use postrider_mail::SuppressionReason;
use serde_json::{Value, json};

use super::sending::changed;
use crate::access::Access;
use crate::cli::{EventDestinationsCommand, OnOff, SetOptions, SuppressionChoice, TargetArgs};
use crate::output::{Output, or_dash, time};

impl SetOptions {
    /// The rules that are named; `now` is when a pause or a fresh start begins.
    pub(super) fn into_list(self, now: Timestamp) -> Result<Vec<ConfigurationOption>> {
        type Option = ConfigurationOption;
        let suppression = suppression(&self.suppression)?;
        let switch = |sending| match sending {
            OnOff::On => Sending::Enabled,
            OnOff::Off => {
                Sending::Paused(Pause { by: PausedBy::Operator, at: now, reason: String::new(), hold: false })
            }
        };
        let all = [
            self.tls.map(|tls| Option::Tls(tls.into())),
            self.pool.map(|pool| Option::Pool(Some(pool))),
            self.no_pool.then_some(Option::Pool(None)),
            self.max_lifetime.map(|lifetime| Option::MaxLifetime(Some(lifetime))),
            self.no_max_lifetime.then_some(Option::MaxLifetime(None)),
            (!self.retry.is_empty()).then_some(Option::Retry(Some(self.retry))),
            self.no_retry.then_some(Option::Retry(None)),
            self.per_recipient.then_some(Option::PerRecipient(true)),
            self.no_per_recipient.then_some(Option::PerRecipient(false)),
            self.sending.map(|sending| Option::Sending(switch(sending))),
            suppression.map(Option::SuppressedReasons),
            self.tracking_domain.map(|domain| Option::TrackingDomain(Some(domain))),
            self.no_tracking_domain.then_some(Option::TrackingDomain(None)),
            self.reputation_metrics.map(|counted| Option::ReputationMetrics(counted.is_on())),
            self.fresh_start.then_some(Option::FreshStart(Some(now))),
        ];
        let tag = |tag: &String| {
            let (key, value) = tag.split_once('=').with_context(|| format!("{tag:?} is no tag: KEY=VALUE"))?;
            Ok(Option::Tag(key.to_owned(), value.to_owned()))
        };
        let tags: Vec<_> = self.tags.iter().map(tag).collect::<Result<_>>()?;
        Ok(all.into_iter().flatten().chain(tags).chain(self.untags.into_iter().map(Option::Untag)).collect())
    }
}

impl OnOff {
    fn is_on(self) -> bool {
        matches!(self, OnOff::On)
    }
}

/// The reasons, where any are named; nothing in them is as the account has it.
fn suppression(choices: &[SuppressionChoice]) -> Result<Option<Option<BTreeSet<SuppressionReason>>>> {
    match choices {
        [] => Ok(None),
        [SuppressionChoice::Inherit] => Ok(Some(None)),
        [SuppressionChoice::None] => Ok(Some(Some(BTreeSet::new()))),
        reasons => {
            let reasons: Option<BTreeSet<_>> = reasons.iter().map(|choice| choice.reason()).collect();
            match reasons {
                Some(reasons) => Ok(Some(Some(reasons))),
                None => bail!("--suppression: none and inherit stand alone"),
            }
        }
    }
}

pub(super) async fn event_destinations(
    command: EventDestinationsCommand,
    access: &mut Access,
    out: &mut Output,
) -> Result<()> {
    type To = ConfigurationSetOperation;
    let operation = match command {
        EventDestinationsCommand::Create { set, name, types, target, disabled, account } => {
            let target = target.into_target()?.context("name a target, as --webhook URL")?;
            let matching = types.into_iter().collect();
            let destination = EventDestination { name, enabled: !disabled, matching, target };
            To::AddDestination { account: access.account(account.account), name: set, destination }
        }
        EventDestinationsCommand::List { set, account } => {
            To::Show { account: access.account(account.account), name: set }
        }
        EventDestinationsCommand::Set { set, name, types, target, enabled, account } => {
            let (target, enabled) = (target.into_target()?, enabled.map(OnOff::is_on));
            let matching = (!types.is_empty()).then(|| types.into_iter().collect());
            if target.is_none() && enabled.is_none() && matching.is_none() {
                bail!("nothing to change: name the types, the target or --enabled");
            }
            let account = access.account(account.account);
            To::ChangeDestination { account, name: set, destination: name, enabled, matching, target }
        }
        EventDestinationsCommand::Delete { set, name, account } => {
            To::RemoveDestination { account: access.account(account.account), name: set, destination: name }
        }
    };
    match access.ask(Operation::ConfigurationSets(operation)).await? {
        Response::ConfigurationSets(sets) => {
            let destinations = sets.first().map(|set| set.event_destinations.as_slice()).unwrap_or_default();
            list_destinations(destinations, out)
        }
        other => changed(&other, out),
    }
}

impl TargetArgs {
    fn into_target(self) -> Result<Option<DestinationTarget>> {
        let metrics = if self.metrics.is_empty() { None } else { Some(dimensions(&self.metrics)?) };
        let webhook = self.webhook.map(DestinationTarget::Webhook);
        let file = self.file.map(DestinationTarget::File);
        let stream = self.stream.map(DestinationTarget::Stream);
        Ok(webhook.or(file).or(stream).or(metrics.map(DestinationTarget::Metrics)))
    }
}

fn dimensions(texts: &[String]) -> Result<BTreeMap<String, Dimension>> {
    let mut dimensions = BTreeMap::new();
    for text in texts {
        let form = || format!("{text:?} is no dimension: tag:NAME=DEFAULT, header:NAME=DEFAULT or link:NAME=DEFAULT");
        let (name, default) = text.split_once('=').with_context(form)?;
        let (source, name) = name.split_once(':').with_context(form)?;
        let source = match source {
            "tag" => DimensionSource::MessageTag,
            "header" => DimensionSource::EmailHeader,
            "link" => DimensionSource::LinkTag,
            _ => bail!(form()),
        };
        if dimensions.insert(name.to_owned(), Dimension { source, default: default.to_owned() }).is_some() {
            bail!("dimension {name:?} is there twice");
        }
    }
    Ok(dimensions)
}

fn list_destinations(destinations: &[EventDestination], out: &mut Output) -> Result<()> {
    if out.json() {
        let all: Vec<_> = destinations.iter().map(destination_json).collect();
        return out.json_document(&json!({ "EventDestinations": all }));
    }
    let rows = destinations.iter().map(|destination| {
        let types: Vec<_> = destination.matching.iter().map(ToString::to_string).collect();
        vec![
            destination.name.clone(),
            if destination.enabled { "yes" } else { "no" }.to_owned(),
            types.join(" "),
            target(&destination.target),
        ]
    });
    out.table(&["NAME", "ENABLED", "EVENT TYPES", "TARGET"], rows.collect(), "no event destinations")
}

fn target(target: &DestinationTarget) -> String {
    match target {
        DestinationTarget::Webhook(url) => format!("webhook {url}"),
        DestinationTarget::File(path) => format!("file {path}"),
        DestinationTarget::Stream(address) => format!("stream {address}"),
        DestinationTarget::Metrics(dimensions) => {
            format!("metrics by {}", dimensions.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
        }
    }
}

pub(super) fn list(sets: &[ConfigurationSet], out: &mut Output) -> Result<()> {
    if out.json() {
        return out.json_document(&sets.iter().map(set_json).collect::<Vec<_>>());
    }
    let rows = sets.iter().map(|set| {
        vec![
            set.name.clone(),
            sending(&set.sending),
            tls(set.tls).to_owned(),
            set.pool.clone().unwrap_or_else(|| "(shared)".to_owned()),
            or_dash(set.max_lifetime),
            or_dash(set.retry.as_deref().map(waits)),
            yes(set.per_recipient).to_owned(),
        ]
    });
    let header = ["NAME", "SENDING", "TLS", "POOL", "MAX LIFETIME", "RETRY", "PER RECIPIENT"];
    out.table(&header, rows.collect(), "no configuration sets")
}

pub(super) fn show(set: &ConfigurationSet, out: &mut Output) -> Result<()> {
    if out.json() {
        return out.json_document(&set_json(set));
    }
    let rows = [
        ("configuration set:", set.name.clone()),
        ("sending:", sending(&set.sending)),
        ("TLS:", tls(set.tls).to_owned()),
        ("pool:", set.pool.clone().unwrap_or_else(|| "(shared)".to_owned())),
        ("max lifetime:", or_dash(set.max_lifetime)),
        ("retry:", or_dash(set.retry.as_deref().map(waits))),
        ("per recipient:", yes(set.per_recipient).to_owned()),
        ("suppression:", reasons(set.suppressed_reasons.as_ref())),
        ("tracking domain:", or_dash(set.tracking_domain.as_ref())),
        ("reputation metrics:", yes(set.reputation_metrics).to_owned()),
        ("fresh start:", or_dash(set.fresh_start.map(time))),
    ];
    for (what, value) in rows {
        out.line(format_args!("{what:20}{value}"))?;
    }
    for (key, value) in &set.tags {
        out.line(format_args!("{:20}{key}={value}", "tag:"))?;
    }
    out.line("")?;
    list_destinations(&set.event_destinations, out)
}

fn sending(sending: &Sending) -> String {
    match sending {
        Sending::Enabled => "on".to_owned(),
        Sending::Paused(pause) if pause.reason.is_empty() => format!("off since {}", time(pause.at)),
        Sending::Paused(pause) => format!("off since {}: {}", time(pause.at), pause.reason),
    }
}

fn tls(policy: TlsPolicy) -> &'static str {
    match policy {
        TlsPolicy::Optional => "optional",
        TlsPolicy::Require => "require",
    }
}

fn waits(waits: &[Period]) -> String {
    waits.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn reasons(reasons: Option<&BTreeSet<SuppressionReason>>) -> String {
    match reasons {
        None => "as the account has it".to_owned(),
        Some(none) if none.is_empty() => "off".to_owned(),
        Some(some) => some.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(" "),
    }
}

/// In the words of SES's `GetConfigurationSet`; what SES has not stands where it would.
fn set_json(set: &ConfigurationSet) -> Value {
    let tags: Vec<_> = set.tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
    let mut document = json!({
        "ConfigurationSetName": set.name,
        "AccountId": set.account,
        "DeliveryOptions": {
            "TlsPolicy": set.tls,
            "SendingPoolName": set.pool,
            "MaxLifetime": set.max_lifetime,
            "Retry": set.retry,
            "PerRecipient": set.per_recipient,
        },
        "ReputationOptions": { "ReputationMetricsEnabled": set.reputation_metrics },
        "SendingOptions": { "SendingEnabled": set.sending == Sending::Enabled },
        "Tags": tags,
        "EventDestinations": set.event_destinations.iter().map(destination_json).collect::<Vec<_>>(),
    });
    if let Some(domain) = &set.tracking_domain {
        document["TrackingOptions"] = json!({ "CustomRedirectDomain": domain });
    }
    if let Some(at) = set.fresh_start {
        document["ReputationOptions"]["LastFreshStart"] = json!(at.rfc3339());
    }
    if let Some(reasons) = &set.suppressed_reasons {
        document["SuppressionOptions"] = json!({ "SuppressedReasons": reasons });
    }
    if let Some(pause) = set.sending.pause() {
        let by = match pause.by {
            PausedBy::Operator => "OPERATOR",
            PausedBy::Rule => "RULE",
        };
        let pause = json!({ "By": by, "At": pause.at.rfc3339(), "Reason": pause.reason, "Hold": pause.hold });
        document["SendingOptions"]["Pause"] = pause;
    }
    document
}

/// As in SES's `GetConfigurationSetEventDestinations`; the kinds of targets are the relay's.
fn destination_json(destination: &EventDestination) -> Value {
    let (kind, target) = match &destination.target {
        DestinationTarget::Webhook(url) => ("WebhookDestination", json!({ "Url": url })),
        DestinationTarget::File(path) => ("FileDestination", json!({ "Path": path })),
        DestinationTarget::Stream(address) => ("StreamDestination", json!({ "Address": address })),
        DestinationTarget::Metrics(dimensions) => {
            let dimension = |(name, dimension): (&String, &Dimension)| {
                json!({
                    "DimensionName": name,
                    "DimensionValueSource": dimension.source,
                    "DefaultDimensionValue": dimension.default,
                })
            };
            let all: Vec<_> = dimensions.iter().map(dimension).collect();
            ("MetricsDestination", json!({ "DimensionConfigurations": all }))
        }
    };
    json!({
        "Name": destination.name,
        "Enabled": destination.enabled,
        "MatchingEventTypes": destination.matching,
        kind: target,
    })
}
