// error: private field
fn case<P: Pmem>(blocks: &mut Blocks<P>, shared: Block, stage: &Stage<Durable>) {
    let _ = Exclusive { blocks, block: shared }.publish(&[(0, 1)], stage, Vec::new());
}
