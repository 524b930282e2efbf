//! From the spool to remote hosts: routing, sites, connections, TLS, classification of replies, retry, bounces.
