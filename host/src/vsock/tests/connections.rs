//! Connections that are made, used and ended as the protocol has it.

use super::*;

#[test]
fn bytes_go_both_ways_within_the_credit() {
    let mut guest = Guest::new();
    let (mut client, mut end) = guest.connect(PortChoice::Asked);
    let sent = pattern(300_000);
    let (mut written, mut got) = (0, Vec::new());
    while got.len() < sent.len() {
        written += write_some(&mut client, &sent[written..]);
        let came = guest.bytes();
        assert!(
            came.len() <= end.alloc as usize,
            "{} bytes for a credit of {}",
            came.len(),
            end.alloc
        );
        assert!(!came.is_empty());
        end.took(&mut guest, came.len());
        got.extend(came);
    }
    assert!(got == sent);
    end.data(&mut guest, &sent[..100_000]);
    guest.run();
    assert!(read_some(&mut client) == (sent[..100_000].to_vec(), false));
}

/// So the guest finds pages of content where the client has put them in the stream.
#[test]
fn packets_end_at_pages_of_the_stream() {
    let mut guest = Guest::new();
    let (mut client, mut end) = guest.connect(PortChoice::Port(PORT));
    // Credit is no reason to end one.
    end.alloc = 1 << 20;
    end.took(&mut guest, 0);
    let mut at = 0;
    for len in [17, 100_000, 4079, 1, 150_000, 5000] {
        let sent = pattern(len);
        let (mut written, mut got) = (0, 0);
        while got < len {
            written += write_some(&mut client, &sent[written..]);
            for (_, content) in guest.take() {
                got += content.len();
                at += content.len();
                let last = got == written;
                assert!(last || at % 4096 == 0, "a packet of {} bytes ends at {at}", content.len());
                end.took(&mut guest, content.len());
            }
        }
    }
}

/// Linux sends no further ahead than its own buffer is large (256 KiB), whatever it is granted, and
/// never asks for credit.
#[test]
fn a_guest_that_sends_less_ahead_than_it_may_is_never_stuck() {
    const AHEAD: u32 = 256 << 10;
    let mut guest = Guest::new();
    let (mut client, end) = guest.connect(PortChoice::Port(PORT));
    let (mut sent, mut known_taken) = (0u32, 0);
    while sent < 8 * WINDOW {
        while sent - known_taken + PAYLOAD as u32 <= AHEAD {
            end.data(&mut guest, &[1; PAYLOAD]);
            sent += PAYLOAD as u32;
        }
        guest.run();
        while !read_some(&mut client).0.is_empty() {
            guest.run();
        }
        let before = known_taken;
        known_taken =
            guest.inbox.drain(..).next_back().map_or(before, |(header, _)| header.fwd_cnt);
        assert!(
            known_taken > before,
            "all that was sent, {sent} bytes, was taken, and the guest knows of {before}"
        );
    }
}

#[test]
fn what_is_sent_before_the_answer_is_kept() {
    for early in [&b""[..], b"early", &[b'\n'; 100]] {
        let mut guest = Guest::new();
        let (mut client, theirs) = UnixStream::pair().unwrap();
        guest.switch.accept(theirs, PortChoice::Asked).unwrap();
        // The greeting in pieces, and what follows in the last of them.
        client.write_all(b"CONN").unwrap();
        guest.assert_idle(1);
        client.write_all(&[format!("ECT {PORT}\n").as_bytes(), early].concat()).unwrap();
        let end = guest.requested().unwrap();
        guest.assert_idle(1);
        guest.send(&end.header(Operation::Response, 0), &[]);
        assert_eq!(guest.bytes(), early);
    }
    // Without a greeting there is nothing to be mistaken for one.
    let mut guest = Guest::new();
    let (mut client, theirs) = UnixStream::pair().unwrap();
    client.write_all(b"CONNECT 1\n").unwrap();
    guest.switch.accept(theirs, PortChoice::Port(PORT)).unwrap();
    let end = guest.requested().unwrap();
    guest.send(&end.header(Operation::Response, 0), &[]);
    assert_eq!(guest.bytes(), b"CONNECT 1\n");
}

