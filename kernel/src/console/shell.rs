//! Reading lines, finding and running commands.

use super::args::Args;
use super::command::{Bytes, Command, Done, Failure, Session, Step};
use super::line::{Edit, LineEditor, MAX_LINE};
use super::{files, system, windows};
use crate::arch::serial;
use crate::arch::serial::{print, println};
use crate::config::Config;
use umbra_fs::Error;
use umbra_server::Shared;

/// All commands.
fn commands() -> impl Iterator<Item = &'static Command> {
    let all = [&HELP[..], files::COMMANDS, windows::COMMANDS, system::COMMANDS];
    #[cfg(feature = "test-commands")]
    let all = all.into_iter().chain([super::breakage::COMMANDS]);
    all.into_iter().flatten()
}

const HELP: [Command; 1] = [Command { name: "help", help: "              this list", run: help }];

fn help(_: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    for command in commands() {
        println!("{} {}", command.name, command.help);
    }
    println!("numbers: 123, 0x7b, 4K; bytes to store: text, hex:00ff, fill:BYTE:LENGTH");
    Ok(())
}

/// The console.
pub(crate) struct Console {
    editor: LineEditor,
    session: Session,
    echo: bool,
}

impl Console {
    /// A console that has read nothing yet.
    pub(crate) fn new(config: Config) -> Self {
        let console =
            Console { editor: LineEditor::new(), session: Session::default(), echo: config.echo };
        console.prompt();
        console
    }

    fn prompt(&self) {
        if self.echo {
            print!("umbra> ");
        }
    }

    /// Takes what was typed, up to one line, and runs that, or goes on with the last one; whether
    /// there was anything.
    pub(crate) fn poll(&mut self, shared: &Shared) -> bool {
        if self.go_on(shared) {
            return true;
        }
        let lost = serial::take_lost();
        if lost > 0 {
            log::warn!("{lost} bytes typed at the console were lost");
        }
        let mut worked = false;
        while let Some(byte) = serial::take() {
            worked = true;
            let edit = self.editor.byte(byte);
            if self.echo {
                match edit {
                    Edit::Added => serial::write(&[byte]),
                    Edit::Erased => print!("\x08 \x08"),
                    Edit::Complete | Edit::TooLong => println!(),
                    Edit::Ignored => {}
                }
            }
            match edit {
                Edit::Complete => {
                    if let Some(done) = self.run() {
                        self.over(done, shared);
                    }
                }
                Edit::TooLong => println!("error: the line has more than {MAX_LINE} bytes"),
                _ => continue,
            }
            self.editor.clear();
            if self.session.running.is_none() {
                self.prompt();
            }
            break;
        }
        worked
    }

    /// Takes a step of the command that is under way; false if none is.
    fn go_on(&mut self, shared: &Shared) -> bool {
        let Some(mut task) = self.session.running.take() else { return false };
        match task.step(&mut self.session) {
            Ok(Step::GoesOn) => {
                self.session.running = Some(task);
                return true;
            }
            Ok(Step::Over) => self.over(Ok(()), shared),
            Err(why) => self.over(Err(why), shared),
        }
        self.prompt();
        true
    }

    /// Says that a command is over, unless it goes on.
    fn over(&self, done: Done, shared: &Shared) {
        match done {
            Ok(()) if self.session.running.is_some() => {}
            Ok(()) => println!("ok"),
            Err(Failure::Fs(why @ Error::InUse(file))) => {
                println!("error: {why}{}", shared.users(file))
            }
            Err(why) => println!("error: {why}"),
        }
    }

    /// Runs the line; `None` if it is empty.
    fn run(&mut self) -> Option<Done> {
        let mut args = Args::new(self.editor.line());
        let name = args.optional()?;
        Some(match commands().find(|command| command.name.as_bytes() == name) {
            Some(command) => (command.run)(&mut self.session, args),
            None => Err(Failure::Other(alloc::format!(
                "unknown command {} (try help)",
                Bytes(&name[..name.len().min(40)])
            ))),
        })
    }
}
