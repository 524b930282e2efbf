//! Where to listen, and for whom.

use std::fmt;
use std::path::PathBuf;

use postrider_base::Network;
use serde::{Deserialize, Serialize};

use crate::{ClientCertificate, ListenAddress};

/// One listener.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port. `*` stands for every address of this machine.
    pub address: ListenAddress,
    /// How TLS comes to the connection.
    #[serde(default)]
    pub tls: ListenTls,
    /// Whom it is for.
    #[serde(default)]
    pub role: ListenRole,
    /// Clients that can not authenticate: devices and null clients that are known by their
    /// address alone, and need no TLS. Everybody else still has to authenticate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relay_from: Vec<RelayFrom>,
    /// Load balancers that say whom a connection is from with a PROXY protocol header. Each
    /// connection from them must begin with one; from others none is looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxy_from: Vec<Network>,
    /// PEM file with the authorities that sign clients' certificates. With it clients are asked
    /// for one; who has none goes on without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Clients that need not authenticate, by their certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_certificates: Vec<ClientCertificate>,
}

/// A client that is known by its address.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RelayFrom {
    /// Its address, or its network.
    pub network: Network,
    /// User name of the credential that it stands for: its mail counts as that one's.
    pub credential: String,
}

/// How TLS comes to a connection.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ListenTls {
    /// The client upgrades with STARTTLS (RFC 3207); before that it can do nothing else.
    #[serde(rename = "starttls")]
    #[default]
    StartTls,
    /// The connection begins with TLS (RFC 8314 section 3).
    TlsWrapper,
}

/// Whom a listener is for.
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ListenRole {
    /// Authenticated clients that submit mail.
    #[default]
    Submission,
    /// Other mail servers that bring bounces and complaints: a public mail exchanger (RFC 5321
    /// section 2.3.8). Nobody authenticates, TLS is offered and never forced (RFC 3207 section 4),
    /// and mail is taken for return paths of ours and a few addresses more alone.
    Feedback,
}

impl fmt::Display for ListenRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ListenRole::Submission => "submission",
            ListenRole::Feedback => "feedback",
        })
    }
}

impl Listen {
    /// A submission listener for clients that authenticate.
    #[must_use]
    pub fn on(address: ListenAddress, tls: ListenTls) -> Listen {
        Listen::of_role(ListenRole::Submission, address, tls)
    }

    /// A feedback listener.
    #[must_use]
    pub fn feedback_on(address: ListenAddress) -> Listen {
        Listen::of_role(ListenRole::Feedback, address, ListenTls::StartTls)
    }

    fn of_role(role: ListenRole, address: ListenAddress, tls: ListenTls) -> Listen {
        Listen {
            address,
            tls,
            role,
            relay_from: Vec::new(),
            proxy_from: Vec::new(),
            client_ca: None,
            client_certificates: Vec::new(),
        }
    }

    /// SES's ports: 25, 587 and 2587 with STARTTLS, 465 and 2465 with TLS from the start.
    #[must_use]
    pub fn defaults() -> Vec<Listen> {
        let on = |port, tls| Listen::on(ListenAddress::All(port), tls);
        vec![
            on(25, ListenTls::StartTls),
            on(587, ListenTls::StartTls),
            on(2587, ListenTls::StartTls),
            on(465, ListenTls::TlsWrapper),
            on(2465, ListenTls::TlsWrapper),
        ]
    }

