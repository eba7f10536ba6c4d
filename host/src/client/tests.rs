//! Tests of the client against a guest that is a thread here and keeps one file in memory.

use super::rpc::*;
use super::*;
use std::collections::BTreeMap;
use std::io::{Read as _, Seek, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::thread;

/// Blocks of this size are kept; what is not kept is a hole.
const BLOCK: u64 = 4096;

/// Blocks of the image from one block of the file to the next.
const IMAGE_STEP: u64 = 2;

/// A guest with one file. It answers in the order of the requests, like the real one.
#[derive(Default)]
struct Guest {
    blocks: BTreeMap<u64, Vec<u8>>,
    size: u64,
    names: Vec<Vec<u8>>,
    /// Fail the write with this number (counted from 0).
    full_at: Option<u64>,
    writes: u64,
    /// Where in the stream the payloads of writes began.
    payloads_at: Vec<u64>,
    /// What the NVDIMM is said to begin with.
    identity: Option<[u8; IDENTITY_LEN]>,
    reads: u64,
    /// Say that all blocks are at the end of all numbers.
    far_out: bool,
    /// Blocks that there is room for; all there are without it.
    room: Option<u64>,
    reclaimed: bool,
}

impl Guest {
    fn serve(mut self, mut stream: UnixStream) -> thread::JoinHandle<Guest> {
        thread::spawn(move || {
            let mut header = [0; HEADER_LEN];
            let mut at = 0;
            while stream.read_exact(&mut header).is_ok() {
                let header = Header::decode(&header);
                header.check_request().unwrap();
                if header.method == Method::WRITE.0 {
                    self.payloads_at.push(at + HEADER_LEN as u64 + u64::from(header.body()));
                }
                at += HEADER_LEN as u64 + u64::from(header.length);
                let mut body = vec![0; header.body() as usize];
                stream.read_exact(&mut body).unwrap();
                let mut payload = vec![0; header.payload as usize];
                stream.read_exact(&mut payload).unwrap();
                for (flags, body, payload) in self.answer(Method(header.method), &body, &payload) {
                    let frame = header.response(flags, body.len() as u32, payload.len() as u32);
                    if stream.write_all(&[&frame.encode()[..], &body, &payload].concat()).is_err() {
                        return self;
                    }
                }
            }
            self
        })
    }

    fn answer(
        &mut self,
        method: Method,
        body: &[u8],
        payload: &[u8],
    ) -> Vec<(u16, Vec<u8>, Vec<u8>)> {
        fn one<T: minicbor_encode::Encode>(body: T) -> Vec<(u16, Vec<u8>, Vec<u8>)> {
            vec![(0, body.bytes(), vec![])]
        }
        match method {
            Method::HELLO => one(HelloResponse {
                version: VERSION,
                features: 0,
                server: rpc::Text::from("test"),
                max_body: MAX_BODY,
                max_payload: 100_000,
                max_path: 4096,
                max_name: 255,
                max_handles: 8,
                block_size: BLOCK as u32,
                max_file_size: 1 << 39,
            }),
            Method::STAT => error(ErrorCode::NOT_FOUND, "no such file"),
            Method::OPEN => {
                let open: Open = decode(body).unwrap();
                self.names.push(open.path.to_vec());
                let frozen = open.flags & open::FROZEN != 0;
                let identity = self.identity.filter(|_| frozen).map(Into::into);
                one(Opened { handle: 1, ino: 2, size: self.size, identity })
            }
            Method::OPEN_UNNAMED => {
                self.names.push(decode::<OpenUnnamed>(body).unwrap().path.to_vec());
                one(Opened { handle: 1, ino: 2, size: 0, identity: None })
            }
            Method::LINK => {
                let link: Link = decode(body).unwrap();
                if !link.check {
                    self.names.push(link.to.to_vec());
                }
                one(Created { ino: 2 })
            }
            Method::SPACE => one(SpaceResponse {
                block_size: BLOCK as u32,
                blocks_total: 1000,
                blocks_free: 1000,
                blocks_shared: 0,
                inodes: 1,
                // Half of it is there only when it was waited for.
                blocks_available: self
                    .room
                    .map(|room| if self.reclaimed { room } else { room / 2 }),
            }),
            Method::RECLAIM => {
                self.reclaimed = true;
                one(ReclaimResponse { pending: false, steps: 1 })
            }
            Method::TRUNCATE => {
                self.size = decode::<Truncate>(body).unwrap().size;
                one(Done {})
            }
            Method::WRITE => {
                let at = decode::<rpc::Write>(body).unwrap().offset;
                self.writes += 1;
                if self.full_at == Some(self.writes - 1) {
                    return error(
                        ErrorCode::NO_SPACE,
                        "write 100000 bytes at 0 of inode 2: no space left",
                    );
                }
                for (index, piece) in payload.chunks(BLOCK as usize).enumerate() {
                    self.blocks.insert(at + index as u64 * BLOCK, piece.to_vec());
                }
                self.size = self.size.max(at + payload.len() as u64);
                one(Written { done: payload.len() as u64 })
            }
            Method::EXTENTS => {
                let wanted: Extents = decode(body).unwrap();
                let end = self.size.min(wanted.offset + wanted.len.unwrap());
                // One frame for each block: what an answer of many frames looks like.
                let runs: Vec<Extent> = (wanted.offset..end)
                    .step_by(BLOCK as usize)
                    .map(|offset| {
                        // In the image they lie apart, each at a place that can be told.
                        let block = self
                            .blocks
                            .contains_key(&offset)
                            .then_some(IMAGE_STEP * (1 + offset / BLOCK));
                        let block = if self.far_out { block.map(|_| u64::MAX) } else { block };
                        Extent {
                            offset,
                            len: BLOCK,
                            block,
                            unwritten: false,
                            shared: false,
                            bad: false,
                        }
                    })
                    .collect();
                let last = runs.len().saturating_sub(1);
                let frame = |(index, run): (usize, &Extent)| {
                    (
                        if index < last { MORE } else { 0 },
                        Items { items: vec![*run] }.bytes(),
                        vec![],
                    )
                };
                match runs.is_empty() {
                    true => one(Items::<Extent> { items: vec![] }),
                    false => runs.iter().enumerate().map(frame).collect(),
                }
            }
            Method::READ => {
                let wanted: rpc::Read = decode(body).unwrap();
                self.reads += 1;
                let content = self.content();
                let end = (wanted.offset + wanted.len).min(self.size) as usize;
                let mut frames: Vec<_> = content[wanted.offset as usize..end]
                    .chunks(70_001)
                    .map(|piece| (MORE, Done {}.bytes(), piece.to_vec()))
                    .collect();
                frames.push((0, Done {}.bytes(), vec![]));
                frames
            }
            _ => one(Done {}),
        }
    }

    fn content(&self) -> Vec<u8> {
        let mut all = vec![0; self.size as usize];
        for (&at, block) in &self.blocks {
            all[at as usize..at as usize + block.len()].copy_from_slice(block);
        }
        all
    }
}

/// Encoding, by type.
mod minicbor_encode {
    use super::super::rpc;

    pub trait Encode {
        fn bytes(&self) -> Vec<u8>;
    }

    macro_rules! encode {
        ($($type:ty),*) => {
            $(impl Encode for $type {
                fn bytes(&self) -> Vec<u8> {
                    let mut bytes = Vec::new();
                    rpc::encode_append(self, &mut bytes);
                    bytes
                }
            })*
        };
    }
    encode!(
        rpc::HelloResponse,
        rpc::Opened,
        rpc::Created,
        rpc::SpaceResponse,
        rpc::ReclaimResponse,
        rpc::Done,
        rpc::Written,
        rpc::Items<rpc::Extent>,
        rpc::ErrorBody
    );
}
use minicbor_encode::Encode as _;

fn error(code: ErrorCode, message: &str) -> Vec<(u16, Vec<u8>, Vec<u8>)> {
    vec![(ERROR, ErrorBody { code, message: message.into(), done: None }.bytes(), vec![])]
}

fn connect_to(guest: Guest) -> (Client, thread::JoinHandle<Guest>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guest = guest.serve(theirs);
    (Client::over(Stream::Unix(ours)).unwrap(), guest)
}

/// Bytes that do not repeat with any block or frame.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[test]
fn a_file_with_holes_goes_in_and_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = std::fs::File::create_new(folder.path().join("in")).unwrap();
    // Data, a hole of 8 MiB, data, and a hole at the end.
    let data = pattern(700_000);
    source.write_all(&data).unwrap();
    source.seek(SeekFrom::Start(8 << 20)).unwrap();
    source.write_all(&data[..100_000]).unwrap();
    source.set_len((9 << 20) + 5).unwrap();
    let mut source = std::fs::File::open(folder.path().join("in")).unwrap();

    let (mut client, guest) = connect_to(Guest::default());
    let mut last = 0;
    let done = put(&mut client, &mut source, b"/f", &mut |at, size| {
        assert!(at >= last && size == Some((9 << 20) + 5));
        last = at;
    });
    let done = done.unwrap();
    assert_eq!(done.size, (9 << 20) + 5);
    assert_eq!(last, done.size);
    assert!((800_000..1 << 20).contains(&done.data), "{done:?}");

    let out = folder.path().join("out");
    let got = get(&mut client, b"/f", Some(&out), &mut io::sink(), &mut |_, _| {}).unwrap();
    assert_eq!(got.size, done.size);
    let expected = std::fs::read(folder.path().join("in")).unwrap();
    assert!(std::fs::read(&out).unwrap() == expected);
    assert!(std::fs::metadata(&out).unwrap().blocks() * 512 < 2 << 20, "holes were written");

    let mut stream = Vec::new();
    get(&mut client, b"/f", None, &mut stream, &mut |_, _| {}).unwrap();
    assert!(stream == expected);
    drop(client);
    let guest = guest.join().unwrap();
    assert_eq!(guest.names[..2], [b"/".to_vec(), b"/f".to_vec()], "it has its name last");
}

