// The order as it has to be: this one compiles.
fn case<P: Pmem>(
    blocks: &mut Blocks<P>,
    pmem: &mut P,
    mut stage: Stage<Written>,
    block: Block,
    new: &Fresh,
) {
    stage.store_entry(pmem, new, Content::Node(1), 0, 1);
    let stage = stage.flush(pmem).fence(pmem);
    let Ok(Place::Exclusive(place)) = Place::find(blocks, core::iter::once(block)) else { return };
    let published = place.publish(Content::Node(1), &[(0, 1)], &stage, Vec::new());
    let _ = blocks.release(published.flush(pmem).fence(pmem));
}

fn fill<P: Pmem>(
    place: Unwritten<'_, P>,
    pmem: &mut P,
    mut stage: Stage<Written>,
    leaf: Exclusive<'_, P>,
) {
    let word = place.fill(&mut stage, core::iter::once((8, &b"content"[..]))).value();
    let stage = stage.flush(pmem).fence(pmem);
    let _ = leaf.publish(Content::Node(1), &[(0, word)], &stage, Vec::new());
}
