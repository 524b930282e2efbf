//! Which way a recipient domain's mail goes, as the operator wrote it down.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use postrider_mail::Domain;

use crate::settings::is_host_name;

/// The way of one recipient domain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Route {
    /// To the domain's MX hosts.
    Mx,
    /// To one host, without a look at MX records.
    Static(Arc<StaticRoute>),
    /// To the configured smarthost.
    Smarthost,
    /// To a destination inside this process, by its name.
    BuiltIn(Arc<str>),
    /// Nowhere: the mail stays in the queue, held.
    Hold,
}

/// One host that takes a domain's mail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StaticRoute {
    /// A name, whose addresses are looked up, or an address.
    pub host: Host,
    /// The port, 25 (465 for `smtps`) unless written down.
    pub port: u16,
    /// When the session is encrypted.
    pub tls: TlsUse,
}

impl fmt::Display for StaticRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.tls.scheme(), self.host, self.port)
    }
}

/// A host as a route names it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Host {
    /// To be looked up.
    Name(Arc<str>),
    /// To be dialled as it is.
    Address(IpAddr),
}

impl Host {
    /// Reads a host name, an IPv4 address or an IPv6 address in brackets.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bare = match text.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            None => text,
        };
        if let Ok(address) = bare.parse() {
            return Some(Self::Address(address));
        }
        (bare == text && is_host_name(text)).then(|| Self::Name(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
        }
    }
}

/// When a session is encrypted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TlsUse {
    /// Never.
    Never,
    /// By STARTTLS where it is offered and works, in clear otherwise.
    Opportunistic,
    /// By STARTTLS, or there is no session.
    Required,
    /// From the first byte (RFC 8314).
    Implicit,
}

impl TlsUse {
    fn scheme(self) -> &'static str {
        match self {
            Self::Never => "smtp+clear",
            Self::Opportunistic => "smtp",
            Self::Required => "smtp+starttls",
            Self::Implicit => "smtps",
        }
    }
}

/// The table of routes.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTable {
    exact: HashMap<String, Route>,
    below: HashMap<String, Route>,
    rest: Route,
}

impl RouteTable {
    /// Reads the `routes` of the settings. The error names the key and what was
    /// expected.
    pub fn parse(routes: &BTreeMap<String, String>, has_smarthost: bool) -> Result<Self, String> {
        let mut table = Self {
            exact: HashMap::new(),
            below: HashMap::new(),
            rest: if has_smarthost { Route::Smarthost } else { Route::Mx },
        };
        for (pattern, target) in routes {
            let route = parse_target(target, has_smarthost)
                .map_err(|expected| format!("routes.{pattern:?}: {expected}, found {target:?}"))?;
            let domain = |text: &str| {
                text.parse::<Domain>()
                    .map(|domain| domain.as_str().to_owned())
                    .map_err(|error| format!("routes.{pattern:?}: expected a domain, \".domain\" or \"*\" ({error})"))
            };
            match pattern.strip_prefix('.') {
                _ if pattern == "*" => table.rest = route,
                Some(suffix) => drop(table.below.insert(domain(suffix)?, route)),
                None => drop(table.exact.insert(domain(pattern)?, route)),
            }
        }
        Ok(table)
    }

    /// The route of `domain`: its own entry, else the longest `".suffix"`, else
    /// the rest's.
    pub fn lookup(&self, domain: &Domain) -> &Route {
        let name = domain.as_str();
        if let Some(route) = self.exact.get(name) {
            return route;
        }
        if !self.below.is_empty() {
            let mut rest = name;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(route) = self.below.get(parent) {
                    return route;
                }
                rest = parent;
            }
        }
        &self.rest
    }

    /// The names of the built-in destinations that the table uses.
    pub fn built_ins(&self) -> impl Iterator<Item = &str> {
        let routes = self.exact.values().chain(self.below.values()).chain([&self.rest]);
        routes.filter_map(|route| match route {
            Route::BuiltIn(name) => Some(&**name),
            _ => None,
        })
    }
}

