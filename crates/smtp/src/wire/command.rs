//! Commands of RFC 5321 and of the extensions that we speak.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::parameters::{self, Extensions, MailRequest, RcptRequest};

/// Longest client name in EHLO or HELO that is kept; RFC 5321 section
/// 4.5.3.1.2 allows 255 octets for a domain.
const MAX_CLIENT_NAME: usize = 255;

/// A command, parsed and valid.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// EHLO with the name that the client gives itself.
    Ehlo(String),
    /// HELO with the name that the client gives itself.
    Helo(String),
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954): the mechanism in upper case and the decoded initial response.
    Auth {
        /// Upper case.
        mechanism: String,
        /// `Some` and empty where the client sent `=`.
        initial: Option<Vec<u8>>,
    },
    /// MAIL.
    Mail(MailRequest),
    /// RCPT.
    Rcpt(RcptRequest),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP, with or without an argument.
    Noop,
    /// VRFY.
    Vrfy,
    /// HELP, with or without an argument.
    Help,
    /// QUIT.
    Quit,
}

/// Why a line is not a command. Always the client's fault; it does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// No such command.
    Unknown,
    /// A command that exists and is not offered.
    NotImplemented,
    /// A command of another protocol: the client is no mail client.
    Foreign,
    /// Octets that no command has: control characters or broken UTF-8.
    BadCharacters,
    /// Wrong arguments; the text shows the right ones.
    Syntax(&'static str),
    /// The address in MAIL can not be one.
    BadSender,
    /// The address in RCPT can not be one.
    BadRecipient,
    /// A parameter that is not offered (its name).
    UnsupportedParameter(String),
    /// A parameter with an impossible value (its name).
    BadParameter(String),
    /// The initial response of AUTH is not base64.
    BadBase64,
}

impl Command {
    /// Parses one line without its end. Verbs, keywords and parameter names
    /// are compared without regard to case (RFC 5321 section 2.4).
    pub fn parse(line: &[u8], extensions: &Extensions) -> Result<Command, CommandError> {
        let line = std::str::from_utf8(line).map_err(|_| CommandError::BadCharacters)?;
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(CommandError::BadCharacters);
        }
        let line = line.trim_end();
        let (verb, arguments) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let arguments = arguments.trim_start();
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => client_name(arguments).map(Command::Ehlo).ok_or(CommandError::Syntax("EHLO hostname")),
            "HELO" => client_name(arguments).map(Command::Helo).ok_or(CommandError::Syntax("HELO hostname")),
            "STARTTLS" => bare(arguments, Command::StartTls, "STARTTLS"),
            "AUTH" => auth(arguments),
            "MAIL" => parameters::mail(arguments, extensions).map(Command::Mail),
            "RCPT" => parameters::rcpt(arguments, extensions).map(Command::Rcpt),
            "DATA" => bare(arguments, Command::Data, "DATA"),
            "RSET" => bare(arguments, Command::Rset, "RSET"),
            "QUIT" => bare(arguments, Command::Quit, "QUIT"),
            "NOOP" => Ok(Command::Noop),
            "HELP" => Ok(Command::Help),
            "VRFY" if arguments.is_empty() => Err(CommandError::Syntax("VRFY address")),
            "VRFY" => Ok(Command::Vrfy),
            "EXPN" | "ETRN" | "TURN" | "BDAT" => Err(CommandError::NotImplemented),
            "GET" | "POST" | "CONNECT" => Err(CommandError::Foreign),
            _ => Err(CommandError::Unknown),
        }
    }

    /// Decodes a line of an AUTH exchange (RFC 4954 section 4): `None` when it is not base64.
    pub fn decode_response(line: &[u8]) -> Option<Vec<u8>> {
        STANDARD.decode(line.trim_ascii()).ok()
    }
}

fn bare(arguments: &str, command: Command, usage: &'static str) -> Result<Command, CommandError> {
    if arguments.is_empty() { Ok(command) } else { Err(CommandError::Syntax(usage)) }
}

