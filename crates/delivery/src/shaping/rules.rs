//! What holds for a site, and why.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use postrider_base::Period;
use postrider_mail::Domain;

use super::feedback::Rule;
use super::file::{File, Limits, Provider, TlsMinimum};
use super::rate::Rate;
use crate::Error;
use crate::route::Host;
use crate::settings::{Limits as Defaults, Settings};
use crate::target::Target;

/// The rules that the product comes with.
const BUILT_IN: &str = include_str!("../../../../etc/shaping.toml");

/// The key of the settings that names the operator's file.
const KEY: &str = "shaping.file";

/// All limits and feedback rules: pure data.
#[derive(Debug)]
pub(crate) struct Shaping {
    defaults: Defaults,
    /// The built-in file, then the operator's.
    layers: Vec<Layer>,
    providers: BTreeMap<Arc<str>, Arc<ProviderRules>>,
    /// In the order in which they are tried.
    feedback: Vec<Arc<Rule>>,
}

#[derive(Debug)]
struct Layer {
    origin: Arc<str>,
    file: File,
}

/// What holds for all sites of a provider together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ProviderRules {
    pub(crate) name: Arc<str>,
    /// Ends of the names of its hosts, in lower case, with the dot.
    pub(crate) mx: Vec<String>,
    pub(crate) connections: Option<usize>,
    pub(crate) rate: Option<Rate>,
}

/// What holds for one site.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SiteRules {
    /// Who runs the site, where that is known.
    pub(crate) provider: Option<Arc<ProviderRules>>,
    /// Connections at most.
    pub(crate) connections: usize,
    /// Connections at first.
    pub(crate) initial_connections: usize,
    pub(crate) messages_per_connection: u32,
    pub(crate) rate: Option<Rate>,
    pub(crate) recipients_per_transaction: usize,
    /// The waits between attempts, instead of the settings'.
    pub(crate) retry: Option<Vec<Period>>,
    pub(crate) tls: TlsMinimum,
}

/// What the rules of a site are found by.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The site's name.
    pub(crate) name: Arc<str>,
    /// Its best hosts, in lower case.
    hosts: Vec<String>,
    /// Those that are dialled when none of them answers.
    others: Vec<String>,
    /// Whether strangers named the hosts.
    by_dns: bool,
}

/// One key of a site's rules.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Explained {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    /// The entry that it is from, and its file.
    pub(crate) from: String,
}

impl Place {
    pub(crate) fn of(target: &Target) -> Self {
        let mut groups = target.hosts.iter();
        let name = |host: &Host| host_name(&host.to_string());
        Self {
            name: target.name.clone(),
            hosts: groups.next().into_iter().flatten().map(name).collect(),
            others: groups.flatten().map(name).collect(),
            by_dns: target.is_found_by_dns(),
        }
    }
}

impl Place {
    #[cfg(test)]
    pub(crate) fn mx(hosts: &str) -> Self {
        let mut groups = hosts.split(' ').map(|group| group.split(',').map(host_name));
        Self {
            name: hosts.into(),
            hosts: groups.next().into_iter().flatten().collect(),
            others: groups.flatten().collect(),
            by_dns: true,
        }
    }

    /// Whether it is at the same hosts, and for the same domain where it is for one alone.
    pub(crate) fn is_like(&self, other: &Place) -> bool {
        // The operator's own places differ in more than their hosts: ports, passwords.
        if !self.by_dns || !other.by_dns {
            return self.name == other.name;
        }
        let of =
            |place: &Self| (place.hosts.clone(), place.others.clone(), split_name(&place.name).1.map(str::to_owned));
        of(self) == of(other)
    }

    /// Whether it goes by this name, in lower case: its own, or a best host's.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        *self.name == *name || self.hosts.iter().any(|host| host == name)
    }
}

