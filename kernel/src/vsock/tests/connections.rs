//! Connections: made, refused, ended; their turns, windows and credit.

use super::super::connection::{Arrived, Connection, Polled};
use super::super::table::Key;
use super::*;

#[test]
fn a_refused_port_is_a_reset_with_the_ends_swapped() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    let sent = guest.deliver(from_host(77, 4321, Operation::Request, 0), &[]);
    assert_eq!(operations(&sent), [Operation::Reset]);
    assert_eq!(sent[0].0.source, Address { cid: GUEST, port: Port(4321) });
    assert_eq!(sent[0].0.destination, Address { cid: HOST, port: Port(77) });
    assert_eq!(guest.endpoint.statistics().refused, 1);
}

#[test]
fn connections_beyond_the_bound_are_told_then_refused_and_the_others_live() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    assert_eq!(guest.endpoint.capacity(), MAX_CONNECTIONS);
    let places = (MAX_CONNECTIONS + MAX_AT_DOOR) as u32;
    for port in 0..places {
        connect(&mut guest, port, 7);
    }
    assert_eq!(guest.endpoint.statistics().chunks_unreserved, 0);
    let count =
        |wanted: Vacancy| guest.servers.vacancies.iter().filter(|it| **it == wanted).count();
    assert_eq!(count(Vacancy::Plenty), MAX_CONNECTIONS - MAX_KEPT);
    assert_eq!(count(Vacancy::Kept), MAX_KEPT);
    assert_eq!(count(Vacancy::Full(MAX_CONNECTIONS)), MAX_AT_DOOR);
    let sent = guest.deliver(from_host(9999, 7, Operation::Request, 0), &[]);
    assert_eq!(operations(&sent), [Operation::Reset]);
    let sent = guest.deliver(from_host(3, 7, Operation::Data, 2), b"hi");
    assert_eq!(sent.last().unwrap().1, b"hi");
    guest.deliver(from_host(3, 7, Operation::Reset, 0), &[]);
    connect(&mut guest, 9999, 7);
}

#[test]
fn a_small_pool_has_room_for_fewer_and_none_goes_without_a_window() {
    for chunks in 0..200 {
        let mut guest = Guest::new(4, 4, chunks);
        let mut served = 0;
        loop {
            let sent = guest.deliver(from_host(served, 7, Operation::Request, 0), &[]);
            if operations(&sent) == [Operation::Reset] {
                break;
            }
            assert!(sent[0].0.buf_alloc >= LEAST_WINDOW);
            served += 1;
        }
        assert_eq!(served as usize, chunks / LEAST_CHUNKS);
    }
}

#[test]
fn a_server_learns_once_that_its_connection_is_gone() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 20);
    guest.deliver(from_host(1, 20, Operation::Data, 3), b"abc");
    assert!(guest.deliver(from_host(1, 20, Operation::Reset, 0), &[]).is_empty());
    assert_eq!(guest.servers.ended, 1);
    assert_eq!(guest.servers.most, 3);
    assert_eq!(guest.endpoint.statistics().connections, 0);
    assert_eq!(guest.endpoint.statistics().chunks_unreserved, BASE_CHUNKS as u64);
    let sent = guest.deliver(from_host(1, 20, Operation::Data, 3), b"abc");
    assert_eq!(operations(&sent), [Operation::Reset], "nobody is there any more");
}

#[test]
fn a_shutdown_waits_until_the_peer_has_forwarded_everything() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    let sent = connect(&mut guest, 1, 21);
    assert_eq!(operations(&sent), [Operation::Response, Operation::Data, Operation::CreditRequest]);
    // It was asked, and has forwarded a part.
    let answer = |fwd_cnt| Header { fwd_cnt, ..from_host(1, 21, Operation::CreditUpdate, 0) };
    assert!(guest.deliver(answer(400), &[]).is_empty());
    guest.now = guest.now.after(25);
    assert_eq!(operations(&guest.run()), [Operation::CreditRequest]);
    let sent = guest.deliver(answer(1000), &[]);
    assert_eq!(operations(&sent), [Operation::Shutdown]);
    assert_eq!(sent[0].0.flags, SHUTDOWN_BOTH);
    assert!(guest.deliver(from_host(1, 21, Operation::Reset, 0), &[]).is_empty());
    assert_eq!(guest.endpoint.statistics().connections, 0);
}

