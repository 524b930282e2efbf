//! What can be wrong with words of mail. None of these pass by waiting.

/// Why a text is not an email address or domain. The fault is with whoever
/// wrote the address; trying again does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no `@`, or nothing before it.
    #[error("an address needs a local part, '@' and a domain")]
    NoLocalPart,
    /// The local part is neither a dot-string nor a quoted string.
    #[error("illegal character in the local part")]
    LocalPart,
    /// The local part is longer than 64 octets.
    #[error("the local part is longer than 64 octets")]
    LocalPartTooLong,
    /// The domain is not a host name, or its international form has no A-label form.
    #[error("the domain is not a valid host name")]
    Domain,
    /// The domain is longer than 255 octets, or one of its labels than 63.
    #[error("the domain is longer than 255 octets or one of its labels than 63")]
    DomainTooLong,
    /// Brackets that hold neither an IPv4 nor a tagged IPv6 address.
    #[error("the address literal is neither IPv4 nor IPv6")]
    Literal,
    /// The whole address is longer than 254 octets.
    #[error("the address is longer than 254 octets")]
    TooLong,
}

/// Everything else that can fail to parse in this room. The fault is with the
/// text's writer; trying again does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address or domain: the sender of the text is at fault.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Not a message id in its one spelling of 60 characters: whoever typed it is at fault.
    #[error("a message id is 60 characters: 16 hex digits, '-', a UUID, '-000000'")]
    MessageId,
    /// Not an account number of twelve digits: whoever typed it is at fault.
    #[error("an account id is a number of at most twelve digits")]
    AccountId,
    /// Not an enhanced status code such as `5.1.1`: the remote server is at fault.
    #[error("an enhanced status code is 2, 4 or 5, '.', a number, '.', a number")]
    EnhancedStatus,
    /// Not the value of a NOTIFY parameter: the client is at fault.
    #[error("NOTIFY takes NEVER, or a list of SUCCESS, FAILURE and DELAY")]
    Notify,
    /// Not a reason for suppression: whoever typed it is at fault.
    #[error("a suppression reason is BOUNCE or COMPLAINT")]
    SuppressionReason,
    /// The header of a message is longer than [`crate::MAX_HEADER_BYTES`]: the message's author is at fault.
    #[error("the header is longer than {} bytes", crate::MAX_HEADER_BYTES)]
    HeaderTooLong,
    /// A header has more than [`crate::MAX_HEADER_FIELDS`] fields: the message's author is at fault.
    #[error("the header has more than {} fields", crate::MAX_HEADER_FIELDS)]
    TooManyFields,
}
