//! Where notices come from: which senders are let in at all, and how many wrong notices one may send.
//!
//! The signature is the authority; this only keeps strangers from costing anything.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// For so long failures are counted together, and their sender is kept out after too many.
const WINDOW: Duration = Duration::from_secs(60);

/// As many senders are remembered as do not matter to the memory. When more of them fail at once, those beyond are not counted.
const SENDERS_MAX: usize = 10_000;

/// Who may send notices.
#[derive(Debug, Clone)]
pub struct NoticeRules {
    /// The header in which the proxy in front says whom it speaks for; without it every sender is the one that the connection is from.
    pub proxy_header: Option<HeaderName>,
    /// The networks that may send; all of them when empty.
    pub networks: Vec<IpNet>,
    /// How long the body of a notice may take to come in.
    pub timeout: Duration,
    /// So many wrong notices of one sender in a minute are looked at; then nothing of it, until the minute is over.
    pub failures_max: NonZeroU32,
}

/// Who is kept out, besides the rules.
#[derive(Debug)]
pub(super) struct Gate {
    rules: NoticeRules,
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

/// The failures of a sender since the first of them.
#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Instant,
    count: u32,
}

/// Why a sender is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is in none of the networks, or nobody knows who it is.
    Stranger,
    /// It has sent too much that was wrong.
    Offender,
}

impl Gate {
    pub fn new(rules: NoticeRules) -> Self {
        Self {
            rules,
            failures: Mutex::default(),
        }
    }

    /// How long the body of a notice may take to come in.
    pub fn timeout(&self) -> Duration {
        self.rules.timeout
    }

    /// The sender of a request, if it is let in. `None` in place of one whose failures are not counted: a proxy speaks for everybody. The
    /// header is believed of a proxy on this machine or its network alone.
    pub fn admit(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<Option<IpAddr>, Refused> {
        let peer = peer.ip().to_canonical();
        let sender = match &self.rules.proxy_header {
            Some(header) if is_near(peer) => named(headers, header),
            Some(_) | None => Some(peer).filter(|ip| !is_near(*ip)),
        };
        let networks = &self.rules.networks;
        let is_among = |sender: IpAddr| networks.iter().any(|network| network.contains(&sender));
        if !networks.is_empty() && !sender.is_some_and(is_among) {
            return Err(Refused::Stranger);
        }
        let sender = sender.map(counted_as);
        match sender {
            Some(sender) if self.is_out(sender, now) => Err(Refused::Offender),
            sender => Ok(sender),
        }
    }

    fn is_out(&self, sender: IpAddr, now: Instant) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&sender).is_some_and(|known| {
            known.is_fresh(now) && known.count >= self.rules.failures_max.get()
        })
    }

    /// Counts a notice that was wrong.
    pub fn note_failure(&self, sender: Option<IpAddr>, now: Instant) {
        let Some(sender) = sender else { return };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= SENDERS_MAX && !failures.contains_key(&sender) {
            failures.retain(|_, known| known.is_fresh(now));
            if failures.len() >= SENDERS_MAX {
                return;
            }
        }
        let known = failures.entry(sender).or_insert(Failures {
            since: now,
            count: 0,
        });
        if !known.is_fresh(now) {
            *known = Failures {
                since: now,
                count: 0,
            };
        }
        known.count = known.count.saturating_add(1);
    }
}

impl Failures {
    fn is_fresh(self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < WINDOW
    }
}

/// The last address in the header: the one that the proxy itself has added. Those before it are the sender's own words.
fn named(headers: &HeaderMap, header: &HeaderName) -> Option<IpAddr> {
    let line = headers.get_all(header).iter().next_back()?.to_str().ok()?;
    let ip: IpAddr = line.rsplit(',').next()?.trim().parse().ok()?;
    Some(ip.to_canonical())
}

/// Whether it is an address of this machine or its network, where a proxy is that speaks for everybody.
fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}