#[test]
fn clients_of_a_port_are_known_by_their_number_and_process() {
    let mut guest = Guest::new();
    let ours = Some(rustix::process::getpid());
    let (mut asks, theirs) = UnixStream::pair().unwrap();
    guest.switch.accept(theirs, PortChoice::Asked).unwrap();
    let (plain, theirs) = UnixStream::pair().unwrap();
    guest.switch.accept(theirs, PortChoice::Port(PORT)).unwrap();
    let number = guest.requested().unwrap().number;
    let known = |guest: &Guest| guest.switch.clients(PORT);
    assert_eq!(
        known(&guest),
        [Client { number, process: ours }],
        "the other has not said where it goes"
    );
    asks.write_all(format!("CONNECT {PORT}\n").as_bytes()).unwrap();
    guest.run();
    assert_eq!(known(&guest).len(), 2);
    assert!(known(&guest).iter().all(|client| client.process == ours));
    assert_eq!(guest.switch.clients(PORT + 1), []);
    drop(plain);
}

#[test]
fn clients_that_leave_before_they_are_connected_leave_nothing() {
    let mut guest = Guest::new();
    for greeting in
        ["", "CONN", "CONNECT nine\n", "GET / HTTP/1.1\r\nHost: umbra.example.org\r\n\r\n"]
    {
        let (mut client, theirs) = UnixStream::pair().unwrap();
        guest.switch.accept(theirs, PortChoice::Asked).unwrap();
        client.write_all(greeting.as_bytes()).unwrap();
        if greeting.contains('\n') {
            guest.assert_idle(0);
        }
        drop(client);
        guest.assert_idle(0);
        assert!(guest.take().is_empty());
    }
    // Between request and answer: the guest is told, and its answer is for nobody.
    let (mut client, theirs) = UnixStream::pair().unwrap();
    guest.switch.accept(theirs, PortChoice::Asked).unwrap();
    client.write_all(format!("CONNECT {PORT}\n").as_bytes()).unwrap();
    let end = guest.requested().unwrap();
    drop(client);
    assert_eq!(guest.take(), [(Operation::Reset, vec![])]);
    guest.send(&end.header(Operation::Response, 0), &[]);
    assert_eq!(guest.take(), [(Operation::Reset, vec![])]);
    guest.assert_idle(0);
}

#[test]
fn a_port_that_refuses_is_an_end_of_file() {
    let mut guest = Guest::new();
    for port in [PortChoice::Asked, PortChoice::Port(PORT)] {
        let (mut client, theirs) = UnixStream::pair().unwrap();
        client.write_all(format!("CONNECT {PORT}\n").as_bytes()).unwrap();
        guest.switch.accept(theirs, port).unwrap();
        let end = guest.requested().unwrap();
        guest.send(&end.header(Operation::Reset, 0), &[]);
        guest.assert_idle(0);
        let read = client.read(&mut [0]);
        assert!(matches!(&read, Ok(0)) || read.is_err(), "{read:?}");
    }
}

#[test]
fn who_does_not_read_holds_up_nobody_else_and_loses_nothing() {
    let mut guest = Guest::new();
    let (mut slow, slow_end) = guest.connect(PortChoice::Port(PORT));
    let (mut quick, quick_end) = guest.connect(PortChoice::Port(PORT));
    // All of the credit, most of which no socket has room for.
    let sent = pattern(WINDOW as usize);
    slow_end.data(&mut guest, &sent);
    guest.run();
    quick_end.data(&mut guest, b"hello");
    guest.run();
    assert_eq!(read_some(&mut quick).0, b"hello");
    quick.write_all(b"hello").unwrap();
    slow.write_all(b"still here").unwrap();
    assert_eq!(guest.take().len(), 2);
    // No more credit was given than there is room.
    guest.send(&slow_end.header(Operation::CreditRequest, 0), &[]);
    guest.run();
    let (update, _) = guest.inbox.pop_back().unwrap();
    assert_eq!(update.operation, Operation::CreditUpdate as u16);
    assert!((update.fwd_cnt as usize) < sent.len() / 2, "{update:?}");
    // It begins to read, and the guest learns of it.
    slow_end.shutdown(&mut guest, SHUTDOWN_SEND);
    assert!(read_all(&mut guest, &mut slow) == sent);
    let told = guest.inbox.iter().any(|(header, _)| header.fwd_cnt as usize == sent.len());
    assert!(told, "{:?}", guest.inbox);
}

