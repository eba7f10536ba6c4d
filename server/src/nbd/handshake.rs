//! Options, until the client has chosen an export ("Handshake phase").
//!
//! An option is taken in whole, answered, and only when its answer is sent is the next one looked
//! at.

use super::backing::Backing;
use super::clients::{ClientId, Clients};
use super::contexts::{Context, Contexts};
use super::exports::{self, Found, NoExport};
use super::limits::{MAX_PAYLOAD, NBD_PORT};
use super::transmission::Transmission;
use crate::platform::Platform;
use crate::stream::{Peer, Stream, send, take};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use umbra_fs::BLOCK_SIZE;
use umbra_proto::nbd::{
    BadOption, CLIENT_FLAGS_LEN, ContextRequest, EXPORT_NAME_ZEROES, Greeting, InfoRequest,
    InfoType, OPTION_HEADER_LEN, OptionCode, OptionHeader, OptionReply, ReplyCode, Style,
    client_flags, export_name_reply, handshake_flags, info_block_size, info_export,
    transmission_flags as flag,
};

/// Most data of an option that is looked at.
const MAX_OPTION: u32 = 64 << 10;
/// Data of an option beyond this is an attack, and ends the connection.
const MAX_SKIPPED: u32 = 32 << 20;
/// Memory that the answer to an option may take, the longest list of exports included.
const OPTION_MEMORY: usize = 64 << 10;
/// Memory of a connection that transmits.
const TRANSMISSION_MEMORY: usize = 24 << 10;
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
    Chosen(Option<Box<Transmission>>),
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
    Transmit(Box<Transmission>),
}

