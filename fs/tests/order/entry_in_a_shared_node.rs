// error: no method named `publish` found for struct `Shared`
fn case<P: Pmem>(blocks: &mut Blocks<P>, node: Block, stage: &Stage<Durable>) {
    let Ok(Place::Shared(place)) = Place::find(blocks, core::iter::once(node)) else { return };
    let _ = place.publish(Content::Node(1), &[(0, 1)], stage, Vec::new());
}
