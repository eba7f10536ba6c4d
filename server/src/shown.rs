//! Bytes from clients in messages for people.

use core::fmt::{self, Write};

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
    fn paths_are_shown_on_one_line() {
        assert_eq!(Shown(b"/a b").to_string(), "'/a b'");
        assert_eq!(Shown("/ü\n'\\".as_bytes()).to_string(), "'/ü\\n\\'\\\\'");
        assert_eq!(Shown(b"/\xff\xfe.").to_string(), "'/\\xff\\xfe.'");
        assert_eq!(Shown(&[b'a'; 5000]).to_string().len(), 256 + 5);
    }
}
