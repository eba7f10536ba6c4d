//! Options, until the client has chosen an export ("Handshake phase").
//!
//! An option is taken in whole, answered, and only when its answer is sent is the next one looked
//! at.

use super::clients::{ClientId, Clients};
use super::contexts::{Context, Contexts};
use super::exports::{self, Found, NoExport};
use super::limits::{MAX_PAYLOAD, NBD_PORT};
use super::transmission::{Reserved, Transmission};
use crate::platform::Platform;
use crate::stream::{Peer, Stream, send, take};
use crate::text::Message;
use alloc::vec::Vec;
use core::fmt;
use umbra_fs::BLOCK_SIZE;
use umbra_fs::memory::{Boxed, append, copy, reset, with_room};
use umbra_proto::nbd::{
    BadOption, CLIENT_FLAGS_LEN, ContextRequest, EXPORT_NAME_ZEROES, Greeting, InfoRequest,
    InfoType, OPTION_HEADER_LEN, OPTION_REPLY_LEN, OptionCode, OptionHeader, OptionReply,
    ReplyCode, Style, client_flags, export_name_reply, handshake_flags, info_block_size,
    info_export, transmission_flags as flag,
};

/// Most data of an option that is looked at.
const MAX_OPTION: u32 = 64 << 10;
/// Data of an option beyond this is an attack, and ends the connection.
const MAX_SKIPPED: u32 = 32 << 20;
/// Memory that the answer to an option may take, the longest list of exports included.
const OPTION_MEMORY: usize = 64 << 10;
/// Memory of a connection that transmits.
const TRANSMISSION_MEMORY: usize = 24 << 10;
/// Memory that a connection keeps for its answers: that for a refusal without a text, at least.
const KEPT_OUT: usize = 256;
/// Memory that a connection keeps for what it receives: the header of an option.
const KEPT_INPUT: usize = 64;
/// Why an option is not answered otherwise.
const NO_MEMORY: &str = "the server has no memory left for it, as long as its clients use so much";
/// What an option costs, in bytes moved.
const OPTION_COST: usize = 16 << 10;

/// A connection whose client has not chosen yet.
pub struct Handshake {
    /// Answers that are being sent.
    out: Vec<u8>,
    sent: usize,
    state: State,
    input: Vec<u8>,
    no_zeroes: bool,
    structured: bool,
    extended: bool,
    /// The contexts that were selected, and for which export.
    selected: Option<(Vec<u8>, Contexts)>,
    peer: Option<Peer>,
}

/// What comes next.
enum State {
    ClientFlags,
    Header,
    Data(OptionHeader),
    /// Data that is not looked at; its option is too big.
    Skip {
        option: OptionCode,
        left: u32,
        why: &'static str,
    },
    /// The answers are sent, then it ends.
    Closing,
    /// The answers are sent, then it transmits.
    Chosen(Option<Boxed<Transmission>>),
}

/// What a step came to.
pub enum Next {
    /// Nothing can be done until the stream has something new.
    Wait,
    /// Something was done, for this many bytes' worth of time.
    Went(usize),
    /// The connection ends.
    Close,
    /// The client has chosen.
    Transmit(Boxed<Transmission>),
}

impl Handshake {
    /// Greets.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`](umbra_fs::Error::NoMemory).
    pub fn new(peer: Option<Peer>) -> umbra_fs::Result<Self> {
        let flags = handshake_flags::FIXED_NEWSTYLE | handshake_flags::NO_ZEROES;
        let mut out = with_room(KEPT_OUT)?;
        append(&mut out, &[&Greeting { flags }.encode()])?;
        Ok(Handshake {
            out,
            sent: 0,
            state: State::ClientFlags,
            input: with_room(KEPT_INPUT)?,
            no_zeroes: false,
            structured: false,
            extended: false,
            selected: None,
            peer,
        })
    }

    /// The client of an export that this connection is, if it has chosen one.
    pub fn client(&self) -> Option<ClientId> {
        match &self.state {
            State::Chosen(Some(transmission)) => Some(transmission.client),
            _ => None,
        }
    }

