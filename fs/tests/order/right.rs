// The order as it has to be: this one compiles.
fn case<P: Pmem>(blocks: &mut Blocks<P>, pmem: &mut P, stage: Stage<Written>, block: Block) {
    let stage = stage.flush(pmem).fence(pmem);
    let Ok(Some(place)) = Exclusive::new(blocks, core::iter::once(block)) else { return };
    let published = place.publish(&[(0, 1)], &stage, Vec::new());
    let _ = blocks.release(published.flush(pmem).fence(pmem));
}
