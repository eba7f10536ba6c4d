//! What requests see of their connection.

use super::failure::Failure;
use super::handles::{Handles, OpenFile};
use super::output::Output;
use crate::platform::Platform;
use minicbor::Encode;
use umbra_fs::{Begun, Operation};
use umbra_proto::rpc::{self, ERROR, Header};

/// What requests see of their connection.
#[derive(Default)]
pub struct Session {
    /// The request that is being handled.
    pub request: Request,
    /// The frame that is being sent.
    pub out: Output,
    /// Open files.
    pub handles: Handles,
    /// A file that is being closed, since the connection ends.
    closing: Option<Operation>,
    /// Whether the first request was a hello.
    pub greeted: bool,
}

/// A request that is being handled.
pub struct Request {
    /// Its header.
    pub header: Header,
    /// Bytes of its payload that were not consumed yet.
    pub payload_left: u32,
}

impl Default for Request {
    fn default() -> Self {
        Request { header: Header::request(0, 0, 0, 0), payload_left: 0 }
    }
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing can be done until the stream has something new.
    Wait,
    /// Something was done, for this many bytes' worth of time; there is more.
    Went(usize),
    /// Others have to get on first: to be tried again after their turn.
    Park,
    /// The answer is complete.
    Done,
}

impl Session {
    /// Answers the request (or with `MORE` in `flags`, a part of it).
    pub fn reply<T: Encode<()>>(&mut self, flags: u16, body: &T) {
        match rpc::encode_into(body, self.out.room()) {
            Some(len) => self.out.start(self.request.header.response(flags, len as u32, 0)),
            // No body that is sent through here comes near the room; were there one, its client
            // must not wait forever.
            None => {
                debug_assert!(
                    false,
                    "the body of method {} does not fit",
                    self.request.header.method
                );
                self.out.start(self.request.header.response(ERROR, 0, 0));
            }
        }
    }

    /// Takes a step of closing all that is open, whose client is gone: nobody is left to be told of
    /// an error. False: nothing is open.
    pub fn close_some<M: Platform>(&mut self, machine: &mut M) -> bool {
        if let Some(operation) = &mut self.closing {
            if !matches!(machine.volume(|v| v.step(operation)), Ok(None)) {
                self.closing = None;
            }
            return true;
        }
        let Some(file) = self.handles.pop() else { return false };
        let counters = machine.counters();
        counters.handles = counters.handles.saturating_sub(1);
        if let Ok(Begun::GoesOn(operation)) = machine.volume(|v| v.begin_close(file.window)) {
            self.closing = Some(operation);
        }
        true
    }

    /// The open file of a handle.
    pub fn file(&self, handle: u32) -> Result<OpenFile, Failure> {
        self.handles.get(handle)
    }

    /// The open file of a handle through which it is to be changed.
    pub fn file_to_change(&self, handle: u32) -> Result<OpenFile, Failure> {
        self.handles.get_to_change(handle)
    }
}