    /// Does one step.
    pub fn turn<M: Platform>(
        &mut self,
        stream: &mut dyn Stream,
        machine: &mut M,
        clients: &mut Clients,
    ) -> Next {
        if self.sent < self.out.len() {
            self.sent += send(stream, &self.out[self.sent..]);
            if self.sent < self.out.len() {
                return Next::Wait;
            }
            reset(&mut self.out, KEPT_OUT);
            self.sent = 0;
        }
        match &mut self.state {
            State::Closing => Next::Close,
            State::Chosen(transmission) => transmission.take().map_or(Next::Close, Next::Transmit),
            State::ClientFlags => match self.fill(stream) {
                Some(bytes) => self.client_flags(bytes),
                None => self.wait(stream),
            },
            State::Header => match self.fill(stream) {
                Some(bytes) => self.header(&bytes, machine),
                None => self.wait(stream),
            },
            State::Data(header) => {
                let header = *header;
                if !self.take_in(stream, header.len as usize) {
                    return self.wait(stream);
                }
                self.state = State::Header;
                let mut data = core::mem::take(&mut self.input);
                self.option(header.option, &data, machine, clients);
                reset(&mut data, KEPT_INPUT);
                self.input = data;
                Next::Went(OPTION_COST)
            }
            State::Skip { option, left, why } => {
                let n = (*left as usize).min(stream.available());
                stream.consume(n);
                *left -= n as u32;
                if *left > 0 {
                    return self.wait(stream);
                }
                let (option, why) = (*option, *why);
                self.state = State::Header;
                self.refuse(option, (ReplyCode::ERR_TOO_BIG, Message::new(format_args!("{why}"))));
                Next::Went(OPTION_COST)
            }
        }
    }

    /// Takes in a few bytes; `None` as long as they are not all there.
    fn fill<const N: usize>(&mut self, stream: &mut dyn Stream) -> Option<[u8; N]> {
        if !self.take_in(stream, N) {
            return None;
        }
        let bytes = self.input.first_chunk().copied();
        self.input.clear();
        bytes
    }

    /// Takes in `len` bytes, for which there is room; false as long as they are not all there.
    #[allow(clippy::disallowed_methods, reason = "there is room for `len` bytes")]
    fn take_in(&mut self, stream: &mut dyn Stream, len: usize) -> bool {
        let have = self.input.len();
        debug_assert!(len <= self.input.capacity());
        self.input.resize(len.min(have + stream.available()), 0);
        take(stream, &mut self.input[have..]);
        self.input.len() == len
    }

    fn wait(&self, stream: &dyn Stream) -> Next {
        if stream.finished() && stream.available() == 0 { Next::Close } else { Next::Wait }
    }

    fn client_flags(&mut self, bytes: [u8; CLIENT_FLAGS_LEN]) -> Next {
        let flags = u32::from_be_bytes(bytes);
        if flags & !client_flags::ALL != 0 {
            return Next::Close;
        }
        self.no_zeroes = flags & client_flags::NO_ZEROES != 0;
        self.state = State::Header;
        Next::Went(0)
    }

    fn header<M: Platform>(&mut self, bytes: &[u8; OPTION_HEADER_LEN], machine: &mut M) -> Next {
        let Ok(header) = OptionHeader::decode(bytes) else { return Next::Close };
        let OptionHeader { option, len: left } = header;
        if left > MAX_SKIPPED {
            return Next::Close;
        }
        let len = left as usize;
        self.state = if left > MAX_OPTION {
            State::Skip { option, left, why: "the option has more than 64 KiB of data" }
        } else if !machine.has_memory(len) || self.input.try_reserve_exact(len).is_err() {
            State::Skip { option, left, why: NO_MEMORY }
        } else {
            State::Data(header)
        };
        Next::Went(0)
    }

    /// Adds to the answer.
    fn reply(
        &mut self,
        option: OptionCode,
        code: ReplyCode,
        data: &[&[u8]],
    ) -> Result<(), Refused> {
        let len = data.iter().map(|piece| piece.len()).sum::<usize>();
        self.out.try_reserve(OPTION_REPLY_LEN + len).map_err(|_| no_memory())?;
        OptionReply::append(&mut self.out, option, code, data);
        Ok(())
    }

    /// Answers that an option is refused, instead of what was going to be answered.
    fn refuse(&mut self, option: OptionCode, (code, why): Refused) {
        self.out.clear();
        if self.reply(option, code, &[why.as_str().as_bytes()]).is_err() {
            // There is always room for this.
            OptionReply::append(&mut self.out, option, code, &[]);
        }
    }

