//! A check takes turns: others are answered meanwhile, and one that its client gave up holds
//! nothing up.

mod common;

use common::{Connection, parse, request};
use umbra_fs::Time;
use umbra_proto::rpc;
use umbra_server::Progress;
use umbra_server::platform::{Turn, take_turn};
use umbra_server::testing::SoftPlatform;

fn machine() -> SoftPlatform {
    let mut m = SoftPlatform::new(64, 4);
    let volume = &mut m.machine.volume;
    for number in 0..64u64 {
        let ino = volume
            .create(volume.root(), format!("file-{number}").as_bytes(), 0o600, Time(1))
            .unwrap();
        volume.write(ino, number << 21, &[7; 600 << 10], Time(1)).unwrap();
    }
    m
}

/// Polls until the check of this connection is answered; how many turns that took.
fn turns(
    c: &mut Connection,
    m: &mut SoftPlatform,
    mut between: impl FnMut(&mut SoftPlatform),
) -> u32 {
    let mut turns = 0;
    loop {
        let progress = c.poll(m);
        turns += 1;
        c.wire.to_client.pull(usize::MAX, &mut c.received);
        if progress == Progress::Wait {
            return turns;
        }
        between(m);
    }
}

#[test]
fn others_are_answered_while_a_check_is_under_way() {
    let mut m = machine();
    let [mut checks, mut second, mut pings] = [(); 3].map(|()| Connection::new(64 << 10, 64 << 10));
    for c in [&mut checks, &mut second, &mut pings] {
        c.greet(&mut m);
    }
    checks.wire.to_server.push(&request(1, &rpc::Check {}, &[]));
    let mut answered = 0;
    let turns = turns(&mut checks, &mut m, |m| {
        pings.ok(m, &rpc::Ping {});
        answered += 1;
        // Another check waits for the first.
        if answered == 2 {
            second.wire.to_server.push(&request(1, &rpc::Check {}, &[]));
        }
        if answered > 2 {
            assert_eq!(second.poll(m), Progress::Again);
        }
    });
    assert!(turns > 5 && answered > 5, "{turns} turns, {answered} pings");
    let mut all = parse(&mut checks.received);
    let last: rpc::CheckResponse = rpc::decode(all.pop().unwrap().bodies.last().unwrap()).unwrap();
    assert_eq!((last.issues_total, last.changed), (Some(0), Some(0)));
    second.run(&mut m, &[]);
    assert!(!parse(&mut second.received).pop().unwrap().failed);
}

#[test]
fn a_check_whose_client_is_gone_is_given_up() {
    let mut m = machine();
    let [mut gone, mut other] = [(); 2].map(|()| Connection::new(64 << 10, 64 << 10));
    for c in [&mut gone, &mut other] {
        c.greet(&mut m);
    }
    gone.wire.to_server.push(&request(1, &rpc::Check {}, &[]));
    for _ in 0..3 {
        assert_eq!(gone.poll(&mut m), Progress::Again);
    }
    gone.vanish(&mut m);
    let report = other.ok(&mut m, &rpc::Check {});
    assert_eq!((report.issues_total, report.changed), (Some(0), Some(0)));
}

#[test]
fn the_longest_turn_is_kept_until_somebody_asks_anew() {
    let mut m = machine();
    let mut c = Connection::new(64 << 10, 64 << 10);
    c.greet(&mut m);
    take_turn(&mut m, Turn::Console, |m| m.clock_goes_on(5_000_000));
    take_turn(&mut m, Turn::Background, |m| m.clock_goes_on(1_000_000));
    let status = c.ok(&mut m, &rpc::Status { fresh: true });
    assert_eq!(status.longest_turn.as_deref(), Some("console"));
    assert!((5_000_000..5_100_000).contains(&status.longest_turn_ns.unwrap()), "{status:?}");
    take_turn(&mut m, Turn::Other, |m| c.ok(m, &rpc::Ping {}));
    let status = c.ok(&mut m, &rpc::Status::default());
    assert_eq!(status.longest_turn.as_deref(), Some("ping"));
    assert!(status.longest_turn_ns.unwrap() < 100_000, "{status:?}");
}

/// The tables of a check are taken when it begins, if there is memory for them.
#[test]
fn a_check_that_memory_is_too_short_for_is_refused() {
    let mut m = machine();
    let mut c = Connection::new(64 << 10, 64 << 10);
    c.greet(&mut m);
    // Enough for any request, and not for that.
    m.memory = m.machine.volume.check_memory() - 1;
    let response = c.call(&mut m, &rpc::Check {}, &[]);
    assert_eq!(response.error().code, rpc::ErrorCode::NO_MEMORY);
    c.ok(&mut m, &rpc::Ping {});
    m.memory += 1;
    assert_eq!(c.ok(&mut m, &rpc::Check {}).issues_total, Some(0));
    m.check();
}
