//! Ports for servers that are told theirs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use postrider_base::Random;

/// Ports that Linux gives to no outgoing connection unless it is told to
/// (`net.ipv4.ip_local_port_range` begins at 32,768).
const PORTS: std::ops::Range<u16> = 10_000..32_768;

/// A loopback address whose port nobody has, for TCP and UDP. It stays free while a server is
/// down: no client's connection gets it.
///
/// # Errors
/// When a hundred ports are taken.
pub fn free_address() -> io::Result<SocketAddr> {
    let random = Random::system();
    let mut last = io::Error::other("no port was tried");
    for _ in 0..100 {
        let offset = random.below(PORTS.len() as u64);
        let port = PORTS.start + u16::try_from(offset).map_err(io::Error::other)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpListener::bind(address).and_then(|_| UdpSocket::bind(address)) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_outgoing_connection_gets_such_a_port() {
        let address = free_address().unwrap();
        assert!(PORTS.contains(&address.port()));
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        assert!(first >= PORTS.end, "{range}");
        assert!(TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok());
    }
}
