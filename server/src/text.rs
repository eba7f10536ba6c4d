//! Messages for people, in memory of fixed size.

use alloc::vec::Vec;
use core::fmt::{self, Write};
use umbra_fs::memory::filled;

/// Longest text of a [`Message`] in bytes.
pub(crate) const MAX_MESSAGE: usize = 1024;
/// What a message says for which there was no memory.
const NO_TEXT: &str = "the server has no memory left to say more";

/// A text of at most [`MAX_MESSAGE`] bytes: what is longer is cut.
///
/// Its memory is taken once. If there is none, the text is lost, but not what it is about: a number
/// goes with each message.
#[derive(Debug)]
pub struct Message {
    /// Empty, or as long as a message can be.
    bytes: Vec<u8>,
    len: usize,
}

impl Message {
    /// A message with this text.
    pub fn new(text: fmt::Arguments<'_>) -> Self {
        let mut message = Message { bytes: filled(MAX_MESSAGE, 0).unwrap_or_default(), len: 0 };
        message.add(text);
        message
    }

    /// Adds what there is room for.
    pub fn add(&mut self, text: fmt::Arguments<'_>) {
        self.len += write_text(&mut self.bytes[self.len..], text).len();
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        if self.bytes.is_empty() { NO_TEXT } else { valid(&self.bytes[..self.len]) }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes a text at the start of `into`, cut at a character where it is longer; returns it.
pub(crate) fn write_text<'b>(into: &'b mut [u8], text: fmt::Arguments<'_>) -> &'b str {
    let mut cut = Cut { into, len: 0 };
    // An error means that it was cut.
    let _ = cut.write_fmt(text);
    let Cut { into, len } = cut;
    valid(&into[..len])
}

/// Bytes that were written as text.
fn valid(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or(NO_TEXT)
}

/// A writer that takes no more than there is room for.
struct Cut<'b> {
    into: &'b mut [u8],
    len: usize,
}

impl Write for Cut<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.into.len() - self.len;
        let piece = &s[..s.floor_char_boundary(room)];
        self.into[self.len..self.len + piece.len()].copy_from_slice(piece.as_bytes());
        self.len += piece.len();
        if piece.len() < s.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// A path in a message: quoted, on one line, cut where it is long.
pub(crate) struct Shown<'p>(pub &'p [u8]);

/// Bytes of a path that a message shows.
const MAX_SHOWN: usize = 256;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.0[..self.0.len().min(MAX_SHOWN)];
        f.write_char('\'')?;
        for chunk in cut.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\'' | '\\' => write!(f, "\\{c}")?,
                    c if c.is_control() => write!(f, "{}", c.escape_default())?,
                    c => f.write_char(c)?,
                }
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        f.write_str(if cut.len() < self.0.len() { "'..." } else { "'" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn messages_are_cut() {
        let long = "ü".repeat(4000);
        let mut message = Message::new(format_args!("x{long}{long}"));
        message.add(format_args!("y"));
        let len = message.as_str().len();
        assert_eq!((message.as_str().chars().nth(1), len), (Some('ü'), MAX_MESSAGE - 1 + 1));
        let mut room = [0; 5];
        assert_eq!(write_text(&mut room, format_args!("a{}", "üü")), "aüü");
        assert_eq!(write_text(&mut room[..4], format_args!("a{}", "üü")), "aü");
        assert_eq!(write_text(&mut [], format_args!("a")), "");
    }

    #[test]
    fn paths_are_shown_on_one_line() {
        assert_eq!(Shown(b"/a b").to_string(), "'/a b'");
        assert_eq!(Shown("/ü\n'\\".as_bytes()).to_string(), "'/ü\\n\\'\\\\'");
        assert_eq!(Shown(b"/\xff\xfe.").to_string(), "'/\\xff\\xfe.'");
        assert_eq!(Shown(&[b'a'; 5000]).to_string().len(), 256 + 5);
    }
}
