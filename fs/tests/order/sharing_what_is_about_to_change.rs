// error: cannot borrow `*blocks` as mutable more than once at a time
fn case<P: Pmem>(blocks: &mut Blocks<P>, block: Block, stage: &Stage<Durable>) {
    let Ok(Place::Exclusive(place)) = Place::find(blocks, core::iter::once(block)) else { return };
    let _ = blocks.add_reference(block, Content::Data);
    let _ = place.publish(Content::Node(1), &[(0, 1)], stage, Vec::new());
}