/// A pipe cannot say where it has holes: blocks of zeros do not travel.
#[test]
fn zeros_from_a_stream_become_holes() {
    let data = pattern(200_000);
    let block = BLOCK as usize;
    let content: Vec<u8> =
        [&vec![0; 3 * block][..], &data, &vec![0; 300_000], b"x", &vec![0; 500_001]].concat();
    let zeros: Vec<u8> = vec![0; 123_456];
    for (content, travels) in [(&content, 210_000), (&zeros, 0), (&Vec::new(), 0)] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let feeder = thread::spawn({
            let content = content.clone();
            move || writer.write_all(&content).unwrap()
        });
        let mut source = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
        let (mut client, guest) = connect_to(Guest::default());
        let done = put(&mut client, &mut source, b"/f", &mut |_, _| {}).unwrap();
        assert_eq!(done.size, content.len() as u64);
        drop(client);
        feeder.join().unwrap();
        let guest = guest.join().unwrap();
        assert!(guest.content() == *content);
        let stored: usize = guest.blocks.values().map(Vec::len).sum();
        assert!(stored <= travels && done.data == stored as u64, "{stored} bytes: {done:?}");
        assert!(guest.blocks.values().all(|piece| piece.iter().any(|&byte| byte != 0)));
    }
}

/// A stream that never ends is refused where the largest file ends, though nothing of it travels.
#[test]
fn an_endless_stream_of_zeros_is_too_large() {
    let (mut client, guest) = connect_to(Guest::default());
    client.limits.max_file_size = 10 << 20;
    let mut source = std::fs::File::open("/dev/zero").unwrap();
    let error = put(&mut client, &mut source, b"/f", &mut |_, _| {}).unwrap_err();
    assert!(error.is(ErrorCode::TOO_LARGE), "{error}");
    client.ping().unwrap();
    drop(client);
    assert_eq!(guest.join().unwrap().names, [b"/".to_vec()]);
}

