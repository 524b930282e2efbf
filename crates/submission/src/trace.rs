//! The `Received` field that says where a message came from.

use std::fmt::Write as _;
use std::net::IpAddr;

use postrider_mail::EmailAddress;

use crate::Client;

/// Writes the field (RFC 5321 section 4.4) to the front of a header, folded, with its
/// line end. `recipient` is named only where it is the only one: others are nobody's
/// business.
pub(crate) fn write_received(
    out: &mut Vec<u8>,
    client: &Client,
    host: &str,
    id: &str,
    recipient: Option<&EmailAddress>,
    date: &str,
) {
    let mut field = String::with_capacity(320);
    field.push_str("Received: from ");
    field.push_str(presentable(&client.name));
    match client.ip.to_canonical() {
        IpAddr::V4(ip) => write!(field, " ([{ip}])"),
        IpAddr::V6(ip) => write!(field, " ([IPv6:{ip}])"),
    }
    .and_then(|()| write!(field, "\r\n\tby {host} with {} id {id}", client.protocol))
    .and_then(|()| match &client.tls {
        Some(tls) => write!(field, "\r\n\t(version={} cipher={})", tls.version, tls.cipher),
        None => Ok(()),
    })
    .and_then(|()| match recipient {
        Some(recipient) => write!(field, "\r\n\tfor <{recipient}>"),
        None => Ok(()),
    })
    .and_then(|()| write!(field, ";\r\n\t{date}\r\n"))
    .expect("writing to a string does not fail");
    out.extend_from_slice(field.as_bytes());
}

/// The client's own name for itself, which can be anything, as far as it looks like a
/// name or an address literal.
fn presentable(name: &str) -> &str {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if !name.is_empty() && name.len() <= 255 && name.bytes().all(allowed) { name } else { "unknown" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_mail::TlsInfo;

    fn received(client: &Client, recipient: Option<&EmailAddress>) -> String {
        let mut out = Vec::new();
        write_received(&mut out, client, "mx.example.com", "ID", recipient, "DATE");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn says_who_how_and_for_whom() {
        let mut client = Client {
            ip: "192.0.2.1".parse().unwrap(),
            name: "app.example.com".into(),
            protocol: "ESMTPSA".into(),
            tls: Some(TlsInfo { version: "TLSv1.3".into(), cipher: "AES".into(), authenticated: false }),
        };
        let recipient = "a@example.net".parse().unwrap();
        assert_eq!(
            received(&client, Some(&recipient)),
            "Received: from app.example.com ([192.0.2.1])\r\n\tby mx.example.com with ESMTPSA id ID\r\n\t\
             (version=TLSv1.3 cipher=AES)\r\n\tfor <a@example.net>;\r\n\tDATE\r\n"
        );
        client.ip = "2001:db8::1".parse().unwrap();
        client.tls = None;
        assert_eq!(
            received(&client, None),
            "Received: from app.example.com ([IPv6:2001:db8::1])\r\n\tby mx.example.com with ESMTPSA id ID;\r\n\tDATE\r\n"
        );
        client.ip = "::ffff:192.0.2.1".parse().unwrap();
        assert!(received(&client, None).contains("([192.0.2.1])"));
    }

    #[test]
    fn hostile_names_do_not_get_in() {
        for name in ["", "a\r\nBcc: x@y", "a b", "a;b", "(a", &"a".repeat(256)] {
            assert_eq!(presentable(name), "unknown", "{name:?}");
        }
        for name in ["[192.0.2.1]", "[IPv6:2001:db8::1]", "my_pc", "localhost.localdomain"] {
            assert_eq!(presentable(name), name);
        }
    }
}