#[test]
fn more_than_the_credit_is_a_reset_and_what_was_within_it_arrives() {
    let mut guest = Guest::new();
    let (mut client, end) = guest.connect(PortChoice::Port(PORT));
    // Without a word from the device: what it has passed on counts no more, as soon as it says so.
    let sent = pattern(2 * WINDOW as usize);
    end.data(&mut guest, &sent);
    let resets = guest.take();
    assert!(
        !resets.is_empty() && resets.iter().all(|(operation, _)| *operation == Operation::Reset)
    );
    let got = read_all(&mut guest, &mut client);
    assert!(got.len() >= WINDOW as usize && got.len() < sent.len() && got == sent[..got.len()]);
    guest.assert_idle(0);
}

#[test]
fn each_direction_ends_by_itself() {
    // The client first, with answers that wait for it.
    let mut guest = Guest::new();
    let (mut client, end) = guest.connect(PortChoice::Port(PORT));
    let sent = pattern(WINDOW as usize);
    end.data(&mut guest, &sent[..500_000]);
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    guest.run();
    let (header, _) = guest.inbox.pop_back().unwrap();
    assert_eq!((header.operation, header.flags), (Operation::Shutdown as u16, SHUTDOWN_SEND));
    assert_eq!(guest.bytes(), b"last words");
    end.data(&mut guest, &sent[500_000..]);
    end.shutdown(&mut guest, SHUTDOWN_BOTH);
    assert_eq!(guest.take(), [(Operation::Reset, vec![])]);
    assert!(read_all(&mut guest, &mut client) == sent);
    guest.assert_idle(0);

    // The guest first.
    let (mut client, end) = guest.connect(PortChoice::Port(PORT));
    end.data(&mut guest, b"last words");
    end.shutdown(&mut guest, SHUTDOWN_SEND);
    guest.run();
    assert_eq!(read_some(&mut client), (b"last words".to_vec(), true));
    client.write_all(b"thanks").unwrap();
    assert_eq!(guest.bytes(), b"thanks");
    drop(client);
    let packets = guest.take();
    assert!(
        packets.iter().all(|(operation, _)| *operation == Operation::Shutdown)
            && !packets.is_empty()
    );
    guest.send(&end.header(Operation::Reset, 0), &[]);
    guest.assert_idle(0);
}

#[test]
fn what_a_client_wrote_before_it_closed_arrives() {
    let mut guest = Guest::new();
    let (mut client, mut end) = guest.connect(PortChoice::Port(PORT));
    let sent = pattern(100_000);
    assert_eq!(write_some(&mut client, &sent), sent.len());
    // It has not read what the guest sent, either.
    end.data(&mut guest, &sent);
    drop(client);
    let mut got = guest.bytes();
    while got.len() < sent.len() {
        end.took(&mut guest, got.len() - end.taken as usize);
        let more = guest.bytes();
        assert!(!more.is_empty());
        got.extend(more);
    }
    assert!(got == sent);
    end.taken = sent.len() as u32;
    // The guest was told of the end. What it sends now is for nobody.
    end.data(&mut guest, b"anyone?");
    assert_eq!(guest.take(), [(Operation::Reset, vec![])]);
    guest.assert_idle(0);
}