    fn option<M: Platform>(
        &mut self,
        option: OptionCode,
        data: &[u8],
        machine: &mut M,
        clients: &mut Clients,
    ) {
        if option == OptionCode::ABORT {
            self.state = State::Closing;
            if let Err(why) = self.reply(option, ReplyCode::ACK, &[]) {
                self.refuse(option, why);
            }
            return;
        }
        let has_memory = machine.has_memory(OPTION_MEMORY.max(TRANSMISSION_MEMORY));
        if option == OptionCode::EXPORT_NAME {
            // The old way to choose has no way to refuse.
            self.state = State::Closing;
            if has_memory && self.export_name(data, machine, clients).is_none() {
                self.out.clear();
            }
            return;
        }
        if !has_memory {
            return self.refuse(option, no_memory());
        }
        if machine.is_closing() {
            let why = Message::new(format_args!("the server is being switched off"));
            return self.refuse(option, (ReplyCode::ERR_SHUTDOWN, why));
        }
        let refused = match option {
            OptionCode::LIST
            | OptionCode::STARTTLS
            | OptionCode::STRUCTURED_REPLY
            | OptionCode::EXTENDED_HEADERS
                if !data.is_empty() =>
            {
                Err(refused(ReplyCode::ERR_INVALID, format_args!("{option} has no data")))
            }
            OptionCode::LIST => self.list(machine),
            OptionCode::STARTTLS => Err(refused(
                ReplyCode::ERR_PLATFORM,
                format_args!("no TLS on vsock port {NBD_PORT}: it ends in front of this server"),
            )),
            OptionCode::INFO | OptionCode::GO => self.info(option, data, machine, clients),
            OptionCode::STRUCTURED_REPLY if self.extended => Err(refused(
                ReplyCode::ERR_EXT_HEADER_REQD,
                format_args!("extended headers are in use"),
            )),
            OptionCode::STRUCTURED_REPLY if self.structured => twice(option),
            OptionCode::STRUCTURED_REPLY => {
                self.structured = true;
                self.reply(option, ReplyCode::ACK, &[])
            }
            OptionCode::EXTENDED_HEADERS if self.extended => twice(option),
            OptionCode::EXTENDED_HEADERS => {
                self.extended = true;
                self.reply(option, ReplyCode::ACK, &[])
            }
            OptionCode::LIST_META_CONTEXT | OptionCode::SET_META_CONTEXT => {
                self.contexts(option, data, machine)
            }
            _ => Err(refused(
                ReplyCode::ERR_UNSUP,
                format_args!("this server knows no option {}", option.0),
            )),
        };
        if let Err(why) = refused {
            self.refuse(option, why);
        }
    }

    /// How requests and replies will look.
    fn style(&self) -> Style {
        match (self.extended, self.structured) {
            (true, _) => Style::Extended,
            (_, true) => Style::Structured,
            _ => Style::Simple,
        }
    }

    /// The contexts that are selected for an export.
    fn contexts_for(&self, name: &[u8]) -> Contexts {
        match &self.selected {
            Some((selected, contexts)) if selected == name => *contexts,
            _ => Contexts::default(),
        }
    }

    fn flags(&self, found: &Found, contexts: Contexts) -> u16 {
        let mut flags = flag::HAS_FLAGS
            | flag::SEND_FLUSH
            | flag::SEND_FUA
            | flag::SEND_TRIM
            | flag::SEND_WRITE_ZEROES
            | flag::SEND_FAST_ZERO
            | flag::CAN_MULTI_CONN
            | flag::SEND_CACHE;
        if found.read_only {
            flags |= flag::READ_ONLY;
        }
        if self.style() != Style::Simple {
            flags |= flag::SEND_DF;
        }
        if self.style() == Style::Extended && !contexts.is_empty() {
            flags |= flag::BLOCK_STATUS_PAYLOAD;
        }
        flags
    }

    fn list<M: Platform>(&mut self, machine: &mut M) -> Result<(), Refused> {
        let offers = exports::offers(machine)
            .map_err(|e| refused(ReplyCode::ERR_POLICY, format_args!("{e}")))?;
        for found in offers {
            let len = (found.name.len() as u32).to_be_bytes();
            let about = found.description();
            let about = about.as_str().as_bytes();
            self.reply(OptionCode::LIST, ReplyCode::SERVER, &[&len, &found.name, about])?;
        }
        self.reply(OptionCode::LIST, ReplyCode::ACK, &[])
    }

