//! Options that the launcher passes to the kernel.
//!
//! A text of `key=value` lines. The launcher writes it, so a line that is not
//! understood is an error that is shown, but never keeps the server from starting.
#![forbid(unsafe_code)]

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// `format=yes`: overwrite whatever the NVDIMM holds with an empty volume.
    pub(crate) format: bool,
    /// `volume=no`: mount nothing.
    pub(crate) no_volume: bool,
    /// `echo=yes`: the console echoes what it reads and prompts, for a bare terminal.
    pub(crate) echo: bool,
    /// `slots=NUMBER`: so many slots of windows, and not as many as suit the RAM. With none,
    /// nothing can be read through windows: that is how their memory is measured.
    pub(crate) slots: Option<u32>,
}

impl Config {
    /// Reads the options; what is wrong with a line is in the list, and the line ignored.
    pub(crate) fn parse(text: &[u8]) -> (Config, Vec<String>) {
        let mut config = Config::default();
        let mut problems = Vec::new();
        let lines = text.split(|byte| *byte == b'\n' || *byte == 0).map(|line| line.trim_ascii());
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")) {
            if let Err(problem) = config.line(line) {
                let mut message = line[..line.len().min(64)].escape_ascii().to_string();
                message.push_str(": ");
                message.push_str(problem);
                problems.push(message);
            }
        }
        (config, problems)
    }

    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let equals = line.iter().position(|b| *b == b'=').ok_or("not of the form key=value")?;
        let (key, value) = (&line[..equals], &line[equals + 1..]);
        if key == b"slots" {
            let number = core::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            self.slots = Some(number.ok_or("the value is not a number")?);
            return Ok(());
        }
        let yes = match value {
            b"yes" => true,
            b"no" => false,
            _ => return Err("the value is neither yes nor no"),
        };
        match key {
            b"format" => self.format = yes,
            b"volume" => self.no_volume = !yes,
            b"echo" => self.echo = yes,
            _ => return Err("unknown option"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_options_and_reports_the_rest() {
        let (config, problems) =
            Config::parse(b"format=yes\n\n# comment\nvolume=maybe\nx\nspeed=yes\0");
        assert_eq!(config, Config { format: true, ..Config::default() });
        assert_eq!(problems.len(), 3);
        assert_eq!(problems[0], "volume=maybe: the value is neither yes nor no");
        assert_eq!(Config::parse(b"").0, Config::default());
        assert_eq!(Config::parse(b"slots=12").0.slots, Some(12));
        assert_eq!(Config::parse(b"slots=-1").1, ["slots=-1: the value is not a number"]);
    }
}
