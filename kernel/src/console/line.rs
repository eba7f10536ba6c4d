//! Lines from bytes that anyone may send.

/// Longest line in bytes; the rest of a longer one is dropped.
pub(crate) const MAX_LINE: usize = 1024;

/// Collects bytes until a line is complete.
pub(crate) struct LineEditor {
    bytes: [u8; MAX_LINE],
    len: usize,
    too_long: bool,
    after_return: bool,
}

/// What a byte did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// It was added.
    Added,
    /// The last byte was taken back.
    Erased,
    /// Nothing.
    Ignored,
    /// The line is complete; read it, then call [`LineEditor::clear`].
    Complete,
    /// The line is complete, but had more than [`MAX_LINE`] bytes.
    TooLong,
}

impl Default for LineEditor {
    fn default() -> Self {
        Self::new()
    }
}

impl LineEditor {
    /// An empty line.
    pub(crate) const fn new() -> Self {
        LineEditor { bytes: [0; MAX_LINE], len: 0, too_long: false, after_return: false }
    }

    /// Takes one byte. A line ends with CR, LF or both.
    pub(crate) fn byte(&mut self, byte: u8) -> Edit {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\n' if after_return => Edit::Ignored,
            b'\r' | b'\n' if self.too_long => Edit::TooLong,
            b'\r' | b'\n' => Edit::Complete,
            // Backspace and delete.
            0x08 | 0x7f if self.len > 0 => {
                self.len -= 1;
                Edit::Erased
            }
            // Control bytes mean nothing here; bytes from 0x80 may be part of a name.
            0..0x20 | 0x7f => Edit::Ignored,
            _ if self.len == MAX_LINE => {
                self.too_long = true;
                Edit::Ignored
            }
            _ => {
                self.bytes[self.len] = byte;
                self.len += 1;
                Edit::Added
            }
        }
    }

    /// The bytes so far.
    pub(crate) fn line(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Starts a new line.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.too_long = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn lines(bytes: &[u8]) -> Vec<Result<Vec<u8>, ()>> {
        let mut editor = LineEditor::new();
        let mut lines = Vec::new();
        for byte in bytes {
            match editor.byte(*byte) {
                Edit::Complete => lines.push(Ok(editor.line().to_vec())),
                Edit::TooLong => lines.push(Err(())),
                _ => continue,
            }
            editor.clear();
        }
        lines
    }

    #[test]
    fn ends_and_edits() {
        assert_eq!(
            lines(b"a\r\nbx\x7fc\n\x08d\x01\r"),
            [Ok(b"a".to_vec()), Ok(b"bc".to_vec()), Ok(b"d".to_vec())]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_whole() {
        let mut bytes = [b'x'; MAX_LINE + 1].to_vec();
        bytes.extend(b"\nls\n");
        assert_eq!(lines(&bytes), [Err(()), Ok(b"ls".to_vec())]);
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
            for line in lines(&bytes).into_iter().flatten() {
                prop_assert!(line.len() <= MAX_LINE);
            }
        }
    }
}
