// error: expected `&Fresh`, found `&Shared`
fn case<P: Pmem>(blocks: &mut Blocks<P>, pmem: &mut P, node: Block, mut stage: Stage<Written>) {
    let Ok(Place::Shared(place)) = Place::find(blocks, core::iter::once(node)) else { return };
    stage.store_entry(pmem, &place, Content::Node(1), 0, 1);
}