#[test]
fn a_peer_that_never_takes_what_it_is_owed_is_given_up() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 21);
    let mut asked = 0;
    for _ in 0..200 {
        match guest.poll() {
            Next::At(at) => guest.now = at,
            Next::Event => break,
            Next::Now => {}
        }
        asked +=
            operations(&guest.run()).iter().filter(|o| **o == Operation::CreditRequest).count();
    }
    assert!((5..30).contains(&asked), "asked {asked} times");
    assert_eq!(guest.endpoint.statistics().timeouts, 1);
    assert_eq!(guest.endpoint.statistics().connections, 0);
    assert_eq!(guest.servers.ended, 1);
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    for flags in [SHUTDOWN_SEND, SHUTDOWN_BOTH] {
        let mut guest = Guest::new(4, 4, BASE_CHUNKS);
        connect(&mut guest, 1, 9);
        guest.deliver(from_host(1, 9, Operation::Data, 5), b"hello");
        let shutdown = Header { flags, ..from_host(1, 9, Operation::Shutdown, 0) };
        let sent = guest.deliver(shutdown, &[]);
        assert_eq!(operations(&sent), [Operation::Data, Operation::CreditRequest]);
        assert_eq!(sent[0].1, 5u64.to_le_bytes());
        let credit = Header { fwd_cnt: 8, ..from_host(1, 9, Operation::CreditUpdate, 0) };
        let last = if flags == SHUTDOWN_BOTH { Operation::Reset } else { Operation::Shutdown };
        assert_eq!(operations(&guest.deliver(credit, &[])), [last]);
    }
}

#[test]
fn a_server_that_never_closes_a_dead_connection_is_ended() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 20);
    guest.deliver(Header { flags: SHUTDOWN_BOTH, ..from_host(1, 20, Operation::Shutdown, 0) }, &[]);
    guest.now = guest.now.after(29_000);
    assert!(guest.run().is_empty());
    guest.now = guest.now.after(2_000);
    assert_eq!(operations(&guest.run()), [Operation::Reset]);
    assert_eq!(guest.endpoint.statistics().connections, 0);
    // A half-closed one may stay: its peer still listens.
    connect(&mut guest, 1, 20);
    guest.deliver(Header { flags: SHUTDOWN_SEND, ..from_host(1, 20, Operation::Shutdown, 0) }, &[]);
    guest.now = guest.now.after(100_000);
    assert!(guest.run().is_empty());
}

#[test]
fn more_than_the_window_is_a_reset() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS + 1);
    connect(&mut guest, 1, 20);
    let len = BASE_WINDOW as usize;
    assert!(guest.deliver(from_host(1, 20, Operation::Data, len), &vec![1; len]).is_empty());
    let sent = guest.deliver(from_host(1, 20, Operation::Data, 1), &[1]);
    assert_eq!(operations(&sent), [Operation::Reset]);
    assert_eq!(guest.endpoint.statistics().overruns, 1);
}

#[test]
fn a_request_for_credit_is_answered_when_there_is_some() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS + 1);
    connect(&mut guest, 1, 20);
    let sent = guest.deliver(from_host(1, 20, Operation::CreditRequest, 0), &[]);
    assert_eq!(operations(&sent), [Operation::CreditUpdate]);
    let len = BASE_WINDOW as usize;
    guest.deliver(from_host(1, 20, Operation::Data, len), &vec![1; len]);
    let sent = guest.deliver(from_host(1, 20, Operation::CreditRequest, 0), &[]);
    assert!(sent.is_empty(), "there is none, and saying so would be asked for again");
}

#[test]
fn a_peer_that_comes_back_with_the_same_port_gets_a_new_connection() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 20);
    guest.deliver(from_host(1, 20, Operation::Data, 3), b"old");
    connect(&mut guest, 1, 20);
    assert_eq!(guest.servers.ended, 1);
    assert_eq!(guest.endpoint.statistics().connections, 1);
}

#[test]
fn a_transport_reset_ends_all_connections() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    for port in 0..10 {
        connect(&mut guest, port, 20);
    }
    guest.endpoint.transport_reset(Cid(9));
    assert!(guest.run().is_empty());
    assert_eq!(guest.servers.ended, 10);
    assert_eq!(guest.endpoint.statistics().connections, 0);
    assert!(guest.deliver(from_host(1, 20, Operation::Request, 0), &[]).is_empty());
    let mut request = from_host(1, 20, Operation::Request, 0);
    request.destination.cid = Cid(9);
    assert_eq!(operations(&guest.deliver(request, &[])), [Operation::Response]);
}

