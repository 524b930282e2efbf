//! What a remote host offers.

use postrider_mail::SmtpReply;

/// The extensions in a reply to EHLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SIZE (RFC 1870): offered, so that MAIL may name the size.
    pub size: bool,
    /// The largest message that the host takes, where it says so.
    pub max_size: Option<u64>,
    /// STARTTLS (RFC 3207).
    pub start_tls: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtp_utf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// CHUNKING (RFC 3030): BDAT.
    pub chunking: bool,
    /// BINARYMIME (RFC 3030).
    pub binary_mime: bool,
    /// LIMITS RCPTMAX (RFC 9422): recipients that the host takes for a message.
    pub max_recipients: Option<u32>,
    /// LIMITS MAILMAX (RFC 9422): messages that the host takes on a connection.
    pub max_messages: Option<u32>,
    /// AUTH PLAIN (RFC 4616).
    pub auth_plain: bool,
    /// AUTH LOGIN.
    pub auth_login: bool,
}

impl Features {
    /// Reads a reply to EHLO; its first line is the host's name. What is not
    /// understood is skipped.
    pub fn parse(reply: &SmtpReply) -> Features {
        let mut features = Features::default();
        for line in reply.lines.iter().skip(1) {
            let line = line.to_ascii_uppercase();
            // Old servers write `AUTH=LOGIN`.
            let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
            match words.next() {
                Some("PIPELINING") => features.pipelining = true,
                Some("8BITMIME") => features.eight_bit_mime = true,
                Some("STARTTLS") => features.start_tls = true,
                Some("SMTPUTF8") => features.smtp_utf8 = true,
                Some("DSN") => features.dsn = true,
                Some("REQUIRETLS") => features.require_tls = true,
                Some("CHUNKING") => features.chunking = true,
                Some("BINARYMIME") => features.binary_mime = true,
                Some("LIMITS") => {
                    features.max_recipients = limit(&line, "RCPTMAX=");
                    features.max_messages = limit(&line, "MAILMAX=");
                }
                Some("SIZE") => {
                    features.size = true;
                    // RFC 1870 section 4: zero says that there is no limit.
                    let size = words.next().and_then(|word| word.parse().ok());
                    features.max_size = size.filter(|size| *size > 0);
                }
                Some("AUTH") => {
                    for mechanism in words {
                        features.auth_plain |= mechanism == "PLAIN";
                        features.auth_login |= mechanism == "LOGIN";
                    }
                }
                _ => {}
            }
        }
        features
    }
}

/// RFC 9422 section 3: `NAME=VALUE` words, of which unknown ones are skipped.
fn limit(line: &str, name: &str) -> Option<u32> {
    let value = line.split(' ').find_map(|word| word.strip_prefix(name))?;
    value.parse().ok().filter(|limit| *limit > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_read_in_any_case() {
        let reply =
            SmtpReply::new(250, "mx PIPELINING\nsize 1000\nPipelining\nAUTH=login\nauth PLAIN XOAUTH2\nX-FOO\n");
        let features = Features::parse(&reply);
        let expected = Features {
            pipelining: true,
            size: true,
            max_size: Some(1000),
            auth_plain: true,
            auth_login: true,
            ..Features::default()
        };
        assert_eq!(features, expected);
    }

    #[test]
    fn limits_are_read_where_they_make_sense() {
        let limits = |line: &str| {
            let features = Features::parse(&SmtpReply::new(250, &format!("mx\n{line}")));
            (features.max_recipients, features.max_messages)
        };
        assert_eq!(limits("LIMITS RCPTDOMAINMAX=1 RCPTMAX=50 MAILMAX=100"), (Some(50), Some(100)));
        assert_eq!(limits("limits mailmax=0 rcptmax=x"), (None, None));
        assert_eq!(limits("LIMITS"), (None, None));
    }

    #[test]
    fn the_host_name_is_no_extension_and_sizes_may_be_missing() {
        assert_eq!(Features::parse(&SmtpReply::new(250, "PIPELINING")), Features::default());
        for size in ["SIZE", "SIZE 0", "SIZE x"] {
            let features = Features::parse(&SmtpReply::new(250, &format!("mx\n{size}")));
            assert_eq!((features.size, features.max_size), (true, None), "{size}");
        }
    }
}
