//! The grammar of parameters, and the values of those that we know.

use postrider_base::Timestamp;
use postrider_mail::{BodyType, Ret};

use super::parameters::Extensions;
use super::xtext::decode_xtext;

/// RFC 3461 section 4.4.
const MAX_ENVID: usize = 100;
/// RFC 3461 section 4.2.
const MAX_ORCPT: usize = 500;

/// RFC 5321 section 4.1.2: esmtp-keyword.
pub(super) fn is_keyword(name: &str) -> bool {
    !name.starts_with('-')
        && !name.is_empty()
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
}

/// RFC 5321 section 4.1.2: esmtp-value; RFC 6531 section 3.3 adds UTF-8.
pub(super) fn is_value(value: &str, utf8: bool) -> bool {
    let fits = |octet: u8| octet.is_ascii_graphic() && octet != b'=' || utf8 && !octet.is_ascii();
    !value.is_empty() && value.bytes().all(fits)
}

/// RFC 1870 section 5: 1 to 20 digits; a number beyond 64 bits is over any limit.
pub(super) fn parse_size(value: &str) -> Option<u64> {
    let digits = (1..=20).contains(&value.len()) && value.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| value.parse().unwrap_or(u64::MAX))
}

pub(super) fn parse_body(value: &str, extensions: &Extensions) -> Option<BodyType> {
    let body = [BodyType::SevenBit, BodyType::EightBitMime, BodyType::BinaryMime]
        .into_iter()
        .find(|body| value.eq_ignore_ascii_case(body.as_str()))?;
    // RFC 3030 section 3.
    let offered = body != BodyType::BinaryMime || extensions.binary_mime && extensions.chunking;
    offered.then_some(body)
}

pub(super) fn parse_ret(value: &str) -> Option<Ret> {
    [Ret::Full, Ret::Headers].into_iter().find(|ret| value.eq_ignore_ascii_case(ret.as_str()))
}

/// RFC 3461 section 4.4: xtext that stands for printable ASCII.
pub(super) fn parse_envid(value: &str) -> Option<String> {
    let envid = decode_xtext(value).filter(|_| value.len() <= MAX_ENVID)?;
    envid.is_ascii().then_some(envid)
}

/// RFC 4865 section 3: up to nine digits, the first of them not zero.
pub(super) fn parse_interval(value: &str, longest: u32) -> Option<u32> {
    let digits = value.len() <= 9 && !value.starts_with('0') && value.bytes().all(|octet| octet.is_ascii_digit());
    value.parse().ok().filter(|seconds| digits && *seconds <= longest)
}

/// RFC 4865 section 3: an RFC 3339 time, in UTC.
pub(super) fn parse_time(value: &str) -> Option<Timestamp> {
    let utc = value.ends_with(['Z', 'z']) && value.as_bytes().get(10).is_some_and(|t| t.eq_ignore_ascii_case(&b'T'));
    Timestamp::parse_rfc3339(value).filter(|_| utc)
}

/// RFC 3461 section 4.2: an address type, a semicolon, xtext. Only the type
/// `utf-8` has other characters than ASCII (RFC 6533 section 3).
pub(super) fn parse_orcpt(value: &str) -> Option<String> {
    let (kind, address) = value.split_once(';')?;
    if value.len() > MAX_ORCPT || !is_keyword(kind) || address.is_empty() {
        return None;
    }
    let address = decode_xtext(address)?;
    let fits = address.is_ascii() || kind.eq_ignore_ascii_case("utf-8");
    fits.then(|| format!("{kind};{address}"))
}
