//! The SMTP wire, both sides, sans-IO: codec, framing, server session and client conversation. No sockets, no clock, no runtime.
