//! For tests and benchmarks only: scriptable MX, load generator, certificate authority.
