use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::admission::{Limit, PrefixBits, Rate};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::addresses::{Allowance, Level, Origin, Origins};

fn allowance(connections: Option<u32>, connects: Option<Rate>) -> Allowance {
    let bits = PrefixBits { v4: 32, v6: 64 };
    Allowance { level: Level::Address, bits, connections, connects }
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0A00_0000 + number).into()
}

fn at(millis: u64) -> Moment {
    Moment::from_millis(10_000 + millis)
}

#[test]
fn whoever_shares_the_bits_that_count_is_one() {
    let bits = PrefixBits { v4: 24, v6: 48 };
    let prefix = Allowance { level: Level::Prefix, bits, connections: Some(9), connects: None };
    let address = allowance(Some(9), None);
    let nobody = Allowance { bits: PrefixBits { v4: 0, v6: 0 }, ..prefix };
    let origins = Origins::new([1, 2], 8);
    for (name, one, other, same_address, same_prefix) in [
        ("neighbours", "192.0.2.1", "192.0.2.2", false, true),
        ("strangers", "192.0.2.1", "192.0.3.1", false, false),
        ("mapped", "192.0.2.1", "::ffff:192.0.2.1", true, true),
        ("a mapped neighbour", "192.0.2.1", "::ffff:192.0.2.9", false, true),
        ("one household", "2001:db8:1:2::1", "2001:db8:1:2:3::4", true, true),
        ("one site", "2001:db8:1:2::1", "2001:db8:1:3::1", false, true),
        ("other sites", "2001:db8:1::1", "2001:db8:2::1", false, false),
        ("other families", "0.0.0.0", "::", false, false),
    ] {
        let [one, other]: [IpAddr; 2] = [one, other].map(|text| text.parse().unwrap());
        let is_same =
            |allowance: &Allowance| origins.hash(one, allowance) == origins.hash(other, allowance);
        assert_eq!((is_same(&address), is_same(&prefix)), (same_address, same_prefix), "{name}");
        assert_ne!(origins.hash(one, &address), origins.hash(one, &prefix), "{name}");
        let families = one.to_canonical().is_ipv4() == other.to_canonical().is_ipv4();
        assert_eq!(is_same(&nobody), families, "{name}: of no bits all are one");
    }
    let other_key = Origins::new([1, 3], 8);
    assert_ne!(origins.hash(v4(1), &address), other_key.hash(v4(1), &address));
}

#[test]
fn only_so_many_are_here_of_one_address() {
    let mut origins = Origins::new([1, 2], 8);
    let two = allowance(Some(2), None);
    assert_eq!(origins.enter(v4(1), &two, true, at(0)), Ok(()));
    assert_eq!(origins.enter(v4(1), &two, true, at(0)), Ok(()));
    assert_eq!(origins.enter(v4(1), &two, true, at(0)), Err(Limit::AddressConnections));
    assert_eq!(origins.enter(v4(2), &two, true, at(0)), Ok(()), "others are unharmed");
    origins.leave(v4(1), &two);
    assert_eq!(origins.enter(v4(1), &two, true, at(0)), Ok(()));
    assert_eq!((origins.count(v4(1), &two), origins.check()), (2, 3));
}

#[test]
fn a_full_table_forgets_who_is_at_rest_and_else_lets_in_a_few() {
    let rate = Rate::per_second(1).with_burst(2);
    let one = allowance(Some(1_000), Some(rate));
    let mut origins = Origins::with_capacity([1, 2], 64);
    for number in 0..64 {
        assert_eq!(origins.enter(v4(number), &one, true, at(0)), Ok(()));
        origins.leave(v4(number), &one);
    }
    // All were here a moment ago. The newcomers have what is shared, and no more.
    let enter = |origins: &mut Origins, number, now| {
        let entered = origins.enter(v4(number), &one, true, now);
        if entered.is_ok() {
            origins.leave(v4(number), &one);
        }
        origins.check();
        u64::from(entered.is_ok())
    };
    let entered: u64 = (100..5_100).map(|number| enter(&mut origins, number, at(0))).sum();
    let most = 2 * limits::ORIGINS_SHARED as u64;
    assert!(entered <= most && entered > most / 2, "{entered} of at most {most}");
    assert_eq!(origins.len(), 64);
    // A second later they are at rest.
    let later = at(1_000);
    let entered: u64 = (10_000..10_064).map(|number| enter(&mut origins, number, later)).sum();
    assert_eq!(entered, 64);
    // Whoever is here is not forgotten.
    origins.enter(v4(7), &one, false, later).expect("there is room");
    for number in 20_000..21_000 {
        enter(&mut origins, number, at(u64::from(number)));
    }
    assert_eq!(origins.count(v4(7), &one), 1);
}

/// The same without any cunning: a row of all, the one unseen for longest first.
#[derive(Default)]
struct Twin {
    row: Vec<(u32, u32, Vec<Moment>)>,
}

