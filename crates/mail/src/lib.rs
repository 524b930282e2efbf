//! The vocabulary of mail: addresses, envelopes, message ids, status codes, outcomes, header blocks and delivery status notifications. No I/O.