#[test]
fn what_cannot_fit_is_refused_before_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in");
    // 100 blocks at two places of 1 GiB, in three leaves.
    let sparse = std::fs::File::create(&path).unwrap();
    for at in [0, 1 << 29] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &pattern(50 << 12), at).unwrap();
    }
    sparse.set_len(1 << 30).unwrap();
    for (room, fits) in
        [(None, true), (Some(200), true), (Some(110), true), (Some(109), false), (Some(1), false)]
    {
        let (mut client, guest) = connect_to(Guest { room, ..Guest::default() });
        let mut source = std::fs::File::open(&path).unwrap();
        let done = put(&mut client, &mut source, b"/f", &mut |_, _| {});
        drop(client);
        let guest = guest.join().unwrap();
        assert_eq!(done.is_ok(), fits, "{room:?}: {done:?}");
        if !fits {
            let error = done.unwrap_err();
            assert!(
                error.is(ErrorCode::NO_SPACE) && error.to_string().contains("are needed"),
                "{error}"
            );
            assert_eq!((guest.writes, guest.names.len()), (0, 1));
        }
    }
    // What takes no blocks goes into a full volume.
    std::fs::write(&path, b"").unwrap();
    let (mut client, _guest) = connect_to(Guest { room: Some(0), ..Guest::default() });
    put(&mut client, &mut std::fs::File::open(&path).unwrap(), b"/f", &mut |_, _| {}).unwrap();
}