impl Twin {
    fn enter(&mut self, number: u32, allowance: &Allowance, capacity: usize, now: Moment) -> bool {
        let place = match self.row.iter().position(|(own, ..)| *own == number) {
            Some(place) => place,
            None => {
                if self.row.len() >= capacity {
                    let idle = self.row.iter().position(|(_, here, _)| *here == 0);
                    self.row.remove(idle.expect("somebody is not here"));
                }
                self.row.push((number, 0, Vec::new()));
                self.row.len() - 1
            }
        };
        let (_, here, taken) = &mut self.row[place];
        if allowance.connections.is_some_and(|most| *here >= most) {
            return false;
        }
        // A bucket is what was taken, each made good one after the other.
        let rate = allowance.connects.expect("the twin has a rate");
        let even_at = taken.iter().fold(Moment::ZERO, |even, at| even.max(*at) + rate.cost(1));
        let has_room = even_at.since(now) + rate.cost(1) <= rate.tolerance();
        if has_room {
            taken.push(now);
            *here += 1;
        }
        let touched = self.row.remove(place);
        self.row.push(touched);
        has_room
    }

    fn leave(&mut self, number: u32) {
        let place = self.row.iter().position(|(own, ..)| *own == number).expect("it is here");
        self.row[place].1 -= 1;
        let touched = self.row.remove(place);
        self.row.push(touched);
    }

    fn here(&self, number: u32) -> u32 {
        self.row.iter().find(|(own, ..)| *own == number).map_or(0, |(_, here, _)| *here)
    }
}

/// Somebody comes or leaves, here and at the twin, and both say the same.
fn step(
    origins: &mut Origins,
    twin: &mut Twin,
    (number, comes): (u32, bool),
    allowance: &Allowance,
    now: Moment,
) -> Result<(), proptest::test_runner::TestCaseError> {
    if comes {
        let entered = origins.enter(v4(number), allowance, true, now).is_ok();
        let expected = twin.enter(number, allowance, origins.capacity, now);
        proptest::prop_assert_eq!(entered, expected);
    } else if twin.here(number) > 0 {
        origins.leave(v4(number), allowance);
        twin.leave(number);
    }
    proptest::prop_assert_eq!(origins.count(v4(number), allowance), twin.here(number));
    Ok(())
}

proptest::proptest! {
    /// Whoever comes and goes, however fast: the same are let in as by the twin, and whoever is
    /// here is counted. Time passes fast enough for the forgotten to be at rest.
    #[test]
    fn the_table_decides_as_its_naive_twin(
        steps in proptest::collection::vec((0_u32..40, 0_u64..400, proptest::bool::ANY), 1..400),
        most in 1_u32..5,
        burst in 1_u32..4,
    ) {
        let rate = Rate::per_second(5).with_burst(burst);
        let allowance = allowance(Some(most), Some(rate));
        // Forty can come: as many as have places, so that nobody who owes is forgotten.
        let capacity = 40;
        let mut origins = Origins::with_capacity([3, 4], capacity);
        let (mut twin, mut now) = (Twin::default(), at(0));
        for (number, millis, comes) in steps {
            now += Span::from_millis(millis);
            step(&mut origins, &mut twin, (number, comes), &allowance, now)?;
            let here = twin.row.iter().map(|(_, here, _)| u64::from(*here)).sum::<u64>();
            proptest::prop_assert_eq!(origins.check(), here);
        }
    }

    /// The same where there are more than places, and nobody who is forgotten owes anything.
    #[test]
    fn the_table_forgets_as_its_naive_twin(
        steps in proptest::collection::vec((0_u32..40, proptest::bool::ANY), 1..400),
    ) {
        let allowance = allowance(Some(3), Some(Rate::per_second(5).with_burst(1)));
        let capacity = 8;
        let mut origins = Origins::with_capacity([3, 4], capacity);
        let (mut twin, mut now) = (Twin::default(), at(0));
        for (number, comes) in steps {
            now += Span::from_millis(200);
            let here = twin.row.iter().filter(|(_, here, _)| *here > 0).count();
            let comes = comes && (here < capacity || twin.here(number) > 0);
            step(&mut origins, &mut twin, (number, comes), &allowance, now)?;
            origins.check();
        }
    }
}

#[test]
fn an_origin_is_small() {
    assert!(size_of::<Origin>() <= 32, "{}", size_of::<Origin>());
}

#[test]
fn ipv6_by_the_million_is_one_customer() {
    let mut origins = Origins::new([1, 2], 8);
    let four = allowance(Some(4), None);
    let customer = 0x2001_0db8_0000_0001_u128 << 64;
    let entered = (0..1_000_u128).filter(|host| {
        let from = Ipv6Addr::from_bits(customer + host * 0x1_0001).into();
        origins.enter(from, &four, true, at(0)).is_ok()
    });
    assert_eq!(entered.count(), 4);
    assert_eq!(origins.len(), 1);
}
