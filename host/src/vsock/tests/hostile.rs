//! Guests that break the rules, and rings that make no sense.

use super::*;
use vm_memory::FileOffset;

#[test]
fn resets_that_find_no_buffer_wait_and_hold_back_only_their_cause() {
    let mut guest = Guest::new();
    let stray = End { number: 77, alloc: 4096, taken: 0 };
    // The guest sends without taking anything.
    for _ in 0..1000 {
        if guest.free.is_empty() {
            guest.round().unwrap();
            while let Some((chain, _)) = guest.drivers[TRANSMIT].used(&guest.memory) {
                guest.free.push(chain);
            }
            if guest.free.is_empty() {
                break;
            }
        }
        guest.send(&stray.header(Operation::Data, 0), &[]);
    }
    assert!(guest.free.is_empty(), "resets are kept without bound");
    let (resets, _): (Vec<_>, Vec<_>) =
        guest.take().into_iter().partition(|it| it.0 == Operation::Reset);
    assert!(resets.len() > usize::from(CHAINS));
    assert_eq!(guest.free.len(), usize::from(CHAINS));
}

#[test]
fn bad_chains_are_given_back_and_change_nothing() {
    let mut guest = Guest::new();
    let (mut client, end) = guest.connect(PortChoice::Port(PORT));
    let lying = end.header(Operation::Data, PAYLOAD + 1);
    guest.send(&lying, &[0; PAYLOAD]);
    guest.run();
    let memory = guest.memory.clone();
    // No header; half a header; memory that is not there; a chain that bites its tail; the wrong
    // way round.
    let driver = &mut guest.drivers[TRANSMIT];
    let chains: [&[(u64, u32, u16, u16)]; 6] = [
        &[(0x30000, 0, 0, 0)],
        &[(0x30000, HEADER_LEN as u32 - 1, 0, 0)],
        &[(u64::MAX - 8, HEADER_LEN as u32, 0, 0)],
        &[(MEMORY as u64 - 8, HEADER_LEN as u32, 0, 0)],
        &[(0x30000, 16, NEXT, 1), (0x30000, u32::MAX / 2, NEXT, 0)],
        &[(0x30000, HEADER_LEN as u32, WRITE, 0)],
    ];
    for chain in chains {
        for (index, &(at, len, flags, next)) in chain.iter().enumerate() {
            driver.descriptor(&memory, index as u16, at, len, flags, next);
        }
        driver.publish(&memory, 0);
        round(&mut guest.switch, &mut guest.rings, &memory).unwrap();
        assert!(driver.used(&memory).is_some());
    }
    assert_eq!(guest.switch.dropped, 7);
    client.write_all(b"on it goes").unwrap();
    assert_eq!(guest.bytes(), b"on it goes");
    // A buffer that holds no packet is passed over.
    guest.small = true;
    for i in 0..20 {
        client.write_all(&[i]).unwrap();
        assert_eq!(guest.bytes(), [i]);
    }
    assert_eq!((guest.small, guest.switch.dropped), (false, 8));
}

/// The guest's memory is a file for which its disk has no room: a processor would get a signal, and
/// the device says why it ends.
#[test]
fn memory_that_the_host_cannot_back_is_an_error_that_says_so() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAYLOAD as u64).unwrap();
    let backed = file.try_clone().unwrap();
    let ranges = [
        (GuestAddress(0), MEMORY, None),
        (GuestAddress(MEMORY as u64), PAYLOAD, Some(FileOffset::new(file, 0))),
    ];
    let mut guest = Guest::with(GuestMemory::from_ranges_with_files(ranges).unwrap());
    let (mut client, _) = guest.connect(PortChoice::Port(PORT));
    // The payload of the next buffer goes there.
    let memory = guest.memory.clone();
    for chain in 0..CHAINS {
        let driver = &guest.drivers[RECEIVE];
        driver.descriptor(&memory, chain * 2 + 1, MEMORY as u64, PAYLOAD as u32, WRITE, 0);
    }
    client.write_all(b"there is room").unwrap();
    guest.step();
    backed.set_len(0).unwrap();
    client.write_all(b"and now there is none").unwrap();
    let mut failed = None;
    for _ in 0..4 {
        let mut events = Vec::with_capacity(64);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&*guest.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now))
            .unwrap();
        for event in &events {
            if let Token::Client(number) = Token::unpack(event.data.u64()) {
                guest.switch.client(number, event.flags);
            }
        }
        failed = failed.or(guest.round().err());
    }
    let why = failed.expect("it cannot write there").to_string();
    assert!(why.contains("no room left") && why.contains("disk"), "{why}");
}

#[test]
fn rings_that_contradict_themselves_are_an_error() {
    // An index that is further ahead than the ring is long.
    let mut guest = Guest::new();
    guest.memory.write_obj(1000u16, GuestAddress(guest.drivers[TRANSMIT].base + 0x1002)).unwrap();
    assert!(guest.round().unwrap_err().to_string().contains("rings are broken"));
    // A chain that begins outside of the table.
    let mut guest = Guest::new();
    let memory = guest.memory.clone();
    guest.drivers[TRANSMIT].publish(&memory, SIZE);
    assert!(guest.round().is_err());
    // A ring that is not in the memory.
    let mut ring = Ring::new();
    ring.place(MEMORY as u64 - 16, 0x1000, 0x2000).unwrap();
    let kick = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    assert!(ring.start(&guest.memory, kick, false).is_err());
    assert!(ring.place(8, 0x1000, 0x2000).is_err(), "a table that is not aligned");
}

#[test]
fn random_rings_and_packets_end_in_an_error_at_worst() {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..300 {
        let mut guest = Guest::new();
        let (mut client, end) = guest.connect(PortChoice::Port(PORT));
        for _ in 0..30 {
            // It may have been hung up on.
            let _ = client.write(&[1; 1000]);
            // A packet with some bytes changed, or ring memory with some bytes changed.
            let mut bytes = [0; HEADER_LEN];
            end.header(Operation::from_number(random() as u16 % 8).unwrap(), 100)
                .encode(&mut bytes);
            for _ in 0..random() % 3 {
                bytes[random() as usize % HEADER_LEN] = random() as u8;
            }
            if guest.free.is_empty() {
                break;
            }
            guest.send(&Header::parse(&bytes), &[1; 100]);
            if random().is_multiple_of(4) {
                let ring = guest.drivers[random() as usize % 2].base;
                let at = ring + [0, 0x1000, 0x2000][random() as usize % 3] + random() % 128;
                guest.memory.write_obj(random() as u8, GuestAddress(at)).unwrap();
            }
            if guest.round().is_err() {
                break;
            }
            while let Some((chain, _)) = guest.drivers[TRANSMIT].used(&guest.memory) {
                guest.free.retain(|it| *it != chain % CHAINS);
                guest.free.push(chain % CHAINS);
            }
        }
    }
}