impl Shaping {
    /// Reads the built-in rules and the operator's file.
    ///
    /// # Errors
    /// [`Error::File`]: the operator's file can not be read or is wrong.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let Some(path) = &settings.shaping.file else { return Self::layered(settings, None) };
        let error = |reason| Error::File { key: KEY, path: path.display().to_string(), reason };
        let text = std::fs::read_to_string(path).map_err(|failure| error(failure.to_string()))?;
        Self::layered(settings, Some((path, &text)))
    }

    pub(super) fn layered(settings: &Settings, own: Option<(&Path, &str)>) -> Result<Self, Error> {
        let files = [(Path::new("built-in shaping.toml"), BUILT_IN)];
        let mut shaping = Self {
            defaults: settings.limits.clone(),
            layers: Vec::new(),
            providers: BTreeMap::new(),
            feedback: Vec::new(),
        };
        for (path, text) in files.into_iter().chain(own) {
            let error = |reason| Error::File { key: KEY, path: path.display().to_string(), reason };
            let file = File::parse(text).map_err(error)?;
            check(&file).map_err(error)?;
            shaping.layers.push(Layer { origin: path.display().to_string().into(), file });
            shaping.collect_providers().map_err(error)?;
            shaping.collect_feedback().map_err(error)?;
        }
        Ok(shaping)
    }

    /// The rules of a site.
    pub(crate) fn rules(&self, place: &Place) -> SiteRules {
        self.resolve(place).0
    }

    /// Where each rule of a site comes from.
    pub(crate) fn explain(&self, place: &Place) -> Vec<Explained> {
        self.resolve(place).1
    }

    /// All providers, by name.
    pub(crate) fn providers(&self) -> impl Iterator<Item = &Arc<ProviderRules>> {
        self.providers.values()
    }

    /// A provider.
    pub(crate) fn provider(&self, name: &str) -> Option<&Arc<ProviderRules>> {
        self.providers.get(name)
    }

    /// The feedback rules that hold for sites of `provider`, in their order.
    pub(crate) fn feedback_of<'a>(&'a self, provider: Option<&'a str>) -> impl Iterator<Item = &'a Arc<Rule>> {
        self.feedback.iter().filter(move |rule| rule.provider.is_none() || rule.provider.as_deref() == provider)
    }

    /// Whether the mail of a recipient domain has limits of its own.
    pub(crate) fn has_own(&self, domain: &Domain) -> bool {
        self.layers.iter().any(|layer| layer.file.domain.contains_key(domain.as_str()))
    }

    fn resolve(&self, place: &Place) -> (SiteRules, Vec<Explained>) {
        let provider = place.by_dns.then(|| self.provider_of(place)).flatten();
        let pick = Pick { entries: self.entries(place, provider), why: Vec::new() };
        let limits = &self.defaults;
        let (most, first, messages) = if place.by_dns {
            (
                (limits.connections_per_site, "limits.connections_per_site"),
                (limits.initial_connections_per_site, "limits.initial_connections_per_site"),
                (limits.messages_per_connection, "limits.messages_per_connection"),
            )
        } else {
            let connections = (limits.connections_per_route, "limits.connections_per_route");
            (connections, connections, (limits.messages_per_route_connection, "limits.messages_per_route_connection"))
        };
        let recipients = (limits.recipients_per_transaction, "limits.recipients_per_transaction");
        let mut pick = pick;
        let connections = pick.number("connections", |e| e.connections, most);
        let rules = SiteRules {
            provider: provider.cloned(),
            connections,
            initial_connections: pick.number("initial_connections", |e| e.initial_connections, first).min(connections),
            messages_per_connection: pick.number("messages_per_connection", |e| e.messages_per_connection, messages),
            rate: pick.found("rate", |e| e.rate, Rate::to_string),
            recipients_per_transaction: pick.number(
                "recipients_per_transaction",
                |e| e.recipients_per_transaction,
                recipients,
            ),
            retry: pick.found(
                "retry",
                |e| e.retry.clone(),
                |retry| retry.iter().map(Period::to_string).collect::<Vec<_>>().join(" "),
            ),
            tls: pick.found("tls", |e| e.tls, |tls| tls.as_str().to_owned()).unwrap_or_default(),
        };
        (rules, pick.why)
    }

    /// The entries about a site, the more special ones later.
    fn entries<'a>(&'a self, place: &Place, provider: Option<&Arc<ProviderRules>>) -> Vec<(String, &'a Limits)> {
        let mut entries: Vec<(String, &Limits)> = Vec::new();
        let mut add = |name: String, layer: &Layer, limits: &'a Limits| {
            entries.push((format!("{name} in {}", layer.origin), limits));
        };
        for layer in self.layers.iter().filter(|_| place.by_dns) {
            add("[default]".to_owned(), layer, &layer.file.default);
        }
        for layer in &self.layers {
            if let Some((name, entry)) = provider.and_then(|rules| layer.file.provider.get_key_value(&*rules.name)) {
                add(format!("[provider.{name}.site]"), layer, &entry.site);
            }
        }
        let (site, domain) = split_name(&place.name);
        for layer in &self.layers {
            for (name, entry) in &layer.file.site {
                let wanted = host_name(name);
                if place.hosts.contains(&wanted) || **name == *site {
                    add(format!("[site.\"{name}\"]"), layer, entry);
                }
            }
        }
        for layer in &self.layers {
            if let Some(entry) = domain.and_then(|domain| layer.file.domain.get(domain)) {
                add(format!("[domain.\"{}\"]", domain.unwrap_or_default()), layer, entry);
            }
        }
        entries
    }

    /// The provider that all of the hosts belong to; of several, the one that is
    /// named most exactly. All, not only the best: what a host says may stop all
    /// mail for its provider, so nobody may be counted to one by naming its hosts
    /// beside his own.
    fn provider_of(&self, place: &Place) -> Option<&Arc<ProviderRules>> {
        let exactness = |provider: &ProviderRules| {
            let of = |host: &String| provider.mx.iter().filter(|end| ends_with(host, end)).map(String::len).max();
            place.hosts.iter().chain(&place.others).map(of).min().flatten()
        };
        let known = self.providers.values().filter_map(|provider| Some((exactness(provider)?, provider)));
        known.max_by_key(|(length, _)| *length).map(|(_, provider)| provider)
    }

    fn collect_providers(&mut self) -> Result<(), String> {
        let names: std::collections::BTreeSet<&String> =
            self.layers.iter().flat_map(|layer| layer.file.provider.keys()).collect();
        let mut providers = BTreeMap::new();
        for name in names {
            let entries: Vec<&Provider> =
                self.layers.iter().filter_map(|layer| layer.file.provider.get(name)).collect();
            let mx = entries.iter().rev().find_map(|entry| entry.mx.as_ref());
            let mx =
                mx.ok_or_else(|| format!("provider.{name}.mx: expected ends of host names such as \".{name}.com\""))?;
            let name: Arc<str> = name.as_str().into();
            let rules = ProviderRules {
                name: name.clone(),
                mx: mx.iter().map(|end| end.to_ascii_lowercase()).collect(),
                connections: entries.iter().rev().find_map(|entry| entry.connections),
                rate: entries.iter().rev().find_map(|entry| entry.rate),
            };
            providers.insert(name, Arc::new(rules));
        }
        self.providers = providers;
        Ok(())
    }

    /// Puts the rules of the last file before all others; they replace those of the same name.
    fn collect_feedback(&mut self) -> Result<(), String> {
        let Some(layer) = self.layers.last() else { return Ok(()) };
        let mut rules = Vec::new();
        for entry in &layer.file.feedback {
            let rule =
                Rule::new(entry, &layer.origin).map_err(|error| format!("feedback {:?}: {error}", entry.name))?;
            if let Some(provider) = rule.provider.as_deref().filter(|name| !self.providers.contains_key(*name)) {
                return Err(format!(
                    "feedback {:?}: provider: expected one that is known, found {provider:?}",
                    entry.name
                ));
            }
            if rules.iter().any(|other: &Arc<Rule>| other.name == rule.name) {
                return Err(format!("feedback {:?}: name: expected a name of its own", entry.name));
            }
            rules.push(Arc::new(rule));
        }
        let earlier = std::mem::take(&mut self.feedback);
        let kept = earlier.into_iter().filter(|old| !rules.iter().any(|new| new.name == old.name));
        self.feedback = kept.collect();
        self.feedback.splice(0..0, rules);
        Ok(())
    }
}

