//! Which address a request comes from.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::HttpRequest;
use ipnet::IpNet;

/// The peer's address, or, behind trusted proxies, the last one in `X-Forwarded-For` that is not
/// such a proxy itself. (actix's `connection_info` believes anyone.)
pub fn client_address(request: &HttpRequest, trusted: &[IpNet]) -> IpAddr {
    let peer = request
        .peer_addr()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    if trusted.is_empty() {
        return peer.to_canonical();
    }
    let forwarded: Vec<&str> = request
        .headers()
        .get_all("x-forwarded-for")
        .filter_map(|value| value.to_str().ok())
        .collect();
    behind_proxies(peer, &forwarded.join(","), trusted)
}

fn behind_proxies(peer: IpAddr, forwarded: &str, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip.to_canonical()));
    let mut client = peer;
    let mut hops = forwarded.rsplit(',');
    while is_trusted(client) {
        match hops.next().and_then(|hop| hop.trim().parse().ok()) {
            Some(ip) => client = ip,
            None => break,
        }
    }
    client.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        for (peer, forwarded, client) in [
            ("192.0.2.9", "203.0.113.1", "192.0.2.9"),
            ("10.0.0.1", "203.0.113.1", "203.0.113.1"),
            (
                "10.0.0.1",
                "198.51.100.7, 203.0.113.1, 10.0.0.2",
                "203.0.113.1",
            ),
            ("10.0.0.1", "203.0.113.1, garbage", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ] {
            let found = behind_proxies(peer.parse().unwrap(), forwarded, &trusted);
            assert_eq!(
                found,
                client.parse::<IpAddr>().unwrap(),
                "{peer} {forwarded}"
            );
        }
    }
}
