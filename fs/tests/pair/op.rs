//! The operations, and which are tried.

use proptest::prelude::*;

#[derive(Clone, Debug)]
pub enum Op {
    Create(usize),
    Mkdir(usize),
    Remove(usize),
    Rename(usize, usize),
    Link(usize, usize),
    Symlink(usize, usize),
    Write {
        file: usize,
        offset: u64,
        len: u64,
        fill: u8,
    },
    /// Lends a run of blocks.
    Lend,
    /// The device writes into all that it has: it may do so at any time.
    DeviceWrites,
    /// A device receives `len` bytes into a run, from its block `at` on, and they are written from
    /// a block on. Unless it is kept, the run is given back at once.
    Receive {
        file: usize,
        block: u64,
        at: u64,
        len: u64,
        fill: u8,
        keep: bool,
    },
    /// Gives a run back that was kept.
    TakeBack(usize),
    Truncate {
        file: usize,
        size: u64,
    },
    Punch {
        file: usize,
        offset: u64,
        len: u64,
    },
    Provide {
        file: usize,
        offset: u64,
        len: u64,
    },
    Clone(usize, usize),
    CloneRange {
        src: usize,
        from: u64,
        dst: usize,
        to: u64,
        blocks: u64,
    },
    /// As `CloneRange`, of which some steps are taken.
    BeginCloneRange {
        src: usize,
        from: u64,
        dst: usize,
        to: u64,
        blocks: u64,
        steps: usize,
    },
    /// Takes steps of what was begun.
    GoOn(usize),
    /// Gives it up.
    GiveUp,
    /// With `copy` the range is written to the target before.
    Dedupe {
        src: usize,
        from: u64,
        dst: usize,
        to: u64,
        blocks: u64,
        copy: bool,
    },
    Open(usize),
    Close(usize),
    /// Opens a window on what a file contains now.
    Freeze(usize),
    Thaw(usize),
    /// Opens a file that has no name.
    Unnamed,
    WriteUnnamed {
        file: usize,
        offset: u64,
        len: u64,
        fill: u8,
    },
    /// Gives it one, which may be another file's if `over`.
    Name {
        file: usize,
        path: usize,
        over: bool,
    },
    /// Closes it.
    Drop(usize),
    /// A further name for a file, which may be another's.
    LinkOver(usize, usize),
    Load {
        window: usize,
        offset: u64,
        len: u64,
    },
    Store {
        window: usize,
        offset: u64,
        len: u64,
        fill: u8,
    },
    Sync(usize),
    Reclaim,
    Remount,
}

/// Paths that operations choose from: some below directories.
pub const PATHS: [&str; 12] = [
    "a",
    "b",
    "c",
    "d",
    "d/x",
    "d/y",
    "d/z",
    "e",
    "e/x",
    "e/f",
    "e/f/x",
    "a-longer-name-that-is-still-a-name",
];

/// Offsets near the borders of blocks and leaves, and near each other.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..20_000,
        (0u64..6, 0u64..200).prop_map(|(block, near)| (block * 4096 + near).saturating_sub(100)),
        (1u64..3, 0u64..9000).prop_map(|(leaf, near)| leaf * (2 << 20) + near - 4500),
    ]
}

pub fn op() -> impl Strategy<Value = Op> {
    let path = 0..PATHS.len();
    let len = prop_oneof![1u64..300, 3000u64..20_000];
    let blocks = prop_oneof![1u64..4, 500u64..600];
    let hole =
        prop_oneof![1u64..300, 3000u64..20_000, (1u64..1200).prop_map(|blocks| blocks * 4096)];
    prop_oneof![
        3 => path.clone().prop_map(Op::Create),
        1 => path.clone().prop_map(Op::Mkdir),
        1 => path.clone().prop_map(Op::Remove),
        2 => (path.clone(), path.clone()).prop_map(|(a, b)| Op::Rename(a, b)),
        2 => (path.clone(), path.clone()).prop_map(|(a, b)| Op::Link(a, b)),
        1 => (path.clone(), path.clone()).prop_map(|(a, b)| Op::Symlink(a, b)),
        6 => (path.clone(), offset(), len.clone(), any::<u8>())
            .prop_map(|(file, offset, len, fill)| Op::Write { file, offset, len, fill }),
        2 => Just(Op::Lend),
        1 => Just(Op::DeviceWrites),
        4 => (
            path.clone(),
            prop_oneof![0u64..8, 500u64..515],
            0u64..16,
            1u64..66_000,
            any::<u8>(),
            any::<bool>(),
        )
            .prop_map(|(file, block, at, len, fill, keep)| {
                Op::Receive { file, block, at, len, fill, keep }
            }),
        2 => (0usize..4).prop_map(Op::TakeBack),
        2 => (path.clone(), offset()).prop_map(|(file, size)| Op::Truncate { file, size }),
        3 => (path.clone(), offset(), hole)
            .prop_map(|(file, offset, len)| Op::Punch { file, offset, len }),
        3 => (path.clone(), offset(), prop_oneof![1u64..40_000, 1u64..6_000_000])
            .prop_map(|(file, offset, len)| Op::Provide { file, offset, len }),
        3 => (path.clone(), path.clone()).prop_map(|(a, b)| Op::Clone(a, b)),
        2 => (path.clone(), 0u64..6, path.clone(), prop_oneof![0u64..6, 508u64..516], blocks)
            .prop_map(|(src, from, dst, to, blocks)| Op::CloneRange { src, from, dst, to, blocks }),
        2 => (
            path.clone(),
            0u64..6,
            path.clone(),
            prop_oneof![0u64..6, 508u64..516],
            500u64..600,
            0usize..20,
        )
            .prop_map(|(src, from, dst, to, blocks, steps)| {
                Op::BeginCloneRange { src, from, dst, to, blocks, steps }
            }),
        4 => (1usize..40).prop_map(Op::GoOn),
        1 => Just(Op::GiveUp),
        3 => (
            path.clone(),
            0u64..6,
            path.clone(),
            prop_oneof![0u64..6, 508u64..516],
            prop_oneof![1u64..4, 500u64..600],
            any::<bool>(),
        )
            .prop_map(|(src, from, dst, to, blocks, copy)| {
                Op::Dedupe { src, from, dst, to, blocks, copy }
            }),
        2 => path.clone().prop_map(Op::Open),
        1 => (0usize..4).prop_map(Op::Close),
        2 => path.clone().prop_map(Op::Freeze),
        1 => (0usize..3).prop_map(Op::Thaw),
        2 => Just(Op::Unnamed),
        2 => (0usize..3, offset(), len.clone(), any::<u8>())
            .prop_map(|(file, offset, len, fill)| Op::WriteUnnamed { file, offset, len, fill }),
        3 => (0usize..3, path.clone(), any::<bool>())
            .prop_map(|(file, path, over)| Op::Name { file, path, over }),
        1 => (0usize..3).prop_map(Op::Drop),
        2 => (path.clone(), path.clone()).prop_map(|(a, b)| Op::LinkOver(a, b)),
        4 => (0usize..4, offset(), len.clone())
            .prop_map(|(window, offset, len)| Op::Load { window, offset, len }),
        6 => (0usize..4, offset(), len, any::<u8>())
            .prop_map(|(window, offset, len, fill)| Op::Store { window, offset, len, fill }),
        1 => path.prop_map(Op::Sync),
        1 => Just(Op::Reclaim),
        1 => Just(Op::Remount),
    ]
}
