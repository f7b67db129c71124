//! Determines the address a request comes from.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::HttpRequest;
use ipnet::IpNet;

use super::Context;

/// The peer's address or, behind trusted proxies, the last address in `X-Forwarded-For` that is not
/// a trusted proxy itself. (actix's `connection_info` trusts every client.)
pub fn client_address(request: &HttpRequest) -> IpAddr {
    let trusted = &Context::of(request).config.trusted_proxies;
    let peer = request
        .peer_addr()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    if trusted.is_empty() {
        return peer.to_canonical();
    }
    let lines: Vec<&[u8]> = request
        .headers()
        .get_all("x-forwarded-for")
        .map(|value| value.as_bytes())
        .collect();
    behind_proxies(peer, &lines, trusted)
}

/// Whether a trusted proxy sent the request itself.
pub fn is_from_proxy(request: &HttpRequest, trusted: &[IpNet]) -> bool {
    !trusted.is_empty()
        && request.peer_addr().is_some_and(|peer| {
            let peer = peer.ip().to_canonical();
            trusted.iter().any(|net| net.contains(&peer))
        })
}

/// Each proxy appends the address it was called from, so the list is read from the right, and no
/// further than to the first untrusted one. Everything before that came from the client and may be
/// anything, even bytes that are not text. An entry that is not an address ends the search at the
/// proxy that wrote it.
fn behind_proxies(peer: IpAddr, lines: &[&[u8]], trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip.to_canonical()));
    let mut client = peer;
    let mut hops = lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        // A list may have empty elements (RFC 9110, 5.6.1).
        .filter(|hop| !hop.is_empty());
    while is_trusted(client) {
        match hops.next().and_then(parse_hop) {
            Some(ip) => client = ip,
            None => break,
        }
    }
    client.to_canonical()
}

/// An address in the forms that proxies write: alone, with a port, in brackets, in quotes.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?;
    let hop = hop
        .strip_prefix('"')
        .and_then(|hop| hop.strip_suffix('"'))
        .unwrap_or(hop)
        .trim();
    if let Some(rest) = hop.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        let is_port_or_nothing = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return is_port_or_nothing.then(|| parse_v6(address)).flatten();
    }
    match hop.split_once(':') {
        // With a second colon it is an IPv6 address, which has a port only after brackets.
        Some((address, port)) if !port.contains(':') => {
            let address: Ipv4Addr = address.parse().ok()?;
            is_port(port).then_some(address.into())
        }
        Some(_) => parse_v6(hop),
        None => hop.parse().ok(),
    }
}

/// Drops the zone, which is meaningful only on the proxy's machine.
fn parse_v6(text: &str) -> Option<IpAddr> {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse().ok().map(IpAddr::V6)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let trusted: Vec<IpNet> = vec![
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8:ffff::/48".parse().unwrap(),
        ];
        let proxy = "10.0.0.1";
        for (peer, lines, client) in [
            ("192.0.2.9", &[&b"203.0.113.1"[..]][..], "192.0.2.9"),
            (proxy, &[b"203.0.113.1"], "203.0.113.1"),
            (
                proxy,
                &[b"198.51.100.7, 203.0.113.1, 10.0.0.2"],
                "203.0.113.1",
            ),
            (proxy, &[b"203.0.113.1, garbage"], proxy),
            (proxy, &[b"203.0.113.1, unknown"], proxy),
            (proxy, &[b"203.0.113.1, _hidden, 10.0.0.7"], "10.0.0.7"),
            (proxy, &[b""], proxy),
            (proxy, &[], proxy),
            (proxy, &[b" , ,"], proxy),
            ("::ffff:10.0.0.1", &[b"2001:db8::1"], "2001:db8::1"),
            // Ports, brackets and quotes.
            (proxy, &[b"203.0.113.7:49152"], "203.0.113.7"),
            (proxy, &[b"[2001:db8::1]:443"], "2001:db8::1"),
            (proxy, &[b"[2001:db8::1]"], "2001:db8::1"),
            (proxy, &[b"\"[2001:db8::1]\""], "2001:db8::1"),
            (proxy, &[b"\"[2001:db8::1]:8080\""], "2001:db8::1"),
            (proxy, &[b"\"203.0.113.7:80\""], "203.0.113.7"),
            (proxy, &[b"203.0.113.1, 10.0.0.2:3128"], "203.0.113.1"),
            (
                proxy,
                &[b"203.0.113.1, [2001:db8:ffff::2]:3128"],
                "203.0.113.1",
            ),
            (proxy, &[b"::ffff:203.0.113.7"], "203.0.113.7"),
            (proxy, &[b"[::ffff:203.0.113.7]:443"], "203.0.113.7"),
            (proxy, &[b"fe80::1%eth0"], "fe80::1"),
            (proxy, &[b"[fe80::1%25eth0]:443"], "fe80::1"),
            // Text that the client sent before the proxy's own entry does not matter.
            (proxy, &[b"\xff\xfe, 203.0.113.7"], "203.0.113.7"),
            (proxy, &[b"a:b:c]]\"[, 203.0.113.7"], "203.0.113.7"),
            (proxy, &[b"\xc3\x28", b"203.0.113.7"], "203.0.113.7"),
            // Several header lines form one list.
            (proxy, &[b"198.51.100.7", b"203.0.113.1"], "203.0.113.1"),
            (proxy, &[b"203.0.113.1", b"10.0.0.2"], "203.0.113.1"),
            (proxy, &[b"203.0.113.1", b"10.0.0.2, ", b""], "203.0.113.1"),
            // Texts that only look like addresses.
            (proxy, &[b"203.0.113.7:"], proxy),
            (proxy, &[b"203.0.113.7:99999"], proxy),
            (proxy, &[b"203.0.113.7:80x"], proxy),
            (proxy, &[b"[203.0.113.7]"], proxy),
            (proxy, &[b"[2001:db8::1"], proxy),
            (proxy, &[b"[2001:db8::1]x"], proxy),
            (proxy, &[b"203.0.113.7 198.51.100.7"], proxy),
            (proxy, &[b"\xff"], proxy),
        ] {
            let found = behind_proxies(peer.parse().unwrap(), lines, &trusted);
            let told: Vec<_> = lines.iter().map(|l| String::from_utf8_lossy(l)).collect();
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {told:?}");
        }
    }
}