/// Whoever has one address of version 6 has all of its network.
fn counted_as(sender: IpAddr) -> IpAddr {
    match sender {
        IpAddr::V4(_) => sender,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "x-forwarded-for";

    fn gate(proxy_header: Option<&'static str>, networks: &[&str]) -> Gate {
        Gate::new(NoticeRules {
            proxy_header: proxy_header.map(HeaderName::from_static),
            networks: networks
                .iter()
                .map(|network| network.parse().expect("a network"))
                .collect(),
            timeout: Duration::from_secs(10),
            failures_max: NonZeroU32::new(3).expect("not zero"),
        })
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let name = HeaderName::from_static(HEADER);
        lines
            .iter()
            .map(|line| (name.clone(), line.parse().expect("a header")))
            .collect()
    }

    fn admit(gate: &Gate, peer: &str, lines: &[&str]) -> Result<Option<String>, Refused> {
        let peer = peer.parse().expect("an address");
        let admitted = gate.admit(peer, &headers(lines), Instant::now());
        admitted.map(|sender| sender.map(|sender| sender.to_string()))
    }

    fn sender(text: &str) -> Result<Option<String>, Refused> {
        Ok(Some(text.to_owned()))
    }

    #[test]
    fn the_sender_is_whom_the_proxy_names_last() {
        let gate = gate(Some(HEADER), &[]);
        let here = "127.0.0.1:5000";
        assert_eq!(
            admit(&gate, here, &["5.196.116.33"]),
            sender("5.196.116.33")
        );
        assert_eq!(
            admit(&gate, here, &["5.196.116.33, 203.0.113.7"]),
            sender("203.0.113.7")
        );
        assert_eq!(
            admit(&gate, here, &["5.196.116.33", "203.0.113.7"]),
            sender("203.0.113.7")
        );
        assert_eq!(
            admit(&gate, here, &["::ffff:203.0.113.7"]),
            sender("203.0.113.7")
        );
        assert_eq!(
            admit(&gate, here, &["2001:db8:1:2:3:4:5:6"]),
            sender("2001:db8:1:2::")
        );
        for unknown in [&[][..], &["unknown"], &["203.0.113.7,"]] {
            assert_eq!(admit(&gate, here, unknown), Ok(None));
        }
    }

    #[test]
    fn the_header_is_believed_of_a_proxy_nearby_alone() {
        let gate = gate(Some(HEADER), &["5.196.116.32/28"]);
        let pretended = gate.admit(
            "203.0.113.7:5000".parse().expect("an address"),
            &headers(&["5.196.116.33"]),
            Instant::now(),
        );
        assert!(matches!(pretended, Err(Refused::Stranger)));
        assert_eq!(
            admit(&gate, "5.196.116.33:5000", &["203.0.113.7"]),
            sender("5.196.116.33")
        );
    }

    #[test]
    fn without_a_header_the_sender_is_the_one_that_the_connection_is_from_unless_that_is_a_proxy_here()
     {
        let gate = gate(None, &[]);
        assert_eq!(
            admit(&gate, "203.0.113.7:5000", &["5.196.116.33"]),
            sender("203.0.113.7")
        );
        assert_eq!(admit(&gate, "127.0.0.1:5000", &["5.196.116.33"]), Ok(None));
        for near in [
            "[::1]:5000",
            "[::ffff:127.0.0.1]:5000",
            "10.1.2.3:5000",
            "[fd00::1]:5000",
        ] {
            assert_eq!(admit(&gate, near, &[]), Ok(None), "{near}");
        }
        assert_eq!(
            admit(&gate, "[::ffff:203.0.113.7]:5000", &[]),
            sender("203.0.113.7")
        );
    }

    #[test]
    fn only_the_networks_that_are_named_are_let_in() {
        let gate = gate(Some(HEADER), &["5.196.116.32/28", "2001:db8::/32"]);
        for (line, is_in) in [
            ("5.196.116.32", true),
            ("5.196.116.47", true),
            ("5.196.116.48", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("5.196.116.33, 203.0.113.7", false),
            ("not an address", false),
        ] {
            let admitted = admit(&gate, "127.0.0.1:5000", &[line]);
            assert_eq!(admitted.is_ok(), is_in, "{line}");
        }
        let unnamed = admit(&gate, "127.0.0.1:5000", &[]);
        assert_eq!(unnamed, Err(Refused::Stranger));
    }

    #[test]
    fn who_sends_too_much_that_is_wrong_is_kept_out_for_a_minute_and_nobody_else_is() {
        let gate = gate(None, &[]);
        let (peer, other) = ("203.0.113.7:5000", "203.0.113.8:5000");
        let start = Instant::now();
        let admitted = |peer: &str, at| {
            let peer = peer.parse().expect("an address");
            gate.admit(peer, &HeaderMap::new(), at)
        };
        for _ in 0..3 {
            let sender = admitted(peer, start).expect("not yet");
            gate.note_failure(sender, start);
        }
        let late = start + WINDOW - Duration::from_millis(1);
        assert_eq!(admitted(peer, late), Err(Refused::Offender));
        assert!(admitted(other, late).is_ok());
        let sender = admitted(peer, start + WINDOW).expect("the minute is over");
        gate.note_failure(sender, start + WINDOW);
        assert!(admitted(peer, start + WINDOW).is_ok(), "it begins anew");
        // A proxy speaks for everybody.
        for _ in 0..10 {
            gate.note_failure(admitted("127.0.0.1:1", start).expect("let in"), start);
        }
        assert_eq!(admitted("127.0.0.1:1", start), Ok(None));
    }

    #[test]
    fn the_memory_for_senders_has_an_end() {
        let gate = gate(None, &[]);
        let start = Instant::now();
        let number = |n: usize| IpAddr::from(u32::try_from(n).expect("small").to_be_bytes());
        for n in 0..SENDERS_MAX + 5 {
            gate.note_failure(Some(number(n)), start);
        }
        let known = |gate: &Gate| gate.failures.lock().expect("whole").len();
        assert_eq!(known(&gate), SENDERS_MAX);
        gate.note_failure(Some(number(SENDERS_MAX + 9)), start + WINDOW);
        assert_eq!(known(&gate), 1);
    }
}
