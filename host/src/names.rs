//! Names of files, which are bytes, where people and programs read them.
//!
//! | where                        | how                                                        |
//! |------------------------------|------------------------------------------------------------|
//! | in a message                 | control characters and bytes that are no text as `\n`, `\x9b` |
//! | in a listing, on a terminal  | quoted for a shell where that is needed: `$'a\nb'`         |
//! | in a listing, elsewhere      | the bytes themselves                                       |
//! | in JSON                      | a string, and beside it `..._hex` where that is not exact  |
//!
//! So nothing that somebody named a file reaches a terminal as a command for it.

use serde_json::{Map, Value};
use std::fmt::Write;
use std::io::{self, IsTerminal};

/// Characters that a shell would not take as they are.
const SPECIAL: &str = " !\"#$&'()*;<=>?[\\]^`{|}~";

/// Whether a character does something to a terminal, or to the order of what is shown beside it.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text with nothing in it that acts.
pub fn escaped_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// A name in a message.
pub fn escaped(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        shown.push_str(&escaped_text(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// A name as it can be typed into a shell.
fn quoted(name: &[u8]) -> String {
    let harmless = str::from_utf8(name).ok().filter(|text| !text.contains(acts));
    match harmless {
        Some("") => "''".into(),
        Some(text) if !text.contains(|c| SPECIAL.contains(c)) => text.into(),
        Some(text) => format!("'{}'", text.replace('\'', r"'\''")),
        None => {
            let mut shown = String::from("$'");
            for chunk in name.utf8_chunks() {
                for c in chunk.valid().chars() {
                    let _ = match c {
                        '\n' => write!(shown, "\\n"),
                        '\'' | '\\' => write!(shown, "\\{c}"),
                        c if acts(c) && c.is_ascii() => write!(shown, "\\x{:02x}", u32::from(c)),
                        c if acts(c) => write!(shown, "\\u{:04x}", u32::from(c)),
                        c => write!(shown, "{c}"),
                    };
                }
                for byte in chunk.invalid() {
                    let _ = write!(shown, "\\x{byte:02x}");
                }
            }
            shown.push('\'');
            shown
        }
    }
}

/// A name in a listing on stdout.
pub fn listed(name: &[u8]) -> Vec<u8> {
    if io::stdout().is_terminal() { quoted(name).into_bytes() } else { name.to_vec() }
}

/// Puts a name into a report: the string `key`, and `key` with `_hex` behind it, which is null
/// unless the name is not UTF-8 and the string therefore not exact.
pub fn insert(fields: &mut Value, key: &str, name: Option<&[u8]>) {
    let fields = match fields {
        Value::Object(fields) => fields,
        other => {
            *other = Value::Object(Map::new());
            return insert(other, key, name);
        }
    };
    let text = name.map(|name| String::from_utf8_lossy(name).into_owned());
    let odd = name.filter(|name| str::from_utf8(name).is_err());
    let hex = odd.map(|name| name.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    fields.insert(key.into(), text.into());
    fields.insert(format!("{key}_hex"), hex.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold_nothing_that_acts() {
        for (name, shown) in [
            (&b"/plain name"[..], "/plain name"),
            (b"/a\nb\x1b[2J\x07", "/a\\nb\\u{1b}[2J\\u{7}"),
            (b"/\xff\xfe", "/\\xff\\xfe"),
            ("/\u{9b}31m".as_bytes(), "/\\u{9b}31m"),
            ("/\u{202e}gpj.exe".as_bytes(), "/\\u{202e}gpj.exe"),
            ("/wörter".as_bytes(), "/wörter"),
        ] {
            assert_eq!(escaped(name), shown);
        }
    }

    #[test]
    fn a_shell_reads_what_is_quoted_as_the_name() {
        let names: [&[u8]; 9] = [
            b"plain",
            b"",
            b"with space",
            b"it's",
            b"a\nb",
            b"\x1b[31m\xff'\\",
            b"$HOME`id`*",
            "wörter\u{9b}".as_bytes(),
            b"~",
        ];
        for name in names {
            let output = std::process::Command::new("bash")
                .args(["-c", &format!("LC_ALL=C.UTF-8; printf %s {}", quoted(name))])
                .output()
                .unwrap();
            assert_eq!(output.stdout, name, "{}", quoted(name));
            assert!(!quoted(name).contains(acts));
        }
        assert_eq!(quoted(b"plain-1.img"), "plain-1.img");
    }

    #[test]
    fn names_in_reports_are_exact() {
        let mut fields = Value::Null;
        insert(&mut fields, "name", Some(b"a\nb"));
        insert(&mut fields, "target", Some(b"\xff"));
        insert(&mut fields, "path", None);
        assert_eq!(fields["name"], "a\nb");
        assert!(fields["name_hex"].is_null() && fields["path"].is_null());
        assert_eq!(fields["target_hex"], "ff");
    }
}