#[test]
fn slow_receivers_hold_up_nobody_and_all_sources_get_their_turn() {
    let mut guest = Guest::new(4, 8, BASE_CHUNKS);
    // Ten whose peers never give credit again, ten whose peers give plenty.
    for port in 0..20 {
        let mut request = from_host(port, 19, Operation::Request, 0);
        request.buf_alloc = if port < 10 { 1000 } else { 1 << 30 };
        guest.device.deliver(request, &[]);
        guest.poll();
        while guest.device.complete().is_some() {}
    }
    let mut received: HashMap<u32, usize> = HashMap::new();
    for _ in 0..2000 {
        guest.poll();
        // The device is slow: one packet at a time.
        if let Some((header, payload)) = guest.device.complete() {
            *received.entry(header.destination.port.0).or_default() += payload.len();
        }
    }
    let fast: Vec<usize> = (10..20).map(|port| received[&port]).collect();
    let (least, most) = (fast.iter().min().unwrap(), fast.iter().max().unwrap());
    assert!(most < &(least * 2), "unfair: {fast:?}");
}

#[test]
fn what_servers_could_not_send_yet_is_not_drained() {
    let mut guest = Guest::new(4, 8, BASE_CHUNKS);
    let mut request = from_host(1, 19, Operation::Request, 0);
    request.buf_alloc = 10 * PAYLOAD as u32;
    guest.device.deliver(request, &[]);
    let mut received = 0;
    let mut rounds = 0;
    loop {
        while guest.poll() == Next::Now {}
        // The device is done with everything at once, and all buffers are back.
        while let Some((_, payload)) = guest.device.complete() {
            received += payload.len();
        }
        if guest.endpoint.is_drained(&mut guest.device) {
            break;
        }
        rounds += 1;
    }
    assert_eq!(received, 10 * PAYLOAD);
    assert!(rounds >= 2, "four buffers held it all");
}

#[test]
fn resets_without_room_are_waited_for_asleep() {
    let mut guest = Guest::new(4, 2, BASE_CHUNKS);
    let mut port = 0;
    // Nobody takes what is sent: two are under way, and the others wait.
    while guest.device.has_room() {
        assert!(port < 1000, "no bound on what waits");
        guest.device.deliver(from_host(port, 1, Operation::Data, 0), &[]);
        guest.poll();
        port += 1;
    }
    assert_eq!(guest.poll(), Next::Event);
    assert!(guest.device.has_news());
    assert!(!guest.endpoint.has_news(&guest.device) && !guest.endpoint.listen(&guest.device));
    assert!(!guest.endpoint.is_drained(&mut guest.device));
    // With room it goes on, and every packet has its answer.
    let mut answers = 0;
    while guest.device.complete().is_some() {
        answers += 1;
        while guest.poll() == Next::Now {}
    }
    assert!(!guest.device.has_news());
    assert_eq!(answers, port);
    assert!(guest.endpoint.is_drained(&mut guest.device));
}

#[test]
fn a_busy_server_does_not_keep_others_waiting() {
    let mut guest = Guest::new(4, 8, BASE_CHUNKS);
    for port in 0..3 {
        guest.device.deliver(from_host(port, 22, Operation::Request, 0), &[]);
        assert_eq!(guest.poll(), Next::Now);
    }
    guest.device.deliver(from_host(5, 7, Operation::Request, 0), &[]);
    guest.poll();
    guest.device.deliver(from_host(5, 7, Operation::Data, 4), b"ping");
    guest.poll();
    assert_eq!(guest.device.sent.back().unwrap().1, b"ping");
}

#[test]
fn counters_turn_over_and_the_bytes_go_on() {
    let mut guest = Guest::new(4, 8, BASE_CHUNKS + 1024);
    let mut alloc = connect(&mut guest, 1, 9)[0].0.buf_alloc;
    let payload = vec![7; PAYLOAD];
    let (mut sent, mut forwarded) = (0u64, 0u32);
    // Beyond 4 GiB twice.
    while sent < 9 << 30 {
        let free = alloc - (sent as u32).wrapping_sub(forwarded);
        assert!(free > 0, "no credit after {sent} bytes");
        let n = PAYLOAD.min(free as usize);
        guest.device.deliver(from_host(1, 9, Operation::Data, n), &payload[..n]);
        sent += n as u64;
        guest.poll();
        while let Some((header, _)) = guest.device.complete() {
            assert_eq!(header.operation, Operation::CreditUpdate as u16);
            (alloc, forwarded) = (header.buf_alloc, header.fwd_cnt);
        }
    }
    assert_eq!(alloc, MAX_WINDOW);
    guest
        .device
        .deliver(Header { flags: SHUTDOWN_SEND, ..from_host(1, 9, Operation::Shutdown, 0) }, &[]);
    let answer = guest.run();
    assert_eq!(answer[0].1, sent.to_le_bytes());
}