fn parse_target(target: &str, has_smarthost: bool) -> Result<Route, String> {
    let (scheme, rest) = target.split_once(':').unwrap_or((target, ""));
    let tls = match scheme {
        "smtp" => Some((TlsUse::Opportunistic, 25)),
        "smtp+starttls" => Some((TlsUse::Required, 25)),
        "smtps" => Some((TlsUse::Implicit, 465)),
        _ => None,
    };
    if let Some((tls, default_port)) = tls {
        return parse_host(rest, tls, default_port)
            .ok_or_else(|| format!("expected {scheme}://HOST or {scheme}://HOST:PORT"));
    }
    match scheme {
        _ if !rest.is_empty() => Err(EXPECTED_TARGET.to_owned()),
        "mx" => Ok(Route::Mx),
        "hold" => Ok(Route::Hold),
        "smarthost" if has_smarthost => Ok(Route::Smarthost),
        "smarthost" => Err("expected a [delivery.smarthost] section for \"smarthost:\"".to_owned()),
        name if is_built_in_name(name) => Ok(Route::BuiltIn(name.into())),
        _ => Err(EXPECTED_TARGET.to_owned()),
    }
}

const EXPECTED_TARGET: &str = "expected smtp://, smtp+starttls:// or smtps:// with HOST:PORT, or \
     mx:, smarthost:, hold: or a built-in destination's name";

fn parse_host(rest: &str, tls: TlsUse, default_port: u16) -> Option<Route> {
    let authority = rest.strip_prefix("//")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    // The colons of a bracketed IPv6 address are not the port's.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, default_port),
    };
    if port == 0 || (host.contains(':') && !host.starts_with('[')) {
        return None;
    }
    Some(Route::Static(Arc::new(StaticRoute { host: Host::parse(host)?, port, tls })))
}

fn is_built_in_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(entries: &[(&str, &str)]) -> Result<RouteTable, String> {
        let routes = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        RouteTable::parse(&routes, false)
    }

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let table = table(&[
            ("example.com", "smtp://10.0.0.5:2525"),
            (".example.com", "smtps://mail.example.net"),
            (".deep.example.com", "hold:"),
            ("*", "inbox:"),
        ])
        .unwrap();
        let shown = |name: &str| match table.lookup(&domain(name)) {
            Route::Static(host) => host.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(shown("example.com"), "smtp://10.0.0.5:2525");
        assert_eq!(shown("EXAMPLE.com"), "smtp://10.0.0.5:2525");
        assert_eq!(shown("a.example.com"), "smtps://mail.example.net:465");
        assert_eq!(shown("deep.example.com"), "smtps://mail.example.net:465");
        assert_eq!(shown("a.b.deep.example.com"), "Hold");
        assert_eq!(shown("badexample.com"), "BuiltIn(\"inbox\")");
        assert_eq!(table.built_ins().collect::<Vec<_>>(), ["inbox"]);
    }

    #[test]
    fn the_rest_goes_to_the_smarthost_or_by_mx() {
        let none = BTreeMap::new();
        let any = domain("example.org");
        assert_eq!(RouteTable::parse(&none, true).unwrap().lookup(&any), &Route::Smarthost);
        assert_eq!(RouteTable::parse(&none, false).unwrap().lookup(&any), &Route::Mx);
        let direct = BTreeMap::from([("example.org".to_owned(), "mx:".to_owned())]);
        assert_eq!(RouteTable::parse(&direct, true).unwrap().lookup(&any), &Route::Mx);
    }

    #[test]
    fn ipv6_hosts_are_written_in_brackets() {
        let table = table(&[("a.example", "smtp://[2001:db8::1]"), ("b.example", "smtp+starttls://[::1]:26")]).unwrap();
        for (name, expected) in [("a.example", "smtp://[2001:db8::1]:25"), ("b.example", "smtp+starttls://[::1]:26")] {
            let Route::Static(host) = table.lookup(&domain(name)) else { panic!("{name}") };
            assert_eq!(host.to_string(), expected);
        }
    }

    #[test]
    fn bad_targets_are_refused_with_their_key() {
        for target in [
            "",
            "smtp",
            "smtp:",
            "smtp://",
            "smtp://host:0",
            "smtp://host:99999",
            "smtp://a b",
            "smtp://2001:db8::1",
            "smtp://[::1",
            "http://x",
            "hold:now",
            "smarthost:",
            "UPPER:",
            "smtp://user@host",
        ] {
            let error = table(&[("example.com", target)]).expect_err(target);
            assert!(error.starts_with("routes.\"example.com\": expected"), "{error}");
        }
        for pattern in ["", ".", "a..b", "exa mple.com", "*.example.com"] {
            let error = table(&[(pattern, "mx:")]).expect_err(pattern);
            assert!(error.starts_with("routes."), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(pattern: String, target: String) {
            let _ = table(&[(&pattern, &target)]);
            let _ = table(&[("*", &format!("smtp://{target}"))]);
        }
    }
}
