//! The command of test builds that shows what becomes of loads from memory that is lost.

use super::args::Args;
use super::command::{Done, Failure, Session, volume};
use super::windows;
use crate::arch::serial::println;
use crate::arch::{compare, copy};
use crate::dax::Processor;
use crate::mm::{DIRECT, PAGE};
use crate::nvdimm;
use crate::traps::lost_loads::pretend;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use umbra_fs::dax::AccessError;
use umbra_fs::pmem::Poisoned;
use umbra_fs::{Error, FileBlock, Pmem, dax};

/// Bytes of a page.
const LEN: usize = PAGE as usize;
/// Pages after which an emulator's TLB uses the same entries again.
const TLB: usize = 64;

/// `test-lost WINDOW`: loads from the first pages of the NVDIMM, and through the window's first
/// page, while the page is lost.
pub(super) fn lost(session: &mut Session, mut args: Args<'_>) -> Done {
    let window = windows::window(session, &mut args)?;
    args.end()?;
    let served =
        nvdimm::table().as_ref().ok().and_then(|t| t.persistent().find(|r| nvdimm::is_served(r)));
    let base = served.ok_or(Failure::Other("there is no NVDIMM".into()))?.base;
    copies(base)?;
    comparisons(base)?;

    let mut into = vec![0; 3 * LEN];
    let result = volume(|v| Ok(pretend(base + PAGE, || v.pmem().read(0, &mut into).err())))?;
    expect("a read", result == Some(Poisoned { at: PAGE }))?;

    let ino = session.windows.iter().find(|(open, _)| *open == window).map(|(_, ino)| *ino);
    let ino = ino.ok_or(Failure::Other("the window is closed".into()))?;
    let extent = volume(|v| v.extent(ino, FileBlock(0)))?;
    let block = extent.and_then(|extent| extent.at);
    let block = block.ok_or(Failure::Other("the file begins with a hole".into()))?;
    let mut processor = Processor::new().ok_or(Failure::Other("there is no volume".into()))?;
    let mut bytes = [0; 100];
    // Maps the page, and shows that it can be loaded.
    dax::load(&mut processor, window, 0, &mut bytes)?;
    let is_lost = |result| {
        let at = Poisoned { at: block.0 * PAGE };
        matches!(result, Err(AccessError { error: Error::Poisoned(p), .. }) if p == at)
    };
    let page = base + block.0 * PAGE;
    let result = pretend(page, || dax::load(&mut processor, window, 8, &mut bytes));
    expect("a load through a window", is_lost(result))?;
    // The rest of the word is loaded first.
    let result = pretend(page, || dax::store(&mut processor, window, 1, b"x"));
    expect("a store of a part of a word", is_lost(result))?;
    dax::load(&mut processor, window, 0, &mut bytes)?;
    println!("loads of lost memory end");
    Ok(())
}

fn expect(what: &str, held: bool) -> Result<(), Failure> {
    let why = || Failure::Other(format!("{what} of lost memory did not end as it should"));
    held.then_some(()).ok_or_else(why)
}

/// Three pages are copied in each way, of which the second, or another one, is lost.
fn copies(base: u64) -> Result<(), Failure> {
    let from = (DIRECT + base) as *const u8;
    // SAFETY: the NVDIMM is mapped there, has more than three pages, and nobody stores meanwhile.
    let all = unsafe { core::slice::from_raw_parts(from, 3 * LEN) }.to_vec();
    let mut room = vec![0; (TLB + 4) * LEN];
    let first = room.as_ptr().addr().div_ceil(LEN);
    // Where source and destination share entries of the TLB, copies go another way.
    let same = (base as usize / LEN).wrapping_sub(first) % TLB * LEN;
    let start = first * LEN - room.as_ptr().addr();
    for (method, at) in copy::METHODS.iter().flat_map(|m| [(m, start + same), (m, start + LEN + 8)])
    {
        room.fill(0x5a);
        let to = room[at..][..3 * LEN].as_mut_ptr();
        // SAFETY: both ranges have three pages.
        let copy = || unsafe { method.read(to, from, 3 * LEN) };
        expect(method.name, pretend(base + PAGE, copy) == Err(copy::Failed))?;
        let to = &room[at..][..3 * LEN];
        let untouched = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0x5a);
        // What is on its way through the stack does not arrive.
        let good = to[..LEN - 512] == all[..LEN - 512] && untouched(&to[LEN..]);
        expect(method.name, good)?;
        // SAFETY: both ranges have three pages.
        let copy = || unsafe { method.read(room[at..].as_mut_ptr(), from, 3 * LEN) };
        expect("another page", pretend(base + 4 * PAGE, copy) == Ok(()))?;
        expect("another page", room[at..][..3 * LEN] == all)?;
    }
    Ok(())
}

/// A page is compared while it is lost on one side, and while another one is.
fn comparisons(base: u64) -> Result<(), Failure> {
    let from = (DIRECT + base) as *const u8;
    // SAFETY: as in `copies`.
    let same: Vec<u8> = unsafe { core::slice::from_raw_parts(from, LEN) }.to_vec();
    let compare = |a: *const u8, b: *const u8| {
        // SAFETY: both have a page, and nobody stores meanwhile.
        move || unsafe { compare::first_difference(a, b, LEN) }
    };
    expect("a comparison", pretend(base, compare(from, same.as_ptr())) == Err(copy::Failed))?;
    expect("a comparison", pretend(base, compare(same.as_ptr(), from)) == Err(copy::Failed))?;
    expect("another page", pretend(base + 2 * PAGE, compare(from, same.as_ptr())) == Ok(None))?;
    // SAFETY: as above.
    let zeros = || unsafe { compare::first_nonzero(from, LEN) };
    expect("a search", pretend(base, zeros) == Err(copy::Failed))
}