/// Large payloads begin where the server finds whole pages, and what is small is not made larger.
#[test]
fn large_payloads_begin_at_pages_of_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in");
    let content = pattern(900_123);
    std::fs::write(&path, &content).unwrap();
    let (mut client, guest) = connect_to(Guest::default());
    put(&mut client, &mut std::fs::File::open(&path).unwrap(), b"/f", &mut |_, _| {}).unwrap();
    let file = client.open(b"/f", 0).unwrap();
    client.write(&file, 0, &content[..LARGE]).unwrap();
    let sent = client.sent;
    client.write(&file, 0, &content[..LARGE - 1]).unwrap();
    assert!(client.sent - sent < LARGE as u64 + 64);
    drop(client);
    let guest = guest.join().unwrap();
    // The server takes at most 100,000 bytes at once: whole blocks of that.
    let (last, others) = guest.payloads_at.split_last().unwrap();
    assert_eq!(others.len(), 900_123usize.div_ceil(98_304) + 1);
    assert!(!last.is_multiple_of(PAGE), "by chance it is: choose another length");
    // The last piece of the file is small, too.
    let aligned = others.iter().filter(|at| at.is_multiple_of(PAGE)).count();
    assert_eq!(aligned, others.len() - 1);
    assert!(guest.content()[LARGE..] == content[LARGE..]);
}

/// A source that is cut while it is sent: the request is whole, and the connection of further use.
#[test]
fn a_source_that_ends_early_leaves_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in");
    let content = pattern(90_000);
    std::fs::write(&path, &content).unwrap();
    let source = std::fs::File::open(&path).unwrap();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        all
    });
    let mut stream = Stream::Unix(ours.try_clone().unwrap());
    let copied = put::copy_out(&source, 1000, 200_000, &mut stream).unwrap();
    assert_eq!((copied.done, copied.error.is_none()), (89_000, true));
    // What no system copies by itself is copied by hand; what cannot be read is an error of the
    // source.
    let folder = std::fs::File::open(folder.path()).unwrap();
    let copied = put::copy_out(&folder, 0, 10, &mut stream).unwrap();
    assert_eq!((copied.done, copied.error.is_some()), (0, true));
    ours.flush().unwrap();
    drop((ours, stream));
    assert!(reader.join().unwrap() == content[1000..]);
}

/// An image of the guest's NVDIMM: its blocks are where the guest says.
fn image_of(guest: &Guest, identity: &[u8]) -> Vec<u8> {
    let mut image = vec![0xaa; (guest.size / BLOCK + 3) as usize * (IMAGE_STEP * BLOCK) as usize];
    image[..identity.len()].copy_from_slice(identity);
    for (&at, block) in &guest.blocks {
        let place = (IMAGE_STEP * (1 + at / BLOCK) * BLOCK) as usize;
        image[place..place + block.len()].copy_from_slice(block);
    }
    image
}

#[test]
fn blocks_are_read_in_the_image_if_it_is_the_servers() {
    let folder = tempfile::tempdir().unwrap();
    let identity: [u8; IDENTITY_LEN] = core::array::from_fn(|i| i as u8);
    let other = [0; IDENTITY_LEN];
    let content = pattern(1_500_000);
    // What the image begins with, whether it ends early, and whether it is used.
    for (start, cut, used) in
        [(identity, false, true), (other, false, false), (identity, true, true)]
    {
        let mut guest = Guest { identity: Some(identity), ..Guest::default() };
        guest.size = content.len() as u64;
        for (index, block) in
            content.chunks(BLOCK as usize).enumerate().filter(|(index, _)| index % 7 != 3)
        {
            guest.blocks.insert(index as u64 * BLOCK, block.to_vec());
        }
        let expected = guest.content();
        let mut image = image_of(&guest, &start);
        if cut {
            image.truncate(image.len() / 2);
        }
        let (path, out) = (folder.path().join("image"), folder.path().join("out"));
        std::fs::write(&path, image).unwrap();
        std::fs::write(&out, "the old content").unwrap();
        let (mut client, guest) = connect_to(guest);
        client.image = Some(path);
        let got = get(&mut client, b"/f", Some(&out), &mut io::sink(), &mut |_, _| {});
        let mut streamed = Vec::new();
        let sent = get(&mut client, b"/f", None, &mut streamed, &mut |_, _| {});
        drop(client);
        assert_eq!(guest.join().unwrap().reads == 0, used);
        if cut {
            let error = got.unwrap_err().to_string();
            assert_eq!(
                error,
                "cannot read a block in the image of the NVDIMM: it ends before the block"
            );
            assert!(sent.is_err());
            assert_eq!(std::fs::read(&out).unwrap(), b"the old content");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "half a copy is left");
            continue;
        }
        assert_eq!(got.unwrap(), sent.unwrap());
        assert!(std::fs::read(&out).unwrap() == expected && streamed == expected);
    }
}