impl Handshake {
    /// Greets.
    pub fn new(peer: Option<Peer>) -> Self {
        let flags = handshake_flags::FIXED_NEWSTYLE | handshake_flags::NO_ZEROES;
        Handshake {
            out: Greeting { flags }.encode().to_vec(),
            sent: 0,
            state: State::ClientFlags,
            input: Vec::new(),
            no_zeroes: false,
            structured: false,
            extended: false,
            selected: None,
            peer,
        }
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
            (self.out, self.sent) = (Vec::new(), 0);
        }
        match &mut self.state {
            State::Closing => Next::Close,
            State::Chosen(transmission) => transmission.take().map_or(Next::Close, Next::Transmit),
            State::ClientFlags => match self.fill(stream, CLIENT_FLAGS_LEN) {
                Some(bytes) => self.client_flags(&bytes),
                None => self.wait(stream),
            },
            State::Header => match self.fill(stream, OPTION_HEADER_LEN) {
                Some(bytes) => self.header(&bytes, machine),
                None => self.wait(stream),
            },
            State::Data(header) => {
                let header = *header;
                let Some(data) = self.fill(stream, header.len as usize) else {
                    return self.wait(stream);
                };
                self.state = State::Header;
                self.option(header.option, &data, machine, clients);
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
                self.reply(option, ReplyCode::ERR_TOO_BIG, &[why.as_bytes()]);
                Next::Went(OPTION_COST)
            }
        }
    }

    /// Takes in `len` bytes; `None` as long as they are not all there.
    fn fill(&mut self, stream: &mut dyn Stream, len: usize) -> Option<Vec<u8>> {
        let have = self.input.len();
        // As much as came, not as much as was announced.
        self.input.resize(len.min(have + stream.available()), 0);
        take(stream, &mut self.input[have..]);
        (self.input.len() == len).then(|| core::mem::take(&mut self.input))
    }

    fn wait(&self, stream: &dyn Stream) -> Next {
        if stream.finished() && stream.available() == 0 { Next::Close } else { Next::Wait }
    }

    fn client_flags(&mut self, bytes: &[u8]) -> Next {
        let flags = bytes.try_into().map_or(u32::MAX, u32::from_be_bytes);
        if flags & !client_flags::ALL != 0 {
            return Next::Close;
        }
        self.no_zeroes = flags & client_flags::NO_ZEROES != 0;
        self.state = State::Header;
        Next::Went(0)
    }

    fn header<M: Platform>(&mut self, bytes: &[u8], machine: &mut M) -> Next {
        let header = bytes.try_into().map(OptionHeader::decode);
        self.state = match header {
            Ok(Ok(OptionHeader { len, .. })) if len > MAX_SKIPPED => return Next::Close,
            Ok(Ok(OptionHeader { option, len: left })) if left > MAX_OPTION => {
                State::Skip { option, left, why: "the option has more than 64 KiB of data" }
            }
            Ok(Ok(OptionHeader { option, len: left })) if !machine.has_memory(left as usize) => {
                State::Skip { option, left, why: NO_MEMORY }
            }
            Ok(Ok(header)) => {
                self.input.reserve_exact(header.len as usize);
                State::Data(header)
            }
            Err(_) | Ok(Err(_)) => return Next::Close,
        };
        Next::Went(0)
    }

    fn reply(&mut self, option: OptionCode, code: ReplyCode, data: &[&[u8]]) {
        OptionReply::append(&mut self.out, option, code, data);
    }

    fn option<M: Platform>(
        &mut self,
        option: OptionCode,
        data: &[u8],
        machine: &mut M,
        clients: &mut Clients,
    ) {
        if option == OptionCode::ABORT {
            self.reply(option, ReplyCode::ACK, &[]);
            self.state = State::Closing;
            return;
        }
        let has_memory = machine.has_memory(OPTION_MEMORY.max(TRANSMISSION_MEMORY));
        if option == OptionCode::EXPORT_NAME && has_memory {
            return self.export_name(data, machine, clients);
        }
        if !has_memory {
            // The old way to choose has no way to refuse.
            self.state =
                if option == OptionCode::EXPORT_NAME { State::Closing } else { State::Header };
            if option != OptionCode::EXPORT_NAME {
                self.reply(option, ReplyCode::ERR_POLICY, &[NO_MEMORY.as_bytes()]);
            }
            return;
        }
        if machine.is_closing() {
            return self.reply(
                option,
                ReplyCode::ERR_SHUTDOWN,
                &[b"the server is being switched off"],
            );
        }
        let refused = match option {
            OptionCode::LIST
            | OptionCode::STARTTLS
            | OptionCode::STRUCTURED_REPLY
            | OptionCode::EXTENDED_HEADERS
                if !data.is_empty() =>
            {
                Err((ReplyCode::ERR_INVALID, format!("{option} has no data")))
            }
            OptionCode::LIST => self.list(machine),
            OptionCode::STARTTLS => Err((
                ReplyCode::ERR_PLATFORM,
                format!("no TLS on vsock port {NBD_PORT}: it ends in front of this server"),
            )),
            OptionCode::INFO | OptionCode::GO => self.info(option, data, machine, clients),
            OptionCode::STRUCTURED_REPLY if self.extended => {
                Err((ReplyCode::ERR_EXT_HEADER_REQD, "extended headers are in use".into()))
            }
            OptionCode::STRUCTURED_REPLY if self.structured => twice(option),
            OptionCode::STRUCTURED_REPLY => {
                self.structured = true;
                self.reply(option, ReplyCode::ACK, &[]);
                Ok(())
            }
            OptionCode::EXTENDED_HEADERS if self.extended => twice(option),
            OptionCode::EXTENDED_HEADERS => {
                self.extended = true;
                self.reply(option, ReplyCode::ACK, &[]);
                Ok(())
            }
            OptionCode::LIST_META_CONTEXT | OptionCode::SET_META_CONTEXT => {
                self.contexts(option, data, machine)
            }
            _ => Err((ReplyCode::ERR_UNSUP, format!("this server knows no option {}", option.0))),
        };
        if let Err((code, why)) = refused {
            self.reply(option, code, &[why.as_bytes()]);
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
        let offers =
            exports::offers(machine).map_err(|e| (ReplyCode::ERR_POLICY, format!("{e}")))?;
        for found in offers {
            let len = (found.name.len() as u32).to_be_bytes();
            let about = found.description();
            self.reply(OptionCode::LIST, ReplyCode::SERVER, &[&len, &found.name, about.as_bytes()]);
        }
        self.reply(OptionCode::LIST, ReplyCode::ACK, &[]);
        Ok(())
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
        let used = match option {
            OptionCode::GO => {
                let used = clients.open(machine, &found, self.peer);
                Some(used.map_err(|e| (ReplyCode::ERR_UNKNOWN, format!("{e}")))?)
            }
            _ => None,
        };
        self.reply(
            option,
            ReplyCode::INFO,
            &[&info_export(found.size, self.flags(&found, contexts))],
        );
        if request.wants(InfoType::NAME) {
            self.reply(option, ReplyCode::INFO, &[&InfoType::NAME.0.to_be_bytes(), &found.name]);
        }
        if request.wants(InfoType::DESCRIPTION) {
            let about = found.description();
            let kind = InfoType::DESCRIPTION.0.to_be_bytes();
            self.reply(option, ReplyCode::INFO, &[&kind, about.as_bytes()]);
        }
        if request.wants(InfoType::BLOCK_SIZE) {
            let sizes = info_block_size(1, BLOCK_SIZE as u32, MAX_PAYLOAD);
            self.reply(option, ReplyCode::INFO, &[&sizes]);
        }
        self.reply(option, ReplyCode::ACK, &[]);
        if let Some(used) = used {
            self.choose(&found, used, contexts);
        }
        Ok(())
    }

    fn choose(&mut self, found: &Found, used: (Backing, ClientId), contexts: Contexts) {
        let transmission = Transmission::new(found, used, self.style(), contexts);
        self.state = State::Chosen(Some(Box::new(transmission)));
    }

    /// The old way to choose: whatever is wrong ends the connection.
    fn export_name<M: Platform>(&mut self, name: &[u8], machine: &mut M, clients: &mut Clients) {
        self.state = State::Closing;
        if self.extended || machine.is_closing() || umbra_proto::nbd::checked_string(name).is_err()
        {
            return;
        }
        let contexts = self.contexts_for(name);
        let Ok(found) = exports::find(machine, name) else { return };
        let Ok(used) = clients.open(machine, &found, self.peer) else { return };
        self.out.extend_from_slice(&export_name_reply(found.size, self.flags(&found, contexts)));
        if !self.no_zeroes {
            self.out.extend_from_slice(&[0; EXPORT_NAME_ZEROES]);
        }
        self.choose(&found, used, contexts);
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
            return Err((
                ReplyCode::ERR_INVALID,
                "structured replies have to be negotiated first".into(),
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
                self.reply(option, ReplyCode::META_CONTEXT, &[&id.to_be_bytes(), context.name()]);
            }
        }
        if set {
            self.selected = Some((request.name.to_vec(), contexts));
        }
        self.reply(option, ReplyCode::ACK, &[]);
        Ok(())
    }
}

/// An option that is refused: how, and a text for people.
type Refused = (ReplyCode, alloc::string::String);

fn twice(option: OptionCode) -> Result<(), Refused> {
    Err((ReplyCode::ERR_INVALID, format!("{option} was negotiated before")))
}

fn malformed(why: BadOption) -> Refused {
    (ReplyCode::ERR_INVALID, format!("{why}"))
}

fn unknown(why: NoExport) -> Refused {
    let code = match why {
        NoExport::Unknown(_) => ReplyCode::ERR_UNKNOWN,
        NoExport::Unusable(_) => ReplyCode::ERR_POLICY,
    };
    (code, format!("{why}"))
}
