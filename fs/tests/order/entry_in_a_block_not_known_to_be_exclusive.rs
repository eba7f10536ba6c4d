// error: private field
fn case<P: Pmem>(blocks: &mut Blocks<P>, shared: Block, stage: &Stage<Durable>) {
    let place = Exclusive { blocks, block: shared, twin: Distance::NONE };
    let _ = place.publish(Content::Node(1), &[(0, 1)], stage, Vec::new());
}
