//! Which way a recipient domain's mail goes, as the operator wrote it down.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use postrider_mail::Domain;
use postrider_smtp::Protocol;

use crate::settings::is_host_name;

/// The way of one recipient domain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Route {
    /// To the domain's MX hosts.
    Mx,
    /// To one host, without a look at MX records.
    Static(Arc<StaticRoute>),
    /// To the smarthost of this name; the only one that needs none has none.
    Smarthost(Arc<str>),
    /// To a destination inside this process, by its name.
    BuiltIn(Arc<str>),
    /// Nowhere: the mail stays in the queue, held.
    Hold,
}

/// One host that takes a domain's mail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StaticRoute {
    /// A name, whose addresses are looked up, an address, or a socket.
    pub host: Host,
    /// The port, unless written down that of the scheme; 0 for a socket.
    pub port: u16,
    /// What the host speaks.
    pub protocol: Protocol,
    /// When the session is encrypted.
    pub tls: TlsUse,
    /// Whether the host has to prove who it is.
    pub verify: Verify,
}

/// Whether a host has to prove who it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verify {
    /// No: TLS keeps out only those who listen.
    No,
    /// By a certificate for the name or address that it is dialled by.
    Host,
    /// By a certificate for this name.
    Name(Arc<str>),
}

impl fmt::Display for StaticRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(scheme) = SCHEMES.iter().find(|scheme| (scheme.protocol, scheme.tls) == (self.protocol, self.tls))
        else {
            return write!(f, "{UNIX}://{}", self.host);
        };
        write!(f, "{}://{}:{}", scheme.name, self.host, self.port)?;
        match &self.verify {
            Verify::No if scheme.is_verified() => f.write_str("?verify=none"),
            Verify::Name(name) => write!(f, "?verify={name}"),
            Verify::No | Verify::Host => Ok(()),
        }
    }
}

/// A host as a route names it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Host {
    /// To be looked up.
    Name(Arc<str>),
    /// To be dialled as it is.
    Address(IpAddr),
    /// A socket in the file system of this machine.
    Socket(Arc<Path>),
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
            Self::Socket(path) => write!(f, "{}", path.display()),
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

/// How a host is written down in a route.
struct Scheme {
    name: &'static str,
    protocol: Protocol,
    tls: TlsUse,
    port: u16,
}

impl Scheme {
    /// Whether hosts have to prove who they are unless told otherwise.
    fn is_verified(&self) -> bool {
        matches!(self.tls, TlsUse::Required | TlsUse::Implicit)
    }
}

const SCHEMES: [Scheme; 5] = [
    Scheme { name: "smtp", protocol: Protocol::Smtp, tls: TlsUse::Opportunistic, port: 25 },
    Scheme { name: "smtp+starttls", protocol: Protocol::Smtp, tls: TlsUse::Required, port: 25 },
    Scheme { name: "smtps", protocol: Protocol::Smtp, tls: TlsUse::Implicit, port: 465 },
    Scheme { name: "lmtp", protocol: Protocol::Lmtp, tls: TlsUse::Opportunistic, port: 24 },
    Scheme { name: "lmtp+starttls", protocol: Protocol::Lmtp, tls: TlsUse::Required, port: 24 },
];

/// The scheme of LMTP over a socket in the file system.
const UNIX: &str = "lmtp+unix";

/// The table of routes.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTable {
    exact: HashMap<String, Route>,
    below: HashMap<String, Route>,
    rest: Route,
}