/// Any printable name is taken: what clients send here is often not a domain,
/// and RFC 5321 section 4.1.4 forbids refusing mail for it. Spaces are not, as
/// the name goes into the Received field.
fn client_name(arguments: &str) -> Option<String> {
    let fits = (1..=MAX_CLIENT_NAME).contains(&arguments.len());
    (fits && !arguments.contains([' ', '\t'])).then(|| arguments.to_owned())
}

fn auth(arguments: &str) -> Result<Command, CommandError> {
    let mut words = arguments.split_ascii_whitespace();
    let mechanism = words.next().ok_or(CommandError::Syntax("AUTH mechanism"))?.to_ascii_uppercase();
    let initial = match words.next() {
        None => None,
        // RFC 4954 section 4: a response of no octets.
        Some("=") => Some(Vec::new()),
        Some(text) => Some(Command::decode_response(text.as_bytes()).ok_or(CommandError::BadBase64)?),
    };
    match words.next() {
        None => Ok(Command::Auth { mechanism, initial }),
        Some(_) => Err(CommandError::Syntax("AUTH mechanism [initial-response]")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Result<Command, CommandError> {
        Command::parse(line.as_bytes(), &Extensions::default())
    }

    #[test]
    fn verbs_have_no_case_and_tolerate_blanks_at_the_end() {
        assert_eq!(parse("quit"), Ok(Command::Quit));
        assert_eq!(parse("DaTa  "), Ok(Command::Data));
        assert_eq!(parse("ehlo [192.0.2.1]"), Ok(Command::Ehlo("[192.0.2.1]".into())));
        assert_eq!(parse("NOOP what ever"), Ok(Command::Noop));
        assert_eq!(parse("DATA now"), Err(CommandError::Syntax("DATA")));
        assert_eq!(parse("HELO"), Err(CommandError::Syntax("HELO hostname")));
        assert_eq!(parse("EHLO a b"), Err(CommandError::Syntax("EHLO hostname")));
    }

    #[test]
    fn what_is_no_command_says_why() {
        assert_eq!(parse(""), Err(CommandError::Unknown));
        assert_eq!(parse("XYZZY"), Err(CommandError::Unknown));
        assert_eq!(parse("EXPN list"), Err(CommandError::NotImplemented));
        assert_eq!(parse("GET / HTTP/1.1"), Err(CommandError::Foreign));
        assert_eq!(parse("EHLO a\rb"), Err(CommandError::BadCharacters));
        assert_eq!(Command::parse(b"EHLO \xff", &Extensions::default()), Err(CommandError::BadCharacters));
    }

    #[test]
    fn auth_takes_an_initial_response_or_none() {
        let auth = |initial: Option<&[u8]>| {
            Ok(Command::Auth { mechanism: "LOGIN".into(), initial: initial.map(<[u8]>::to_vec) })
        };
        assert_eq!(parse("AUTH login"), auth(None));
        assert_eq!(parse("auth LOGIN dXNlcg=="), auth(Some(b"user")));
        assert_eq!(parse("AUTH LOGIN ="), auth(Some(b"")));
        assert_eq!(parse("AUTH LOGIN !!"), Err(CommandError::BadBase64));
        assert_eq!(parse("AUTH"), Err(CommandError::Syntax("AUTH mechanism")));
        assert!(parse("AUTH PLAIN dXNlcg== x").is_err());
    }

    proptest! {
        #[test]
        fn random_lines_never_panic(line: Vec<u8>) {
            let _ = Command::parse(&line, &Extensions::default());
        }

        #[test]
        fn random_arguments_never_panic(verb in "(MAIL FROM:|RCPT TO:|AUTH |EHLO )", rest in "[ -~é\t]{0,40}") {
            let _ = parse(&format!("{verb}{rest}"));
        }
    }
}
