//! Receive queues: how many CPUs work, and whether they work alike.

use super::{Facts, Finding, Port};

/// Fewer packets say nothing about how they are spread.
const ENOUGH: u64 = 10_000;
/// The busiest queue may have so many times its share.
const UNEVEN: u64 = 3;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let cpus = facts.kernel.cpus;
    facts
        .ports()
        .iter()
        .filter(|port| port.link.vlan.is_none() && port.link.bridge.is_none())
        .flat_map(|port| count(port, cpus).into_iter().chain(spread(port)))
        .collect()
}

fn count(port: &Port<'_>, cpus: u32) -> Option<Finding> {
    const CHECK: &str = "queues";
    let name = &port.link.name;
    let queues = port.device.queues?;
    let (used, s) = (queues.used, if queues.used == 1 { "" } else { "s" });
    if used >= cpus {
        return Some(
            Finding::ok(CHECK, format!("{used} receive queue{s} for {cpus} CPU(s)")).of(name),
        );
    }
    let found = format!("{used} receive queue{s} for {cpus} CPUs");
    let why = format!("at most {used} CPU(s) work on what comes in here");
    if queues.possible > used {
        let more = queues.possible.min(cpus);
        let kind = if queues.combined { "combined" } else { "rx" };
        return Some(
            Finding::warning(CHECK, found)
                .of(name)
                .why(why)
                .fix(format!("ethtool -L {name} {kind} {more}")),
        );
    }
    Some(Finding::note(CHECK, found + ", and the device has no more").of(name).why(why))
}

fn spread(port: &Port<'_>) -> Option<Finding> {
    const CHECK: &str = "queue-balance";
    let name = &port.link.name;
    let packets = &port.device.queue_packets;
    let total: u64 = packets.iter().sum();
    if packets.len() < 2 || total < ENOUGH {
        return None;
    }
    let (busiest, &most) = packets.iter().enumerate().max_by_key(|(_, packets)| **packets)?;
    let share = most * 100 / total;
    let queues = packets.len() as u64;
    if most * queues > total * UNEVEN {
        return Some(
            Finding::warning(CHECK, format!("queue {busiest} of {queues} received {share} % of the packets"))
                .of(name)
                .why(
                    "one CPU does most of the work. All packets of a tunnel have the same two \
                     addresses, by which network cards choose the queue: several tunnels between \
                     several addresses spread, and so does hashing by what is inside, where a card can",
                )
                .fix(format!("ethtool -S {name}; ethtool -x {name}; ethtool -X {name} equal {queues}")),
        );
    }
    Some(
        Finding::ok(
            CHECK,
            format!("the busiest of {queues} queues received {share} % of the packets"),
        )
        .of(name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Queues, Severity, testing::facts};

    fn of_wan(queues: Option<(u32, u32)>, packets: &[u64]) -> Vec<Finding> {
        let mut facts = facts();
        let wan = facts.devices.get_mut(&2).unwrap();
        wan.queues = queues.map(|(used, possible)| Queues { used, possible, combined: true });
        wan.queue_packets = packets.to_vec();
        check(&facts).into_iter().filter(|found| found.subject.as_deref() == Some("wan")).collect()
    }

    /// On four CPUs.
    #[test]
    fn fewer_queues_than_cpus_are_told_with_the_command_for_more() {
        assert_eq!(of_wan(Some((4, 8)), &[])[0].severity, Severity::Ok);
        let few = of_wan(Some((1, 2)), &[]);
        assert_eq!(few[0].severity, Severity::Warning);
        assert_eq!(few[0].fix.as_deref(), Some("ethtool -L wan combined 2"));
        let only = of_wan(Some((1, 1)), &[]);
        assert_eq!((only[0].severity, only[0].fix.as_deref()), (Severity::Note, None));
        assert_eq!(of_wan(None, &[]), []);
    }

    #[test]
    fn a_queue_that_gets_more_than_three_times_its_share_is_a_warning() {
        let severity = |packets: &[u64]| of_wan(None, packets).first().map(|found| found.severity);
        assert_eq!(severity(&[7500, 900, 800, 800]), Some(Severity::Ok));
        assert_eq!(severity(&[7501, 899, 800, 800]), Some(Severity::Warning));
        assert_eq!(severity(&[9999, 0, 0, 0]), None, "too few to tell");
        assert_eq!(severity(&[1_000_000]), None, "there is one");
        let found = of_wan(None, &[0, 90_000, 0, 10_000]).remove(0);
        assert_eq!(found.found, "queue 1 of 4 received 90 % of the packets");
    }
}