    fn info<M: Platform>(
        &mut self,
        option: OptionCode,
        data: &[u8],
        machine: &mut M,
        clients: &mut Clients,
    ) -> Result<(), Refused> {
        let request = InfoRequest::decode(data).map_err(malformed)?;
        let found = exports::find(machine, request.name).map_err(unknown)?;
        let contexts = self.contexts_for(request.name);
        let info = info_export(found.size, self.flags(&found, contexts));
        self.reply(option, ReplyCode::INFO, &[&info])?;
        if request.wants(InfoType::NAME) {
            self.reply(option, ReplyCode::INFO, &[&InfoType::NAME.0.to_be_bytes(), &found.name])?;
        }
        if request.wants(InfoType::DESCRIPTION) {
            let about = found.description();
            let kind = InfoType::DESCRIPTION.0.to_be_bytes();
            self.reply(option, ReplyCode::INFO, &[&kind, about.as_str().as_bytes()])?;
        }
        if request.wants(InfoType::BLOCK_SIZE) {
            let sizes = info_block_size(1, BLOCK_SIZE as u32, MAX_PAYLOAD);
            self.reply(option, ReplyCode::INFO, &[&sizes])?;
        }
        self.reply(option, ReplyCode::ACK, &[])?;
        if option == OptionCode::GO {
            self.choose(&found, contexts, machine, clients)
                .map_err(|e| refused(ReplyCode::ERR_UNKNOWN, format_args!("{e}")))?;
        }
        Ok(())
    }

    /// Uses an export: what can fail comes before that.
    fn choose<M: Platform>(
        &mut self,
        found: &Found,
        contexts: Contexts,
        machine: &mut M,
        clients: &mut Clients,
    ) -> umbra_fs::Result<()> {
        let reserved = Reserved::new()?;
        let used = clients.open(machine, found, self.peer)?;
        self.state = State::Chosen(Some(reserved.start(found, used, self.style(), contexts)));
        Ok(())
    }

    /// The old way to choose; `None` if that is not possible, whatever the reason.
    fn export_name<M: Platform>(
        &mut self,
        name: &[u8],
        machine: &mut M,
        clients: &mut Clients,
    ) -> Option<()> {
        if self.extended || machine.is_closing() || umbra_proto::nbd::checked_string(name).is_err()
        {
            return None;
        }
        let contexts = self.contexts_for(name);
        let found = exports::find(machine, name).ok()?;
        let flags = self.flags(&found, contexts);
        append(&mut self.out, &[&export_name_reply(found.size, flags)]).ok()?;
        if !self.no_zeroes {
            append(&mut self.out, &[&[0; EXPORT_NAME_ZEROES]]).ok()?;
        }
        self.choose(&found, contexts, machine, clients).ok()
    }

    fn contexts<M: Platform>(
        &mut self,
        option: OptionCode,
        data: &[u8],
        machine: &mut M,
    ) -> Result<(), Refused> {
        let set = option == OptionCode::SET_META_CONTEXT;
        if set {
            // Replaced by this, even if it fails.
            self.selected = None;
        }
        if self.style() == Style::Simple {
            return Err(refused(
                ReplyCode::ERR_INVALID,
                format_args!("structured replies have to be negotiated first"),
            ));
        }
        let request = ContextRequest::decode(data).map_err(malformed)?;
        exports::find(machine, request.name).map_err(unknown)?;
        let mut contexts = Contexts::default();
        for context in Context::ALL {
            let mut queries = request.queries();
            let meant = match set {
                true => queries.any(|query| query == context.name()),
                false => request.count == 0 || queries.any(|query| context.is_listed_by(query)),
            };
            if meant {
                contexts = contexts.with(context);
                let id = if set { context.id() } else { 0 };
                self.reply(option, ReplyCode::META_CONTEXT, &[&id.to_be_bytes(), context.name()])?;
            }
        }
        self.reply(option, ReplyCode::ACK, &[])?;
        if set {
            let name = copy(request.name).map_err(|_| no_memory())?;
            self.selected = Some((name, contexts));
        }
        Ok(())
    }
}

/// An option that is refused: how, and a text for people.
type Refused = (ReplyCode, Message);

fn refused(code: ReplyCode, why: fmt::Arguments<'_>) -> Refused {
    (code, Message::new(why))
}

fn no_memory() -> Refused {
    refused(ReplyCode::ERR_POLICY, format_args!("{NO_MEMORY}"))
}

fn twice(option: OptionCode) -> Result<(), Refused> {
    Err(refused(ReplyCode::ERR_INVALID, format_args!("{option} was negotiated before")))
}

fn malformed(why: BadOption) -> Refused {
    refused(ReplyCode::ERR_INVALID, format_args!("{why}"))
}

fn unknown(why: NoExport) -> Refused {
    let code = match why {
        NoExport::Unknown(_) => ReplyCode::ERR_UNKNOWN,
        NoExport::Unusable(_) => ReplyCode::ERR_POLICY,
    };
    refused(code, format_args!("{why}"))
}
