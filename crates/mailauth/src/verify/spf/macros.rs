//! Macros of SPF (RFC 7208 section 7).

use std::net::IpAddr;

/// A text with macros that keeps to the grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MacroString(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// `%%`, `%_`, `%-`: what each stands for.
    Escape(&'static str),
    Macro(Expand),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Expand {
    /// Lower case.
    letter: u8,
    escaped: bool,
    /// How many parts are kept, from the right; `None` for all.
    parts: Option<usize>,
    reversed: bool,
    delimiters: String,
}

/// What the letters stand for.
#[derive(Debug)]
pub(super) struct Values<'a> {
    pub(super) ip: IpAddr,
    pub(super) local: &'a str,
    pub(super) sender_domain: &'a str,
    pub(super) domain: &'a str,
    pub(super) helo: &'a str,
    pub(super) receiver: &'a str,
    /// The name of the address that was found to be true (`%{p}`).
    pub(super) validated: &'a str,
    /// Seconds since 1970.
    pub(super) time: u64,
}

impl MacroString {
    /// A `domain-spec`: it ends in a macro or in a top-level label, and has no letter that is
    /// for explanations alone.
    pub(super) fn domain(text: &str) -> Option<MacroString> {
        let string = MacroString::parse(text, b"slodiphv")?;
        let ends = match string.0.last()? {
            Piece::Literal(literal) => ends_in_top_label(literal),
            Piece::Escape(_) | Piece::Macro(_) => true,
        };
        ends.then_some(string)
    }

    /// A `macro-string`, as the value of a modifier nobody knows.
    pub(super) fn text(text: &str) -> Option<MacroString> {
        MacroString::parse(text, b"slodiphvcrt")
    }

    /// An `explain-string`: it has spaces too (RFC 7208 section 6.2).
    pub(super) fn explanation(text: &str) -> Option<MacroString> {
        let words: Option<Vec<MacroString>> = text.split(' ').map(MacroString::text).collect();
        let mut pieces = Vec::new();
        for (index, word) in words?.into_iter().enumerate() {
            if index > 0 {
                pieces.push(Piece::Escape(" "));
            }
            pieces.extend(word.0);
        }
        Some(MacroString(pieces))
    }

    fn parse(text: &str, letters: &[u8]) -> Option<MacroString> {
        // RFC 7208 section 7.1: visible characters of US-ASCII.
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            push_literal(&mut pieces, &rest[..at]);
            let after = &rest[at + 1..];
            rest = after.get(1..)?;
            match after.as_bytes()[0] {
                b'%' => pieces.push(Piece::Escape("%")),
                b'_' => pieces.push(Piece::Escape(" ")),
                b'-' => pieces.push(Piece::Escape("%20")),
                b'{' => {
                    let (inside, behind) = rest.split_once('}')?;
                    pieces.push(Piece::Macro(Expand::parse(inside, letters)?));
                    rest = behind;
                }
                _ => return None,
            }
        }
        push_literal(&mut pieces, rest);
        Some(MacroString(pieces))
    }

    /// Whether `%{p}` is in it, which asks the DNS.
    pub(super) fn needs_validated(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Macro(expand) if expand.letter == b'p'))
    }

    /// The text with the macros expanded.
    pub(super) fn expand(&self, values: &Values<'_>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Escape(meant) => text.push_str(meant),
                Piece::Macro(expand) => expand.expand(values, &mut text),
            }
        }
        text
    }

    /// The domain name that it expands to, cut from the left to 253 characters (RFC 7208
    /// section 7.3), without the final dot.
    pub(super) fn expand_domain(&self, values: &Values<'_>) -> String {
        let text = self.expand(values);
        let mut name = text.strip_suffix('.').unwrap_or(&text);
        while name.len() > 253 {
            let Some((_, shorter)) = name.split_once('.') else { break };
            name = shorter;
        }
        name.to_ascii_lowercase()
    }
}