#[test]
fn what_a_client_of_a_plain_socket_wrote_arrives_though_it_closed_at_once() {
    let mut guest = Guest::new();
    let (mut client, theirs) = UnixStream::pair().unwrap();
    client.write_all(b"do this").unwrap();
    drop(client);
    guest.switch.accept(theirs, PortChoice::Port(PORT)).unwrap();
    let end = guest.requested().unwrap();
    guest.send(&end.header(Operation::Response, 0), &[]);
    assert_eq!(guest.bytes(), b"do this");
    guest.send(&end.header(Operation::Reset, 0), &[]);
    guest.assert_idle(0);
}

#[test]
fn both_sides_can_send_at_once_though_neither_reads_at_first() {
    let mut guest = Guest::new();
    let (mut client, mut end) = guest.connect(PortChoice::Port(PORT));
    let sent = pattern(WINDOW as usize);
    let mut written = write_some(&mut client, &sent);
    end.data(&mut guest, &sent);
    let mut in_guest = guest.bytes();
    written += write_some(&mut client, &sent[written..]);
    guest.run();
    let (mut in_client, mut stalled) = (Vec::new(), 0);
    while in_guest.len() < sent.len() || in_client.len() < sent.len() {
        let before = (in_guest.len(), in_client.len());
        end.took(&mut guest, in_guest.len() - end.taken as usize);
        written += write_some(&mut client, &sent[written..]);
        in_client.extend(read_some(&mut client).0);
        in_guest.extend(guest.bytes());
        stalled = if before == (in_guest.len(), in_client.len()) { stalled + 1 } else { 0 };
        assert!(stalled < 3, "{before:?} of {}", sent.len());
    }
    assert!(in_guest == sent && in_client == sent);
}

#[test]
fn hundreds_of_connections_take_turns() {
    let mut guest = Guest::new();
    let mut clients: Vec<_> = (0..400).map(|_| guest.connect(PortChoice::Port(PORT))).collect();
    for (i, (client, _)) in clients.iter_mut().enumerate() {
        client.write_all(&(i as u32).to_le_bytes()).unwrap();
    }
    // One that has always more does not keep the others waiting.
    let (greedy, _) = &mut clients[0];
    write_some(greedy, &pattern(100_000));
    guest.run();
    let data: Vec<_> = guest
        .inbox
        .drain(..)
        .filter(|(header, _)| header.operation == Operation::Data as u16)
        .collect();
    let last = data.iter().rposition(|(_, content)| content.len() == 4).unwrap();
    assert!(last < 500, "the last small packet is number {last}");
    for (client, end) in &mut clients {
        end.data(&mut guest, &end.number.to_le_bytes());
        guest.run();
        assert_eq!(read_some(client).0, end.number.to_le_bytes());
    }
    // All of the others have ended.
    drop(clients);
    let packets = guest.take();
    assert_eq!(
        packets.iter().filter(|(operation, _)| *operation == Operation::Shutdown).count(),
        399
    );
}

#[test]
fn connections_that_the_guest_starts_are_refused() {
    let mut guest = Guest::new();
    let stray = End { number: 77, alloc: 4096, taken: 0 };
    for operation in
        [Operation::Request, Operation::Data, Operation::Shutdown, Operation::CreditRequest]
    {
        guest.send(&stray.header(operation, 0), &[]);
        guest.run();
        let (header, _) = guest.inbox.pop_front().unwrap();
        assert_eq!(header.operation, Operation::Reset as u16);
        assert_eq!((header.source.port, header.destination.port), (Port(77), Port(PORT)));
    }
    guest.send(&stray.header(Operation::Reset, 0), &[]);
    assert!(guest.take().is_empty());
    // Another machine's packets, another type's, and of a connection by the wrong port.
    let (_client, end) = guest.connect(PortChoice::Port(PORT));
    let mut header = end.header(Operation::Data, 0);
    header.source.cid = Cid(99);
    guest.send(&header, &[]);
    assert!(guest.take().is_empty());
    guest.send(&Header { kind: 2, ..end.header(Operation::Data, 0) }, &[]);
    let mut header = end.header(Operation::Data, 0);
    header.source.port = Port(PORT + 1);
    guest.send(&header, &[]);
    assert_eq!(guest.take(), vec![(Operation::Reset, vec![]); 2]);
    guest.assert_idle(1);
}
