//! Which addresses may be connected to. What a name leads to is looked at when a connection is
//! opened, and the address that was looked at is the one that is connected to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far connections to a place may lead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Anywhere: the place was chosen by the operator, and nothing is looked at.
    #[default]
    Anywhere,
    /// Not to the machine's link and the servers that give out its identity.
    Inner,
    /// Only to what all the world can reach.
    Public,
}

/// An address was looked at, and it may not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("the address {0} must not be reached from here")]
pub struct Forbidden(pub IpAddr);

/// Metadata servers outside of the link-local addresses: of AWS, Alibaba Cloud and Oracle Cloud.
const METADATA: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

// === impl Reach ===

impl Reach {
    pub fn allows(self, address: IpAddr) -> bool {
        if self == Self::Anywhere {
            return true;
        }
        let public = self == Self::Public;
        let good = |address: IpAddr| {
            !METADATA.contains(&address)
                && match address {
                    IpAddr::V4(address) => is_good(address, public),
                    IpAddr::V6(address) => is_good_v6(address, public),
                }
        };
        let embedded = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => embedded(address),
        };
        // ::1 and :: look as if there was an IPv4 address inside of them.
        good(address) && embedded.is_none_or(|inner| good(IpAddr::V4(inner)))
    }

    /// The addresses of a host, all of which may be connected to.
    pub(super) async fn look_up(self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let host = host.trim_matches(['[', ']']);
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        if let Some(bad) = found.iter().find(|address| !self.allows(address.ip())) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, Forbidden(bad.ip())));
        }
        Ok(found)
    }
}

fn is_good(address: Ipv4Addr, public: bool) -> bool {
    let [first, second, third, _] = address.octets();
    let never = address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || first == 0
        // Reserved (RFC 1112, section 4).
        || first >= 240;
    let inner = address.is_private()
        || address.is_loopback()
        || address.is_documentation()
        // Shared by customers of a carrier (RFC 6598).
        || (first == 100 && (64..128).contains(&second))
        // Of protocols, relays and benchmarks (RFC 6890, 7526, 2544).
        || (first == 192 && second == 0 && third == 0)
        || (first == 192 && second == 88 && third == 99)
        || (first == 198 && (18..20).contains(&second));
    !(never || (public && inner))
}

fn is_good_v6(address: Ipv6Addr, public: bool) -> bool {
    let segments = address.segments();
    let never = address.is_unicast_link_local()
        || address.is_multicast()
        || address.is_unspecified()
        // Site-local, which was given up (RFC 3879).
        || (segments[0] & 0xffc0) == 0xfec0;
    // All that the world can reach begins with the bits 001 (RFC 4291), or holds an IPv4 address.
    let global = (segments[0] & 0xe000) == 0x2000 || embedded(address).is_some();
    let documentation = (segments[0] == 0x2001 && segments[1] == 0xdb8) || segments[0] == 0x3fff;
    // ORCHID, benchmarks and the like live below 2001::/23.
    let special = segments[0] == 0x2001 && segments[1] < 0x200 && segments[1] != 0;
    !never && (!public || (global && !documentation && !special && !address.is_loopback()))
}

/// The IPv4 address that an IPv6 one leads to: mapped, compatible, translated (NAT64), 6to4, Teredo
/// or ISATAP.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let join = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    let last = join(segments[6], segments[7]);
    match segments {
        [0, 0, 0, 0, 0, 0, high, low] => (high != 0 || low > 1).then_some(last),
        [0, 0, 0, 0, 0, 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..]
        | [0x64, 0xff9b, 1, ..]
        | [.., 0 | 0x200, 0x5efe, _, _] => Some(last),
        [0x2002, high, low, ..] => Some(join(high, low)),
        [0x2001, 0, ..] => Some(join(!segments[6], !segments[7])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_world_can_reach_is_public() {
        for good in ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808"] {
            assert!(Reach::Public.allows(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.3.4",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.192",
            "192.0.2.7",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:0:4136:e378:8000:63bf:80ff:fffe",
            "fe80::5efe:10.0.0.1",
            "2606:4700::5efe:127.0.0.1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "100::1",
        ] {
            assert!(!Reach::Public.allows(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn the_inner_network_ends_where_machines_are_told_who_they_are() {
        for good in ["127.0.0.1", "10.0.0.1", "::1", "fd12::1", "100.64.0.1", "1.1.1.1"] {
            assert!(Reach::Inner.allows(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "169.254.169.254",
            "169.254.170.2",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "::ffff:100.100.100.200",
            "192.0.0.192",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
        ] {
            assert!(!Reach::Inner.allows(bad.parse().unwrap()), "{bad}");
            assert!(Reach::Anywhere.allows(bad.parse().unwrap()), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_an_inner_address_is_refused() {
        let refused = Reach::Public.look_up("localhost", 80).await.unwrap_err();
        assert!(refused.get_ref().unwrap().is::<Forbidden>());
        for literal in ["[::1]", "127.0.0.1", "[::ffff:10.0.0.1]"] {
            assert!(Reach::Public.look_up(literal, 80).await.is_err(), "{literal}");
        }
        assert!(Reach::Inner.look_up("localhost", 80).await.is_ok());
    }
}
