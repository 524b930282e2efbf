//! What RFC 7208 says, section by section.