#[test]
fn windows_grow_only_from_what_is_spare() {
    let mut guest = Guest::new(4, 8, BASE_CHUNKS + 5);
    connect(&mut guest, 1, 9);
    let mut forwarded = 0;
    let mut alloc = 0;
    for _ in 0..100 {
        for (header, _) in guest.deliver(from_host(1, 9, Operation::Data, 4096), &[0; 4096]) {
            (alloc, forwarded) = (header.buf_alloc, header.fwd_cnt);
        }
    }
    assert!(forwarded > 0);
    assert!(alloc > BASE_WINDOW && alloc <= BASE_WINDOW + 4 * CHUNK as u32, "{alloc}");
    for port in 10..10 + MAX_CONNECTIONS as u32 - 1 {
        connect(&mut guest, port, 7);
    }
}

#[test]
fn a_direction_the_peer_will_not_receive_in_is_not_an_end_of_the_other() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 9);
    guest.deliver(
        Header { flags: SHUTDOWN_RECEIVE, ..from_host(1, 9, Operation::Shutdown, 0) },
        &[],
    );
    assert!(guest.deliver(from_host(1, 9, Operation::Data, 5), b"hello").is_empty());
    assert_eq!(guest.endpoint.statistics().bytes_in, 5);
}

#[test]
fn a_server_that_cannot_send_to_a_dead_client_is_ended_soon() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 19);
    guest.deliver(Header { flags: SHUTDOWN_BOTH, ..from_host(1, 19, Operation::Shutdown, 0) }, &[]);
    guest.now = guest.now.after(900);
    assert!(guest.run().is_empty());
    guest.now = guest.now.after(200);
    assert_eq!(operations(&guest.run()), [Operation::Reset]);
    assert_eq!(guest.servers.ended, 1);
}

#[test]
fn a_server_is_told_which_blocks_it_was_received_into() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS + 64);
    connect(&mut guest, 1, 23);
    let bytes = vec![7; 8000];
    // What came into memory is in no block. But the server would have taken one.
    guest.deliver(from_host(1, 23, Operation::Data, 8000), &bytes);
    assert_eq!(core::mem::take(&mut guest.servers.pieces), [(None, 8000), (None, 3000)]);
    assert!(core::mem::take(&mut guest.device.wants_blocks));
    for buffer in &mut guest.device.receive {
        buffer.blocks = Some(Block(100));
    }
    guest.deliver(from_host(1, 23, Operation::Data, 8000), &bytes);
    assert_eq!(
        core::mem::take(&mut guest.servers.pieces),
        [(Some(Block(100)), 8000), (None, 3000)]
    );
    assert!(guest.device.wants_blocks);
    // From page to page of a packet, the block goes on.
    let mut device = Fake::new(1, 1);
    let mut pool = test_pool(4);
    let mut connection = Connection::new(
        Key { peer: Address { cid: HOST, port: Port(1) }, port: Port(23) },
        BASE_WINDOW,
    );
    connection.receive.grow(1 << 20);
    connection.receive.receive(12_288).unwrap();
    let arrived = Arrived { bytes: &[1; 12_288], blocks: Some(Block(100)) };
    let mut stream = Polled::new(&mut connection, &mut pool, &mut device, GUEST, arrived);
    for block in [100, 101, 102] {
        assert_eq!(stream.received_in(), Some(Block(block)));
        stream.consume(4096);
    }
    assert_eq!(stream.received_in(), None, "nothing is left");
    stream.finish();
    // Behind what waits in the pool, nothing is looked at where it came.
    connection.queue.push(&mut pool, b"before").unwrap();
    connection.receive.receive(6 + 4096).unwrap();
    let arrived = Arrived { bytes: &[1; 4096], blocks: Some(Block(100)) };
    let mut stream = Polled::new(&mut connection, &mut pool, &mut device, GUEST, arrived);
    assert_eq!(stream.received_in(), None);
    assert_eq!(stream.received(), b"before");
    stream.consume(6);
    assert_eq!(stream.received_in(), Some(Block(100)));
    stream.consume(4096);
    stream.finish();
}
