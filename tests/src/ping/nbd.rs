//! NBD, command by command.

use super::{Bench, MIB, Subject};
use crate::nbd::Disk;
use umbra::client::rpc;
use umbra_proto::nbd::{Command, Style, command_flags as flag};
use umbra_server::testing::nbd::Reply;

/// Measures every command there is.
pub(super) fn all(bench: &mut Bench) {
    for (command, name) in Command::ALL {
        for subject in bench.subjects.clone() {
            let path = bench.copy(subject);
            let add = rpc::ExportAdd {
                name: "disk",
                path: path.as_bytes(),
                read_only: false,
                size: None,
                replace: false,
            };
            bench.client.export_add(&add).expect("it can be exported");
            let mut disk = Disk::open(bench.vm.state(), "disk", Style::Extended);
            let known = one(bench, *command, &format!("nbd {name}"), subject, &mut disk);
            drop(disk);
            // Until the server has seen that it is gone, the export is in use.
            while bench.client.export_remove("disk").is_err() {}
            if !known {
                bench.missing.push(format!("nbd {name}"));
                break;
            }
        }
    }
}

fn done(reply: Reply) -> Result<(), String> {
    reply.error.map_or(Ok(()), |error| Err(format!("{error:?}")))
}

/// Measures a command; false if there is no row for it.
fn one(b: &mut Bench, command: Command, name: &str, subject: Subject, disk: &mut Disk) -> bool {
    let Subject { path, size, dense } = subject;
    let places = [0, size / 2 + 1000, size - 16 * MIB];
    let bytes = vec![9; 4 * MIB as usize];
    match command {
        Command::READ => {
            b.measure(name, path, |_| {
                places.iter().try_for_each(|at| done(disk.call(command, 0, *at, 16 * MIB, &[])))
            });
        }
        Command::WRITE => {
            for (how, flags) in [("", 0), (", FUA", flag::FUA)] {
                b.measure(format!("{name}{how}"), path, |_| {
                    places.iter().try_for_each(|at| {
                        done(disk.call(command, flags, *at, bytes.len() as u64, &bytes))
                    })
                });
            }
        }
        Command::DISC => {
            b.measure(name, path, |_| disk.send(command, 0, 0, 0, &[]));
        }
        Command::FLUSH => {
            disk.write(size / 2, &bytes);
            b.measure(format!("{name}, written"), path, |_| done(disk.call(command, 0, 0, 0, &[])));
            let file = b.open("/copy", 0);
            b.dirty(&file, size);
            b.measure(format!("{name}, dirty"), path, |_| done(disk.call(command, 0, 0, 0, &[])));
            b.client.close(file).expect("it closes");
        }
        Command::TRIM => {
            b.measure(format!("{name}, a part"), path, |_| {
                done(disk.call(command, 0, 1000, size / 2 + 3000, &[]))
            });
            b.measure(name, path, |_| done(disk.call(command, 0, 0, size, &[])));
        }
        Command::CACHE => {
            b.measure(name, path, |_| done(disk.call(command, 0, 0, 16 * MIB, &[])));
        }
        Command::WRITE_ZEROES => {
            let most = if dense { size } else { 256 * MIB };
            b.measure(format!("{name}, no hole"), path, |_| {
                done(disk.call(command, flag::NO_HOLE, size / 2, most / 2, &[]))
            });
            b.measure(format!("{name}, FUA"), path, |_| {
                done(disk.call(command, flag::FUA, 1000, size / 2 + 3000, &[]))
            });
            b.measure(name, path, |_| done(disk.call(command, 0, 0, size, &[])));
        }
        Command::BLOCK_STATUS => {
            b.measure(name, path, |_| {
                let mut at = 0;
                while at < size {
                    let reply = disk.call(command, 0, at, size - at, &[]);
                    let told = reply
                        .status
                        .values()
                        .map(|runs| runs.iter().map(|run| run.length).sum::<u64>());
                    let told = told.min().unwrap_or(0);
                    done(reply)?;
                    if told == 0 {
                        return Err(format!("nothing is said of the disk from {at} on"));
                    }
                    at += told;
                }
                Ok(())
            });
        }
        Command::RESIZE => {
            b.measure(format!("{name}, refused"), path, |_| {
                match disk.call(command, 0, 0, size, &[]).error {
                    Some(_) => Ok(()),
                    None => Err("it was not refused".to_string()),
                }
            });
        }
        _ => return false,
    }
    true
}