impl RouteTable {
    /// Reads the `routes` of the settings, which may name these smarthosts; the one
    /// without a name takes the rest unless the routes say otherwise. The error
    /// names the key and what was expected.
    pub fn parse(routes: &BTreeMap<String, String>, smarthosts: &[&str]) -> Result<Self, String> {
        let takes_the_rest = smarthosts.contains(&"");
        let mut table = Self {
            exact: HashMap::new(),
            below: HashMap::new(),
            rest: if takes_the_rest { Route::Smarthost("".into()) } else { Route::Mx },
        };
        for (pattern, target) in routes {
            let route = parse_target(target, smarthosts)
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

fn parse_target(target: &str, smarthosts: &[&str]) -> Result<Route, String> {
    let (name, rest) = target.split_once(':').unwrap_or((target, ""));
    if let Some(scheme) = SCHEMES.iter().find(|scheme| scheme.name == name) {
        let route = parse_host(rest, scheme)?;
        return route.ok_or_else(|| format!("expected {name}://HOST or {name}://HOST:PORT"));
    }
    match name {
        UNIX => parse_socket(rest).ok_or_else(|| format!("expected {UNIX}:///PATH")),
        "smarthost" if smarthosts.contains(&rest) => Ok(Route::Smarthost(rest.into())),
        "smarthost" if rest.is_empty() => Err("expected a [delivery.smarthost] section for \"smarthost:\"".to_owned()),
        "smarthost" => Err(format!("expected a [delivery.smarthosts.{rest}] section for \"smarthost:{rest}\"")),
        _ if !rest.is_empty() => Err(EXPECTED_TARGET.to_owned()),
        "mx" => Ok(Route::Mx),
        "hold" => Ok(Route::Hold),
        name if is_short_name(name) => Ok(Route::BuiltIn(name.into())),
        _ => Err(EXPECTED_TARGET.to_owned()),
    }
}

const EXPECTED_TARGET: &str = "expected smtp://, smtp+starttls://, smtps://, lmtp:// or lmtp+starttls:// with \
     HOST:PORT, lmtp+unix:///PATH, or mx:, smarthost:, smarthost:NAME, hold: or a built-in destination's name";

fn parse_host(rest: &str, scheme: &Scheme) -> Result<Option<Route>, String> {
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let Some((host, port)) = parse_authority(authority, scheme.port) else { return Ok(None) };
    let verify = match query.strip_prefix("verify=") {
        None if query.is_empty() && scheme.is_verified() => Verify::Host,
        None if query.is_empty() => Verify::No,
        None => return Err("expected nothing behind \"?\" but verify=none or verify=NAME".to_owned()),
        Some(_) if !scheme.is_verified() => {
            return Err("expected verify= only where TLS is required, as by smtp+starttls:// and smtps://".to_owned());
        }
        Some("none") => Verify::No,
        Some(name) if is_host_name(name) => Verify::Name(name.to_ascii_lowercase().into()),
        Some(_) => return Err("expected verify=none, or verify= and the name in the host's certificate".to_owned()),
    };
    let (protocol, tls) = (scheme.protocol, scheme.tls);
    Ok(Some(Route::Static(Arc::new(StaticRoute { host, port, protocol, tls, verify }))))
}

fn parse_authority(authority: &str, default_port: u16) -> Option<(Host, u16)> {
    let authority = authority.strip_prefix("//")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    // The colons of a bracketed IPv6 address are not the port's.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, default_port),
    };
    if port == 0 || (host.contains(':') && !host.starts_with('[')) {
        return None;
    }
    Some((Host::parse(host)?, port))
}

fn parse_socket(rest: &str) -> Option<Route> {
    let path = rest.strip_prefix("//").filter(|path| path.len() > 1 && path.starts_with('/'))?;
    let is_plain = !path.ends_with('/') && !path.contains(char::is_control);
    is_plain.then(|| {
        Route::Static(Arc::new(StaticRoute {
            host: Host::Socket(Path::new(path).into()),
            port: 0,
            protocol: Protocol::Lmtp,
            tls: TlsUse::Never,
            verify: Verify::No,
        }))
    })
}

/// Whether a name may stand for a destination: lower-case letters, digits and
/// hyphens, with a letter first.
pub(crate) fn is_short_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(entries: &[(&str, &str)]) -> Result<RouteTable, String> {
        let routes = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        RouteTable::parse(&routes, &["backup"])
    }

    fn shown(target: &str) -> Result<String, String> {
        let table = table(&[("example.com", target)])?;
        match table.lookup(&domain("example.com")) {
            Route::Static(host) => Ok(host.to_string()),
            other => Ok(format!("{other:?}")),
        }
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
        let smarthost = Route::Smarthost("".into());
        assert_eq!(RouteTable::parse(&none, &["", "backup"]).unwrap().lookup(&any), &smarthost);
        assert_eq!(RouteTable::parse(&none, &["backup"]).unwrap().lookup(&any), &Route::Mx);
        let direct = BTreeMap::from([("example.org".to_owned(), "mx:".to_owned())]);
        assert_eq!(RouteTable::parse(&direct, &[""]).unwrap().lookup(&any), &Route::Mx);
    }

    #[test]
    fn smarthosts_have_names() {
        assert_eq!(shown("smarthost:backup").unwrap(), "Smarthost(\"backup\")");
        assert!(shown("smarthost:other").unwrap_err().contains("[delivery.smarthosts.other]"));
        assert!(shown("smarthost:").unwrap_err().contains("[delivery.smarthost]"));
    }

    #[test]
    fn a_host_proves_its_name_where_tls_is_required() {
        for target in [
            "smtp://mx.example:25",
            "smtp+starttls://mx.example:25",
            "smtp+starttls://mx.example:25?verify=none",
            "smtps://10.0.0.1:465?verify=mx.example",
            "lmtp+starttls://mx.example:24?verify=none",
        ] {
            assert_eq!(shown(target).unwrap(), target);
        }
        let verify = |target: &str| match table(&[("*", target)]).unwrap().rest {
            Route::Static(route) => route.verify.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(verify("smtps://mx.example"), Verify::Host);
        assert_eq!(verify("smtps://mx.example?verify=none"), Verify::No);
        assert_eq!(verify("smtp+starttls://10.0.0.1?verify=Mx.Example"), Verify::Name("mx.example".into()));
        assert_eq!(verify("smtp://mx.example"), Verify::No);
        for bad in [
            "smtp://mx.example?verify=none",
            "smtps://mx.example?verify=",
            "smtps://mx.example?verify=a b",
            "smtps://mx.example?tls=no",
        ] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn local_delivery_has_a_host_or_a_socket() {
        assert_eq!(shown("lmtp://dovecot.inside").unwrap(), "lmtp://dovecot.inside:24");
        assert_eq!(shown("lmtp+unix:///run/dovecot/lmtp").unwrap(), "lmtp+unix:///run/dovecot/lmtp");
        for bad in ["lmtp+unix:", "lmtp+unix://", "lmtp+unix:///", "lmtp+unix://host/path", "lmtp+unix:///a/", "lmtp:"]
        {
            assert!(shown(bad).is_err(), "{bad}");
        }
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
