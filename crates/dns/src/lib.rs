//! The resolver: MX, addresses, TXT, PTR, with a cache on the injected clock and a programmable stand-in for tests.