/// Looks for the most special entry that has a key, and notes why.
struct Pick<'a> {
    entries: Vec<(String, &'a Limits)>,
    why: Vec<Explained>,
}

impl Pick<'_> {
    fn number<T: ToString>(&mut self, key: &'static str, get: impl Fn(&Limits) -> Option<T>, default: (T, &str)) -> T {
        if let Some(value) = self.found(key, get, T::to_string) {
            return value;
        }
        self.why.push(Explained { key, value: default.0.to_string(), from: default.1.to_owned() });
        default.0
    }

    fn found<T>(
        &mut self,
        key: &'static str,
        get: impl Fn(&Limits) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let (value, from) = self.entries.iter().rev().find_map(|(from, entry)| Some((get(entry)?, from)))?;
        self.why.push(Explained { key, value: show(&value), from: from.clone() });
        Some(value)
    }
}

/// The name of the site that a recipient domain with limits of its own has.
pub(super) fn own_name(site: &str, domain: &Domain) -> Arc<str> {
    format!("{site}{OWN}{domain}").into()
}

/// Stands in no host name.
const OWN: &str = " for ";

fn split_name(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(OWN) {
        Some((site, domain)) => (site, Some(domain)),
        None => (name, None),
    }
}

/// A host's name as names are compared.
fn host_name(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether `host` is below `.end`, or `end` itself.
fn ends_with(host: &str, end: &str) -> bool {
    host.ends_with(end) || end.strip_prefix('.') == Some(host)
}

/// Most that a limit may say.
const MOST: usize = 1_000_000;

/// Checks what serde cannot. The error names the entry, the key and what was expected.
fn check(file: &File) -> Result<(), String> {
    check_limits(&file.default).map_err(|error| format!("default.{error}"))?;
    for (name, provider) in &file.provider {
        let of = |error| format!("provider.{name}.{error}");
        for end in provider.mx.iter().flatten() {
            let is_end = end.strip_prefix('.').is_some_and(crate::settings::is_host_name);
            if !is_end {
                return Err(of(format!("mx: expected ends of host names such as \".example.com\", found {end:?}")));
            }
        }
        if provider.mx.as_ref().is_some_and(Vec::is_empty) {
            return Err(of("mx: expected at least one end of host names".to_owned()));
        }
        check_number("connections", provider.connections).map_err(of)?;
        check_limits(&provider.site).map_err(|error| of(format!("site.{error}")))?;
    }
    for (name, limits) in &file.site {
        check_limits(limits).map_err(|error| format!("site.{name:?}.{error}"))?;
    }
    for (name, limits) in &file.domain {
        let is_plain = name.parse::<Domain>().is_ok_and(|domain| domain.as_str() == name);
        if !is_plain {
            return Err(format!("domain.{name:?}: expected a domain in lower case, as in DNS"));
        }
        check_limits(limits).map_err(|error| format!("domain.{name:?}.{error}"))?;
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), String> {
    check_number("connections", limits.connections)?;
    check_number("initial_connections", limits.initial_connections)?;
    check_number("messages_per_connection", limits.messages_per_connection.map(|count| count as usize))?;
    check_number("recipients_per_transaction", limits.recipients_per_transaction)?;
    match &limits.retry {
        Some(retry) if retry.is_empty() || retry.iter().any(|wait| wait.is_zero()) => {
            Err("retry: expected at least one wait, and none of zero, such as [\"2m\", \"1h\"]".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_number(key: &str, value: Option<usize>) -> Result<(), String> {
    match value {
        Some(value) if !(1..=MOST).contains(&value) => Err(format!("{key}: expected 1 to {MOST}, found {value}")),
        _ => Ok(()),
    }
}
