//! Where a domain wants its reports (RFC 8460 section 3).

use postrider_mail::EmailAddress;

use crate::https::Url;

/// Places of one record that reports are sent to.
const MOST_PLACES: usize = 4;

/// Octets of a place: longer ones are left out.
const LONGEST_PLACE: usize = 1_024;

/// A place that a domain wants reports at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// `mailto:`
    Mail(EmailAddress),
    /// `https:`
    Web(Url),
}

/// The places that the TXT records of `_smtp._tls.DOMAIN` name, the first four
/// that can be read. Empty without a record, with several, and with a broken one:
/// then no reports are wanted.
pub(crate) fn places(records: &[String]) -> Vec<(String, Place)> {
    let mut candidates = records.iter().filter_map(|record| record.strip_prefix("v=TLSRPTv1"));
    let mut candidates = candidates.by_ref().filter(|rest| rest.trim_start_matches([' ', '\t']).starts_with(';'));
    let (Some(fields), None) = (candidates.next(), candidates.next()) else { return Vec::new() };
    let pairs = fields.split(';').filter_map(|field| field.split_once('='));
    let rua = pairs.map(|(key, value)| (key.trim(), value)).find(|(key, _)| *key == "rua");
    let uris = rua.into_iter().flat_map(|(_, uris)| uris.split(',')).map(str::trim);
    // They are kept, and named in the log.
    let uris = uris.filter(|uri| uri.len() <= LONGEST_PLACE && uri.bytes().all(|byte| byte.is_ascii_graphic()));
    uris.filter_map(|uri| Some((uri.to_owned(), place(uri)?))).take(MOST_PLACES).collect()
}

fn place(uri: &str) -> Option<Place> {
    let mail = uri.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("mailto:")).and(uri.get(7..));
    match mail {
        Some(address) => {
            // RFC 6068: header fields that a link may have are nothing for us.
            let address = address.split('?').next().unwrap_or_default();
            percent_decoded(address)?.parse().ok().map(Place::Mail)
        }
        None => Url::parse(uri).map(Place::Web),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(records: &[&str]) -> Vec<String> {
        let records: Vec<_> = records.iter().map(|record| (*record).to_owned()).collect();
        let shown = |(_, place)| match place {
            Place::Mail(address) => address.to_string(),
            Place::Web(url) => format!("{} {} {}", url.host, url.port, url.path),
        };
        places(&records).into_iter().map(shown).collect()
    }

    #[test]
    fn the_records_of_the_rfc() {
        assert_eq!(of(&["v=TLSRPTv1;rua=mailto:reports@example.com"]), ["reports@example.com"]);
        let web = "v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt";
        assert_eq!(of(&[web]), ["reporting.example.com 443 /v1/tlsrpt"]);
    }

    #[test]
    fn places_that_would_spoil_a_log_or_a_table_are_left_out() {
        let long = format!("https://r.example/{}", "x".repeat(LONGEST_PLACE));
        for uri in ["mailto:a@b.example?x=\nforged", "https://r.example/\u{1b}[31m", long.as_str()] {
            let record = format!("v=TLSRPTv1; rua={uri},mailto:ok@b.example");
            let found: Vec<_> = places(&[record]).into_iter().map(|(uri, _)| uri).collect();
            assert_eq!(found, ["mailto:ok@b.example"], "{uri}");
        }
    }

    #[test]
    fn several_places_and_what_is_none() {
        let record = "v=TLSRPTv1; x=y; rua=ftp://a.example/, mailto:a%2Bb@Example.com?subject=x ,https://b.example,\
                      mailto:,mailto:%zz@example.com";
        assert_eq!(of(&["v=spf1 -all", record]), ["a+b@example.com", "b.example 443 /"]);
        let many = format!("v=TLSRPTv1;rua={}", ["mailto:a@example.com"; 9].join(","));
        assert_eq!(of(&[&many]).len(), MOST_PLACES);
    }

    #[test]
    fn records_that_want_nothing() {
        let one = "v=TLSRPTv1;rua=mailto:a@example.com";
        for records in [
            &[][..],
            &[one, one],
            &["v=TLSRPTv1"],
            &["v=TLSRPTv1;"],
            &["v=TLSRPTv1;rua="],
            &["v=TLSRPTv2;rua=mailto:a@example.com"],
            &["rua=mailto:a@example.com"],
        ] {
            assert_eq!(of(records), [""; 0], "{records:?}");
        }
    }

    proptest! {
        #[test]
        fn no_record_breaks_the_reader(rua in "[ -~é%]{0,60}") {
            let _ = places(&[format!("v=TLSRPTv1;rua=mailto:{rua}"), String::new()]);
        }
    }
}