#[test]
fn blocks_beyond_all_numbers_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let identity = [7; IDENTITY_LEN];
    let mut guest =
        Guest { identity: Some(identity), far_out: true, size: 8 * BLOCK, ..Guest::default() };
    for index in 0..8 {
        guest.blocks.insert(index * BLOCK, vec![1; BLOCK as usize]);
    }
    let path = folder.path().join("image");
    std::fs::write(&path, identity).unwrap();
    let (mut client, _guest) = connect_to(guest);
    client.image = Some(path);
    let error =
        get(&mut client, b"/f", None, &mut io::sink(), &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.starts_with("cannot read a block in the image of the NVDIMM"), "{error}");
    client.ping().unwrap();
}

#[test]
fn an_error_midway_names_the_file_and_leaves_the_connection_usable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in");
    std::fs::write(&path, pattern(2_000_000)).unwrap();
    let (mut client, _guest) = connect_to(Guest { full_at: Some(3), ..Guest::default() });
    let mut source = std::fs::File::open(&path).unwrap();
    let error = put(&mut client, &mut source, b"/big", &mut |_, _| {}).unwrap_err();
    assert!(error.is(ErrorCode::NO_SPACE));
    assert_eq!(error.to_string(), "write 100000 bytes at 0 of /big: no space left");
    client.ping().unwrap();
    assert_eq!(client.in_flight(), 0);
}

#[test]
fn an_empty_file_is_a_file() {
    let (mut client, _guest) = connect_to(Guest::default());
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let done = get(&mut client, b"/empty", Some(&out), &mut io::sink(), &mut |_, _| {}).unwrap();
    assert_eq!(done, Transferred { size: 0, data: 0, moment: Moment::One });
    assert_eq!(std::fs::metadata(&out).unwrap().len(), 0);
}

#[test]
fn nobody_there_is_said_clearly() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::new(folder.path());
    let error = Client::connect(&state).unwrap_err().to_string();
    assert!(error.contains("no server is running") && error.contains("umbra up"), "{error}");
    // What a killed supervisor leaves.
    state.write("endpoint", "vsock.sock").unwrap();
    drop(state.listen("vsock.sock").unwrap());
    assert!(matches!(Client::connect(&state), Err(Error::NotRunning { .. })));
}

#[test]
fn bytes_that_follow_the_handshake_at_once_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::new(folder.path());
    state.write("endpoint", "vsock.sock").unwrap();
    let listener = state.listen("vsock.sock").unwrap();
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 11];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"CONNECT 19\n");
        stream.write_all(b"OK 1024\nhello").unwrap();
    });
    let mut text = String::new();
    connect(&state, 19).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    daemon.join().unwrap();
}

#[test]
fn refused_garbled_and_foreign_answers_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::new(folder.path());
    let _lock = state.lock().unwrap();
    state.write("endpoint", "vsock.sock").unwrap();
    let listener = state.listen("vsock.sock").unwrap();
    let daemon = thread::spawn(move || {
        let mut request = [0; 10];
        for answer in [&b""[..], b"NO\n", b"OK 1\nHTTP/1.1 400 Bad Request\r\n\r\n", b"FULL 1152\n"]
        {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        }
        // It may be said before the client has.
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"FULL 7\n").unwrap();
    });
    assert!(matches!(Client::connect(&state), Err(Error::Refused { port: 1 })));
    assert!(matches!(Client::connect(&state), Err(Error::Connect { .. })));
    assert!(matches!(Client::connect(&state), Err(Error::Protocol(_) | Error::Disconnected)));
    assert!(matches!(Client::connect(&state), Err(Error::Full { connections: 1152 })));
    assert!(matches!(Client::connect(&state), Err(Error::Full { connections: 7 })));
    daemon.join().unwrap();
}

#[test]
fn a_guest_that_goes_away_is_noticed() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guest = Guest::default().serve(theirs.try_clone().unwrap());
    let mut client = Client::over(Stream::Unix(ours)).unwrap();
    theirs.shutdown(std::net::Shutdown::Both).unwrap();
    guest.join().unwrap();
    assert!(matches!(client.ping(), Err(Error::Disconnected)));
}