impl Expand {
    fn parse(inside: &str, letters: &[u8]) -> Option<Expand> {
        let letter = *inside.as_bytes().first()?;
        let rest = inside.get(1..)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = rest.split_at(digits);
        // RFC 7208 section 7.3: at least 1. A number beyond all bounds keeps all parts.
        let parts = if number.is_empty() { None } else { Some(number.parse().unwrap_or(usize::MAX)) };
        let reversed = rest.starts_with(['r', 'R']);
        let delimiters = &rest[usize::from(reversed)..];
        let known = letters.contains(&letter.to_ascii_lowercase());
        let right = known && parts != Some(0) && delimiters.bytes().all(|b| b".-+,/_=".contains(&b));
        right.then(|| Expand {
            letter: letter.to_ascii_lowercase(),
            escaped: letter.is_ascii_uppercase(),
            parts,
            reversed,
            delimiters: if delimiters.is_empty() { ".".to_owned() } else { delimiters.to_owned() },
        })
    }

    fn expand(&self, values: &Values<'_>, text: &mut String) {
        let value = self.value(values);
        let mut parts: Vec<&str> = value.split(|c| self.delimiters.contains(c)).collect();
        if self.reversed {
            parts.reverse();
        }
        let dropped = self.parts.map_or(0, |kept| parts.len().saturating_sub(kept));
        let joined = parts[dropped..].join(".");
        if self.escaped {
            escape(&joined, text);
        } else {
            text.push_str(&joined);
        }
    }

    fn value(&self, values: &Values<'_>) -> String {
        match self.letter {
            b's' => format!("{}@{}", values.local, values.sender_domain),
            b'l' => values.local.to_owned(),
            b'o' => values.sender_domain.to_owned(),
            b'd' => values.domain.to_owned(),
            b'i' => dotted(values.ip),
            b'p' => values.validated.to_owned(),
            b'v' => if values.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            b'h' => values.helo.to_owned(),
            b'c' => values.ip.to_string(),
            b'r' => values.receiver.to_owned(),
            b't' => values.time.to_string(),
            _ => String::new(),
        }
    }
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Literal(text.to_owned()));
    }
}

/// RFC 7208 section 7.1: `domain-end = ( "." toplabel [ "." ] ) / macro-expand`, and a top
/// label is not a number.
fn ends_in_top_label(literal: &str) -> bool {
    let text = literal.strip_suffix('.').unwrap_or(literal);
    let Some((_, label)) = text.rsplit_once('.') else { return false };
    let ldh = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let number = label.bytes().all(|b| b.is_ascii_digit());
    ldh && !number && !label.starts_with('-') && !label.ends_with('-')
}

/// An address as labels: four numbers, or thirty-two digits.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let digits = format!("{:032x}", u128::from(ip));
            digits.chars().map(String::from).collect::<Vec<_>>().join(".")
        }
    }
}

/// RFC 3986: all but unreserved characters are escaped.
fn escape(text: &str, escaped: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(ip: &str) -> Values<'static> {
        Values {
            ip: ip.parse().unwrap(),
            local: "strong-bad",
            sender_domain: "email.example.com",
            domain: "email.example.com",
            helo: "mx.example.org",
            receiver: "mx.example.net",
            validated: "mx.example.org",
            time: 1_000_000,
        }
    }

    /// The examples of RFC 7208 section 7.4.
    #[test]
    fn the_examples_of_the_rfc() {
        let examples = [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ];
        for (text, expected) in examples {
            assert_eq!(MacroString::domain(text).unwrap().expand(&values("192.0.2.3")), expected, "{text}");
        }
        let v6 = MacroString::domain("%{ir}.%{v}._spf.%{d2}").unwrap().expand(&values("2001:db8::cb01"));
        let digits = "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2";
        assert_eq!(v6, format!("{digits}.ip6._spf.example.com"));
    }

    #[test]
    fn escapes_and_explanations() {
        let text = MacroString::explanation("%{S} is%_not 100%% %-right: %{c} %{r} %{t}").unwrap();
        let expected = "strong-bad%40email.example.com is not 100% %20right: 192.0.2.3 mx.example.net 1000000";
        assert_eq!(text.expand(&values("192.0.2.3")), expected);
        assert!(MacroString::explanation("50% off").is_none());
    }

    #[test]
    fn long_names_lose_labels_on_the_left() {
        let long = format!("{}%{{d}}", "abcdefghi.".repeat(30));
        let name = MacroString::domain(&long).unwrap().expand_domain(&values("192.0.2.3"));
        assert!(name.len() <= 253 && name.starts_with("abcdefghi.") && name.ends_with(".email.example.com"));
    }
}