    /// Checks what the types can not, of a whole list.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(list: &[Listen]) -> Result<(), String> {
        if list.is_empty() {
            return Err("at least one listener is needed".to_owned());
        }
        for (index, listen) in list.iter().enumerate() {
            let address = listen.address;
            if let Some(other) = list[..index].iter().find(|other| other.address.overlaps(address)) {
                return Err(listen.collides_with(other));
            }
            if listen.role == ListenRole::Feedback {
                listen.validate_feedback().map_err(|error| format!("{error} (at {address})"))?;
            }
            listen.validate_networks().map_err(|error| format!("{error} (at {address})"))?;
            for client in &listen.client_certificates {
                client.validate().map_err(|error| format!("{error} (at {address})"))?;
            }
            if listen.client_ca.is_none() && !listen.client_certificates.is_empty() {
                return Err(format!("client_ca: is needed beside client_certificates (at {address})"));
            }
        }
        Ok(())
    }

    /// Two of one role may be a slip; two roles are two services, which need two addresses.
    fn collides_with(&self, other: &Listen) -> String {
        let (address, role) = (self.address, self.role);
        if other.address == address && other.role == role {
            return format!("address: {address} is listened on twice");
        }
        format!(
            "address: {address} ({role}) is listened on by {} ({}) already; \
             each needs an address or a port of its own",
            other.address, other.role
        )
    }

    /// Other mail servers come by STARTTLS or in clear, and as nobody in particular.
    fn validate_feedback(&self) -> Result<(), &'static str> {
        match () {
            () if self.tls == ListenTls::TlsWrapper => Err("tls: a feedback listener can only have \"starttls\""),
            () if !self.relay_from.is_empty() => Err("relay_from: nobody submits mail at a feedback listener"),
            () if self.client_ca.is_some() || !self.client_certificates.is_empty() => {
                Err("client_ca: nobody is asked for a certificate at a feedback listener")
            }
            () => Ok(()),
        }
    }

    /// No open relay by accident, and nobody who can speak for others is taken at his word.
    fn validate_networks(&self) -> Result<(), String> {
        for RelayFrom { network, credential } in &self.relay_from {
            let least = if network.address().is_ipv4() { 8 } else { 16 };
            if network.prefix_len() < least {
                return Err(format!("relay_from: {network} is much of the Internet; at least /{least} is needed"));
            }
            if let Some(proxy) = self.proxy_from.iter().find(|proxy| proxy.overlaps(network)) {
                return Err(format!("relay_from: {network} overlaps with {proxy} of proxy_from"));
            }
            if credential.is_empty() {
                return Err(format!("relay_from: {network} has no credential"));
            }
        }
        match self.proxy_from.iter().find(|proxy| proxy.prefix_len() == 0) {
            Some(proxy) => Err(format!("proxy_from: {proxy} would believe everybody")),
            None => Ok(()),
        }
    }

    /// The credential that a client at this address stands for.
    pub(crate) fn credential_of(&self, address: std::net::IpAddr) -> Option<&str> {
        let found = self.relay_from.iter().find(|known| known.network.contains(address));
        found.map(|known| known.credential.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(toml: &str) -> Result<Vec<Listen>, String> {
        #[derive(Deserialize)]
        struct File {
            listener: Vec<Listen>,
        }
        let file: File = toml::from_str(toml).map_err(|error| error.to_string())?;
        Listen::validate(&file.listener).map(|()| file.listener)
    }

    fn with(rest: &str) -> Result<Vec<Listen>, String> {
        listen(&format!("[[listener]]\naddress = \"*:25\"\n{rest}"))
    }

    #[test]
    fn listeners_are_read() {
        let list = listen(
            "[[listener]]\naddress = \"0.0.0.0:587\"\ntls = \"starttls\"\nrole = \"submission\"\n\
             [[listener]]\naddress = \"*:465\"\ntls = \"tls-wrapper\"\n",
        )
        .unwrap();
        assert_eq!((list[0].tls, list[1].tls), (ListenTls::StartTls, ListenTls::TlsWrapper));
        assert_eq!(list[1].address, ListenAddress::All(465));
        Listen::validate(&Listen::defaults()).unwrap();
        let text = serde_json::to_string(&Listen::defaults()).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Listen>>(&text).unwrap(), Listen::defaults());
    }

    #[test]
    fn known_addresses_are_read() {
        let list =
            with("proxy_from = [\"10.0.0.1\"]\nrelay_from = [{ network = \"192.0.2.0/24\", credential = \"AKIA\" }]")
                .unwrap();
        assert_eq!(list[0].credential_of("192.0.2.7".parse().unwrap()), Some("AKIA"));
        assert_eq!(list[0].credential_of("192.0.3.7".parse().unwrap()), None);
    }

    #[test]
    fn wrong_listeners_are_refused_by_name() {
        let error = |rest: &str| with(rest).unwrap_err();
        let certificates = "client_certificates = [{ name = \"a.example\", credential = \"A\" }]";
        for wrong in [
            "name = \"\", credential = \"A\"",
            "name = \"a\", credential = \"\"",
            "name = \"sha256:12:34\", credential = \"A\"",
        ] {
            let text = format!("client_ca = \"ca.pem\"\nclient_certificates = [{{ {wrong} }}]");
            assert!(error(&text).starts_with("client_certificates: "), "{wrong}");
        }
        assert_eq!(error(certificates), "client_ca: is needed beside client_certificates (at *:25)");
        assert!(error("tls = \"none\"").contains("starttls"));
        assert!(error("colour = \"red\"").contains("colour"));
        assert!(error("[[listener]]\naddress = \"*:25\"").contains("*:25 is listened on twice"));
        assert!(listen("listener = []").unwrap_err().contains("at least one"));
    }

    #[test]
    fn feedback_is_a_service_of_its_own() {
        let feedback = |rest: &str| with(&format!("role = \"feedback\"\n{rest}"));
        let list = feedback("proxy_from = [\"10.0.0.1\"]\n[[listener]]\naddress = \"*:587\"").unwrap();
        assert_eq!((list[0].role, list[1].role), (ListenRole::Feedback, ListenRole::Submission));
        let error = |rest: &str| feedback(rest).unwrap_err();
        assert!(error("tls = \"tls-wrapper\"").starts_with("tls: a feedback listener"));
        assert!(error("relay_from = [{ network = \"192.0.2.7\", credential = \"A\" }]").starts_with("relay_from: "));
        assert!(error("client_ca = \"ca.pem\"").starts_with("client_ca: "));
        assert_eq!(
            error("[[listener]]\naddress = \"192.0.2.1:25\""),
            "address: 192.0.2.1:25 (submission) is listened on by *:25 (feedback) already; \
             each needs an address or a port of its own"
        );
        let two = |one: &str, other: &str| {
            listen(&format!(
                "[[listener]]\naddress = \"{one}\"\n[[listener]]\naddress = \"{other}\"\nrole = \"feedback\""
            ))
        };
        for (one, other) in [("0.0.0.0:25", "192.0.2.1:25"), ("[::]:25", "*:25"), ("[::1]:25", "[::]:25")] {
            assert!(two(one, other).unwrap_err().contains(one), "{one} {other}");
        }
        let apart = [("192.0.2.1:25", "192.0.2.2:25"), ("0.0.0.0:25", "[::]:25"), ("127.0.0.1:0", "127.0.0.1:0")];
        for (one, other) in apart {
            assert!(two(one, other).is_ok(), "{one} {other}");
        }
    }

    #[test]
    fn nobody_becomes_an_open_relay_by_accident() {
        let relay = |network: &str| {
            with(&format!(
                "proxy_from = [\"10.0.0.0/24\"]\nrelay_from = [{{ network = \"{network}\", credential = \"A\" }}]"
            ))
        };
        for network in ["0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/7", "2000::/3"] {
            assert!(relay(network).unwrap_err().starts_with("relay_from: "), "{network}");
        }
        assert!(relay("10.0.0.7").unwrap_err().contains("overlaps with 10.0.0.0/24 of proxy_from (at *:25)"));
        assert!(relay("10.0.0.0/8").unwrap_err().contains("overlaps"));
        assert!(relay("192.0.2.7/24").unwrap_err().contains("192.0.2.0/24"));
        assert!(relay("192.0.2.0/24").is_ok());
        assert!(with("proxy_from = [\"::/0\"]").unwrap_err().starts_with("proxy_from: ::/0"));
        assert!(with("relay_from = [{ network = \"192.0.2.7\", credential = \"\" }]").is_err());
    }
}
