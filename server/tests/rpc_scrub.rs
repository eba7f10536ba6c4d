//! Scrubs, as clients ask for them: part by part.

mod common;

use common::{Connection, parse, request};
use umbra_fs::pmem::LINE;
use umbra_fs::{BLOCK_SIZE, FileBlock, Ino, Time};
use umbra_proto::rpc::{self, ErrorCode, Items, ScrubState};
use umbra_server::testing::SoftPlatform;

const NOW: Time = Time(7);

fn machine() -> (SoftPlatform, Ino, Connection) {
    let mut m = SoftPlatform::new(24, 4);
    let volume = &mut m.machine.volume;
    let root = volume.root();
    let file = volume.create(root, b"file", 0o644, NOW).unwrap();
    volume.write(file, 0, &[5; 600 * BLOCK_SIZE as usize], NOW).unwrap();
    let mut c = Connection::new(64 << 10, 64 << 10);
    c.greet(&mut m);
    (m, file, c)
}

/// Counts of findings that events tell of.
fn events(c: &mut Connection, m: &mut SoftPlatform) -> Vec<Option<u64>> {
    c.run(m, &request(5, &rpc::Events { since: 0 }, &[]));
    let answers = parse(&mut c.received);
    let frames = answers[0].bodies.iter();
    let events = frames.flat_map(|body| rpc::decode::<Items<rpc::Event>>(body).unwrap().items);
    events.filter(|event| &*event.kind == "scrubbed").map(|event| event.count).collect()
}

#[test]
fn a_scrub_goes_on_part_by_part_and_its_end_is_an_event() {
    let (mut m, _, mut c) = machine();
    assert_eq!(c.ok(&mut m, &rpc::Status::default()).scrub, None);
    let mut state = c.ok(&mut m, &rpc::Scrub { number: None, blocks: 100 });
    assert_eq!((state.number, state.next, state.total), (1, 100, 24 << 8));
    assert_eq!(c.ok(&mut m, &rpc::Status::default()).scrub, Some(state));
    for part in 2.. {
        assert_eq!(events(&mut c, &mut m), []);
        state = c.ok(&mut m, &rpc::Scrub { number: Some(1), blocks: 100 });
        if state.ended.is_some() {
            break;
        }
        assert_eq!(state.next, part * 100);
    }
    let ScrubState { mended, differ, damaged, lost, loaded, .. } = state;
    assert_eq!((mended, differ, damaged, lost), (0, 0, 0, 0));
    assert!(loaded > 600, "{state:?}");
    assert_eq!(events(&mut c, &mut m), [Some(0)]);
    // It is over: nothing more happens.
    assert_eq!(c.ok(&mut m, &rpc::Scrub { number: Some(1), blocks: 100 }), state);
    assert_eq!(events(&mut c, &mut m).len(), 1);
    m.check();
}

#[test]
fn what_cannot_be_read_is_on_the_list_afterwards() {
    let (mut m, file, mut c) = machine();
    let volume = &mut m.machine.volume;
    let bad = volume.extent(file, FileBlock(3)).unwrap().unwrap().at.unwrap();
    volume.pmem_mut().poisoned.push(bad.0 * BLOCK_SIZE + 5 * LINE);
    let state = c.ok(&mut m, &rpc::Scrub { number: None, blocks: u64::MAX });
    assert_eq!((state.lost, state.ended.is_some()), (1, true), "{state:?}");
    let status = c.ok(&mut m, &rpc::Status::default());
    assert_eq!((status.bad_blocks, status.scrub), (Some(1), Some(state)));
    assert_eq!(events(&mut c, &mut m), [Some(1)]);
    assert_eq!(c.ok(&mut m, &rpc::Scrub { number: None, blocks: u64::MAX }).lost, 0);
}

#[test]
fn of_two_scrubs_the_later_goes_on() {
    let (mut m, _, mut c) = machine();
    let mut other = Connection::new(64 << 10, 64 << 10);
    other.greet(&mut m);
    let none = rpc::Scrub { number: Some(1), blocks: 1 };
    assert_eq!(c.call(&mut m, &none, &[]).error().code, ErrorCode::BUSY);
    let first = c.ok(&mut m, &rpc::Scrub { number: None, blocks: 10 });
    let second = other.ok(&mut m, &rpc::Scrub { number: None, blocks: 20 });
    assert_eq!((first.number, second.number, second.next), (1, 2, 20));
    let refused = c.call(&mut m, &rpc::Scrub { number: Some(1), blocks: 10 }, &[]);
    assert_eq!(refused.error().code, ErrorCode::BUSY);
    let state = other.ok(&mut m, &rpc::Scrub { number: Some(2), blocks: 10 });
    assert_eq!(state.next, 30);
}
